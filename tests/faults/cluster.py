"""The whole service as real processes that a scenario can kill one by one.

An append-only Redis on a Unix socket, the proxy before it, one API, two workers that reach Redis
through the proxy and share a data folder. Or, with :meth:`Cluster.start_up`, one `classifier up`
with a Redis of its own.
"""

import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self
from uuid import uuid4

import httpx2
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.core import keys
from tests.faults.processes import MARK, Process, Worker, end_marked
from tests.faults.proxy import TcpProxy
from tests.faults.small_disk import SmallDisk
from tests.redis_servers import find_programs
from tests.service import clean_environment, find_free_port, wait_until

ROOT = Path(__file__).parent.parent.parent
WORKERS = 2
HISTORY_LENGTH = 1_000_000
START_SECONDS = 120  # the first worker on a machine tries the engines
STOP_SECONDS = 20


class Cluster:
    """One running service. A context manager; ends everything however a scenario goes.

    ``app_parent`` is a folder with another copy of ``app/`` in it. ``worker_module`` takes the
    place of ``app.cli`` for workers. With ``has_small_disk`` the data folder is on one of its own.
    ``redis`` reaches Redis directly, past the proxy.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        worker_module: str = "app.cli",
        app_parent: Path | None = None,
        processes_per_worker: int = 1,
        has_small_disk: bool = False,
    ) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.port = find_free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.workers: list[Worker] = []
        self.api: Process | None = None
        self.up: Process | None = None
        self._redis_process: Process | None = None
        self._worker_module = worker_module
        self._processes_per_worker = processes_per_worker
        self._mark = uuid4().hex
        self._started = 0
        # The path of a Unix socket must be short.
        self._socket_folder = tempfile.TemporaryDirectory(prefix="faults-")
        self._socket = Path(self._socket_folder.name) / "redis.sock"
        self.redis = _connect(self._socket)
        self.proxy = TcpProxy(str(self._socket))
        paths = [str(path) for path in (app_parent, ROOT) if path is not None]
        self._environment = clean_environment(
            **{
                "PYTHONPATH": os.pathsep.join(paths),
                "DATA_DIR": str(self.data_dir),
                "QUEUE_HISTORY_LENGTH": str(HISTORY_LENGTH),
                MARK: self._mark,
            }
            | dict(environment or {}),
        )
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.disk = SmallDisk(self.data_dir) if has_small_disk else None
        self._wrap = self.disk.wrap if self.disk else ()

    def __enter__(self) -> Self:
        self.proxy.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Redis, the API and both workers, ready."""
        self.start_redis()
        self.start_api()
        for _ in range(WORKERS):
            self.start_worker()
        self.wait_ready()

    def stop(self) -> None:
        """End everything that was started here, at once."""
        for process in self._processes():
            process.send_family(signal.SIGKILL)
            process.wait(STOP_SECONDS)
        end_marked(self._mark)
        self.redis.close()
        self.proxy.__exit__()
        if self.disk is not None:
            self.disk.close()
        self._socket_folder.cleanup()

    def payload_folder(self) -> Path:
        """Where uploads wait."""
        return (self.disk.folder if self.disk else self.data_dir) / "payloads"

    # --- Redis ------------------------------------------------------------------------------------

    def start_redis(self) -> None:
        """Start Redis on the data that are there, and wait until it has read them."""
        data = self.folder / "redis"
        data.mkdir(exist_ok=True)
        options = {"--port": "0", "--unixsocket": str(self._socket), "--dir": str(data)}
        options |= {"--save": "", "--appendonly": "yes", "--appendfsync": "always"}
        options |= {"--maxmemory-policy": "noeviction", "--loglevel": "warning"}
        words = [word for option in options.items() for word in option]
        program = next(iter(find_programs().values()))
        self._redis_process = Process(
            "redis", [program, *words], self.folder, {**os.environ, MARK: self._mark}
        )
        wait_until(self._redis_answers)

    def end_redis(self, number: signal.Signals) -> None:
        """SIGTERM or SIGKILL, until it has ended."""
        assert self._redis_process is not None
        self._redis_process.send(number)
        self._redis_process.wait(STOP_SECONDS)

    def _redis_answers(self) -> bool:
        try:
            return bool(self.redis.ping())
        except redis.RedisError:
            return False

    # --- The service ------------------------------------------------------------------------------

    def start_api(self) -> None:
        """Start the API; :meth:`wait_ready` waits for it."""
        command = [sys.executable, "-m", "app.cli", "api", "--port", str(self.port)]
        command = [*self._wrap, *command]
        self.api = Process("api", command, self.folder, self._service_environment())

    def start_worker(
        self, environment: Mapping[str, str] | None = None, wrap: Sequence[str] = ()
    ) -> Worker:
        """Start one more worker, with settings of its own or inside another command."""
        self._started += 1
        command = [sys.executable, "-m", self._worker_module, "worker"]
        command += ["--processes", str(self._processes_per_worker)]
        worker = Worker(
            f"worker-{self._started}",
            [*self._wrap, *wrap, *command],
            self.folder,
            self._service_environment() | dict(environment or {}),
        )
        worker.is_plain = not environment and not wrap
        self.workers.append(worker)
        return worker

    def start_up(self) -> None:
        """Start `classifier up` with a Redis of its own, and wait until it is ready."""
        command = [sys.executable, "-m", "app.cli", "up", "--port", str(self.port)]
        command += ["--workers", str(WORKERS)]
        self.up = Process("up", command, self.folder, self._environment)
        self.redis.close()
        self.redis = _connect(self.data_dir / "redis.sock")
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until the API is healthy and every worker has said so."""
        try:
            wait_until(self._is_ready, START_SECONDS)
        except AssertionError:
            raise AssertionError(f"the service does not start:\n{self.describe_logs()}") from None

    def mend(self) -> None:
        """Bring everything back that a scenario has ended, and two plain workers."""
        self.proxy.pass_on()
        if self.up is not None:
            return
        if not self._redis_answers():
            self.start_redis()
        self.redis.config_set("maxmemory", 0)
        if self.api is None or not self.api.is_running():
            self.start_api()
        for worker in self.workers:
            if not worker.is_plain:
                worker.end()
        self.workers = [worker for worker in self.workers if worker.is_running()]
        while len(self.workers) < WORKERS:
            self.start_worker()
        self.wait_ready()

    def describe_logs(self) -> str:
        """The last lines of every process."""
        return "\n".join(f"--- {item.log}\n{item.last_lines()}" for item in self._processes())

    def _is_ready(self) -> bool:
        ended = [process for process in self._processes() if not process.is_running()]
        assert not ended, f"{ended[0].name} has ended"
        try:
            health = httpx2.get(f"{self.url}/health", timeout=5).json()
            names = [worker.find_name(self.redis) for worker in self.workers]
        except (httpx2.TransportError, redis.RedisError):
            return False
        return health["status"] == "healthy" and None not in names

    def _service_environment(self) -> dict[str, str]:
        return self._environment | {"REDIS_URL": self.proxy.url}

    def _processes(self) -> list[Process]:
        single = (self._redis_process, self.api, self.up)
        return [*(process for process in single if process is not None), *self.workers]


def busy_jobs(client: "redis.Redis") -> int:
    """How many jobs wait or are with a worker."""
    pipeline = client.pipeline(transaction=False)
    pipeline.llen(keys.QUEUE)
    pipeline.zcard(keys.LEASES)
    pipeline.zcard(keys.DELAYED)
    return sum(pipeline.execute())


def _connect(socket: Path) -> "redis.Redis":
    return redis.Redis(
        unix_socket_path=str(socket), retry=Retry(NoBackoff(), retries=1), socket_timeout=5
    )
