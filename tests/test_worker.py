"""The worker as Celery's own command starts it, beside the API as uvicorn's own command does."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import psutil
import pytest
import redis

from app.core import keys
from tests.image_files import make_png
from tests.service import clean_environment, find_free_port, wait_until

ROOT = Path(__file__).parent.parent
CAT = (ROOT / "app" / "samples" / "cat.jpg").read_bytes()
BIN = Path(sys.executable).parent


def readme_command(program: str) -> list[str]:
    """A command line as the README gives it, with this environment's program."""
    line = re.search(rf"^{program} .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert line is not None
    _, *arguments = shlex.split(line[0])
    return [str(BIN / program), *arguments]


class Commands:
    """The README's two processes on an empty Redis."""

    def __init__(self, redis_url: str, data_dir: Path, **environment: str) -> None:
        self.redis = redis.Redis.from_url(redis_url)
        self.port = find_free_port()
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)
        self._environment = clean_environment(
            REDIS_URL=redis_url, DATA_DIR=str(data_dir), WORKER_PROCESSES="1", **environment
        )
        self._processes: list[subprocess.Popen[bytes]] = []
        api = readme_command("uvicorn")
        # Loopback only, and where nobody else listens.
        api[api.index("--host") + 1] = "127.0.0.1"
        api[api.index("--port") + 1] = str(self.port)
        self._start(api)
        self.worker = self._start(readme_command("celery"))
        wait_until(self._is_healthy, 120)

    def _start(self, command: list[str]) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(command, cwd=ROOT, env=self._environment)
        self._processes.append(process)
        return process

    def _is_healthy(self) -> bool:
        assert all(process.poll() is None for process in self._processes)
        try:
            return bool(self.client.get("/health").json()["workers_available"])
        except httpx2.TransportError:
            return False

    def submit(self, image: bytes) -> str:
        job_id: str = self.client.post("/classify", files={"file": image}).json()["job_id"]
        return job_id

    def has_ended(self, job_id: str) -> bool:
        return self.client.get(f"/result/{job_id}").status_code != 202

    def history(self, job_id: str) -> list[bytes]:
        entries = self.redis.xrange(keys.HISTORY)
        return [entry[b"state"] for _, entry in entries if entry.get(b"job") == job_id.encode()]

    def stop(self) -> list[int]:
        for process in self._processes:
            process.terminate()
        return [process.wait(30) for process in self._processes]


@pytest.fixture
def running(clean_redis_url: str, tmp_path: Path) -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def start(stack: ExitStack, redis_url: str, folder: Path, **environment: str) -> Commands:
    commands = Commands(redis_url, folder, **environment)
    stack.callback(commands.stop)
    return commands


def test_the_two_commands_of_the_readme_make_a_complete_service(
    running: ExitStack, clean_redis_url: str, tmp_path: Path
) -> None:
    commands = start(running, clean_redis_url, tmp_path)
    job_id = commands.submit(CAT)
    wait_until(lambda: commands.has_ended(job_id))
    result = commands.client.get(f"/result/{job_id}").json()
    assert "cat" in result["predictions"][0]["class_name"]
    commands.worker.terminate()
    assert commands.worker.wait(30) == 0
    assert commands.client.get("/health").json()["workers_available"] == 0


def test_processes_that_are_spawned_for_a_gpu_find_the_engine_that_was_settled(
    running: ExitStack, clean_redis_url: str, tmp_path: Path
) -> None:
    commands = start(running, clean_redis_url, tmp_path, ENGINE="torch-cuda")
    children = psutil.Process(commands.worker.pid).children()
    assert any("spawn_main" in " ".join(child.cmdline()) for child in children)
    job_id = commands.submit(CAT)
    wait_until(lambda: commands.has_ended(job_id))
    result = commands.client.get(f"/result/{job_id}").json()
    assert "cat" in result["predictions"][0]["class_name"]


def test_a_batch_longer_than_its_lease_stays_with_its_worker(
    running: ExitStack, clean_redis_url: str, tmp_path: Path
) -> None:
    """The main process renews the leases of a child that is at work."""
    commands = start(
        running,
        clean_redis_url,
        tmp_path,
        QUEUE_LEASE_SECONDS="1",
        QUEUE_SWEEP_SECONDS="0.1",
        MAX_FILE_SIZE="100000000",
    )
    slow_to_decode = make_png(10_000, 5_000, bytes(50_005_000))
    ids = [commands.submit(slow_to_decode) for _ in range(8)]
    for job_id in ids:
        wait_until(lambda: commands.has_ended(job_id), 60)
    histories = [commands.history(job_id) for job_id in ids]
    assert histories == [[b"pending", b"processing", b"completed"]] * 8


def test_jobs_whose_doorbell_was_lost_are_classified(
    running: ExitStack, clean_redis_url: str, tmp_path: Path
) -> None:
    commands = start(running, clean_redis_url, tmp_path, QUEUE_SWEEP_SECONDS="0.2")
    worker = psutil.Process(commands.worker.pid)
    family = [worker, *worker.children(recursive=True)]
    for process in family:
        process.suspend()
    job_id = commands.submit(CAT)
    commands.redis.delete(keys.DOORBELLS)
    for process in family:
        process.resume()
    wait_until(lambda: commands.has_ended(job_id))
    assert commands.client.get(f"/status/{job_id}").json()["status"] == "completed"


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [("missing.pth", None, "is not a file"), ("broken.onnx", b"not a graph", "broken.onnx")],
)
def test_a_bad_model_stops_the_worker_with_one_line(
    clean_redis_url: str, tmp_path: Path, name: str, content: bytes | None, complaint: str
) -> None:
    model = tmp_path / name
    if content is not None:
        model.write_bytes(content)
        manifest = '{"name": "m", "version": "1", "labels": ["a", "b"], "input_size": 8, '
        model.with_suffix(".json").write_text(manifest + '"mean": [0, 0, 0], "std": [1, 1, 1]}')
    run = subprocess.run(
        readme_command("celery"),
        cwd=ROOT,
        env=clean_environment(
            REDIS_URL=clean_redis_url,
            DATA_DIR=str(tmp_path),
            MODEL_PATH=str(model),
            MODEL_CACHE_DIR=str(tmp_path / "cache"),
        ),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 2
    (line,) = [text for text in run.stderr.splitlines() if text.startswith("classifier: ")]
    assert complaint in line
    assert "Traceback" not in run.stderr
