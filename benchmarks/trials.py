"""Variants of our own service side by side: what each switch brings.

``classifier up`` offers no such switches, so here Redis, API and worker are started one by one,
like ``classifier up`` does it, but for the one thing that a variant changes.
"""

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import redis

from app.embedded.machine_memory import choose_redis_memory
from app.embedded.redis_server import PrivateRedis
from benchmarks.bystanders import Bystanders
from benchmarks.load import run_load
from benchmarks.models import BenchmarkModel
from benchmarks.participants import WARM_UP_SECONDS, Session
from benchmarks.processes import Server, ServerError, cpu_seconds
from benchmarks.results import Row
from benchmarks.service import START_SECONDS, ask_for_answer
from benchmarks.uploads import SERVICE_FORM
from benchmarks.workspace import ENVIRONMENTS, clean_environment, find_port

GRANIAN = "granian==2.8.7"
_MEMORY_DISK = Path("/dev/shm")
_UVICORN = ("--no-access-log", "--no-proxy-headers", "--no-server-header", "--log-level", "warning")
_FAST = ("--loop", "uvloop", "--http", "httptools")


@dataclass(frozen=True)
class Variant:
    """One way to run the service. ``what``: the switch; ``name``: its position.

    ``note`` is for whoever reads the table.
    """

    what: str
    name: str
    note: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    redis_options: Mapping[str, str] = field(default_factory=dict)
    tcp: bool = False
    memory_disk: bool = False
    server: tuple[str, ...] = ("uvicorn", "app.main:app", *_UVICORN, *_FAST)


def _uvicorn(*options: str) -> tuple[str, ...]:
    return ("uvicorn", "app.main:app", *_UVICORN, *options)


_GRANIAN = ("granian", "--interface", "asgi", "--no-ws", "--log-level", "warning", "app.main:app")
_NO_FILE = {"--appendonly": "no"}
_SYNC = {"--appendfsync": "always"}

VARIANTS = (
    Variant("baseline", "as `classifier up`"),
    Variant("Redis", "TCP", "instead of a Unix socket", tcp=True),
    Variant("payloads", "Redis", "instead of files", variables={"PAYLOAD_STORE": "redis"}),
    Variant("payloads", "files in memory", "a tmpfs instead of a disk", memory_disk=True),
    *(
        Variant("batch", str(size), "default 8", variables={"QUEUE_BATCH_SIZE": str(size)})
        for size in (1, 4, 16)
    ),
    Variant("append-only file", "off", "accepted jobs die with Redis", redis_options=_NO_FILE),
    Variant(
        "append-only file",
        "synced each time",
        "DURABILITY=always",
        variables={"DURABILITY": "always"},
        redis_options=_SYNC,
    ),
    Variant("API", "two processes", "instead of one", server=_uvicorn(*_FAST, "--workers", "2")),
    Variant("API", "granian", f"{GRANIAN} instead of uvicorn", server=_GRANIAN),
    Variant("API", "without uvloop", "asyncio", server=_uvicorn("--loop", "asyncio", *_FAST[2:])),
    Variant("API", "without httptools", "h11", server=_uvicorn(*_FAST[:2], "--http", "h11")),
)


@dataclass(frozen=True)
class TrialParticipant:
    """A variant in the rounds."""

    variant: Variant
    model: BenchmarkModel

    @property
    def name(self) -> str:
        """Switch and position."""
        return f"{self.variant.what}: {self.variant.name}"

    def measure(self, session: Session) -> Row:
        """Start the parts, warm up, measure, stop."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=session.folder)))
            port, servers = self._start(folder, stack)
            image = session.images[0].read_bytes()
            servers[-1].wait_for(lambda: _is_answered(port, image), START_SECONDS)
            files = SERVICE_FORM.write_requests(list(session.images), folder / "requests")
            run_load(port, files, WARM_UP_SECONDS)
            before, bystanders = [cpu_seconds(server.tree()) for server in servers], Bystanders()
            result = run_load(port, files, session.seconds)
            after = [cpu_seconds(server.tree()) for server in servers]
            spent = sum(after) - sum(before)
            row = result.to_row()
            row["others_cores"] = bystanders.cores(spent + result.load_cpu_seconds)
            for server, earlier, later in zip(servers, before, after, strict=True):
                row[f"{server.name}_cpu_ms"] = (later - earlier) * 1000 / result.requests
        return row

    def _start(self, folder: Path, stack: ExitStack) -> tuple[int, list[Server]]:
        """Redis, API, worker; the port that the API will answer on."""
        variant, port, data_dir = self.variant, find_port(), folder / "data"
        data_dir.mkdir(parents=True)
        if variant.memory_disk:
            memory = stack.enter_context(tempfile.TemporaryDirectory(dir=_MEMORY_DISK))
            (data_dir / "payloads").symlink_to(memory)
        url, arguments = _redis_command(variant, data_dir, stack)
        environment = clean_environment(
            ENGINE=self.model.engine,
            RESULT_CACHE_ENTRIES="0",
            REDIS_URL=url,
            DATA_DIR=str(data_dir),
            WORKER_PROCESSES="2",
            **variant.variables,
        )
        packages = f"{environment['PYTHONPATH']}:{ENVIRONMENTS / 'granian'}"
        redis_server = stack.enter_context(Server("redis", arguments, environment, folder))
        redis_server.wait_for(lambda: _answers(url), START_SECONDS)
        command = [sys.executable, "-m", *variant.server, "--port", str(port)]
        command += ["--host", "127.0.0.1"]
        api = Server("api", command, environment | {"PYTHONPATH": packages}, folder)
        stack.enter_context(api)
        worker = [sys.executable, "-P", "-m", "app.cli", "worker"]
        return port, [
            redis_server,
            api,
            stack.enter_context(Server("worker", worker, environment, folder)),
        ]


def _redis_command(variant: Variant, data_dir: Path, stack: ExitStack) -> tuple[str, list[str]]:
    """URL and command line of the variant's Redis: the one of `classifier up` but for options."""
    private = PrivateRedis(data_dir, "everysec", choose_redis_memory())
    stack.callback(private.close)
    url, command = private.url, private.arguments()
    for option, value in variant.redis_options.items():
        command[command.index(option) + 1] = value
    if variant.tcp:
        port = find_port()
        command[command.index("--port") + 1] = str(port)
        url = f"redis://127.0.0.1:{port}"
    return url, command


def _answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def _is_answered(port: int, image: bytes) -> bool:
    try:
        ask_for_answer(port, SERVICE_FORM, image)
    except (OSError, ServerError):
        return False
    return True


def install_granian() -> None:
    """Put it into a folder of its own, beside the service's packages."""
    target = ENVIRONMENTS / "granian"
    if not target.exists():
        pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*pip, "--target", str(target), GRANIAN], check=True)


def trial_participants(model: BenchmarkModel) -> Sequence[TrialParticipant]:
    """Every variant that can run here."""
    possible = (variant for variant in VARIANTS if not variant.memory_disk or _MEMORY_DISK.is_dir())
    return [TrialParticipant(variant, model) for variant in possible]
