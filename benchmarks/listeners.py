"""Live progress: thousands of listeners on one API process, and how soon one hears of the end."""

import json
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import psutil
import redis

from app.core import keys
from app.jobs.job import Answer, Claim, Outcome, Stage
from app.jobs.ledger import RedisLedger
from benchmarks.event_crowd import EventCrowd, allow_files
from benchmarks.ledger_driver import create_settings
from benchmarks.participants import Session
from benchmarks.processes import Server, ServerError, cpu_seconds
from benchmarks.results import Row
from benchmarks.scale import run_redis
from benchmarks.service import START_SECONDS, ask
from benchmarks.uploads import UploadForm
from benchmarks.workspace import clean_environment, find_port

LISTENERS = 5_000
_ENDS = 100
"""Jobs whose end one client waits for, each way."""
_WARM_UP = 200
_FORM = UploadForm("/classify", "file", {"Cache-Control": "no-store"})
_ANSWER = Answer("null", "1", "null")
_PREDICTIONS = [{"class_name": f"class {number}", "confidence": 0.123456} for number in range(5)]
_STEPS = {10: Stage.LOADING, 20: Stage.DECODING, 50: Stage.CLASSIFYING}
_PAUSE_SECONDS = 0.0005


@dataclass(frozen=True)
class _Bench:
    """An API process and this one as its worker."""

    port: int
    image: bytes
    client: "redis.Redis"
    ledger: RedisLedger
    api: psutil.Process

    def submit(self) -> str:
        """The id of a new job."""
        return str(json.loads(ask(self.port, _FORM, self.image)[2])["job_id"])

    def claim(self) -> Claim:
        """Claim the one job that waits."""
        (claim,) = self.ledger.claim("benchmark/1", _ANSWER).claims
        return claim

    def complete(self, claim: Claim) -> None:
        """Complete a job."""
        self.ledger.finish([Outcome.completed(claim, _PREDICTIONS)])

    def memory_bytes(self) -> int:
        """What the API process has for itself."""
        return int(self.api.memory_full_info().uss)


def measure_listeners(session: Session) -> Row:
    """All listeners on one job; then one client after another, by stream and by waiting."""
    allow_files(LISTENERS)
    with _run_bench(session) as bench:
        row = _measure_crowd(bench)
        for name, open_client in (("stream", _open_stream), ("wait", _open_wait)):
            times = [_time_end(bench, open_client) for _ in range(_ENDS)]
            row[f"{name}_end_ms"] = statistics.median(times) * 1000
    return row


@contextmanager
def _run_bench(session: Session) -> Iterator[_Bench]:
    port, folder = find_port(), session.folder / f"listeners-{time.monotonic_ns()}"
    options = ("--appendonly", "yes", "--appendfsync", "no")
    with run_redis(folder / "redis", *options) as (url, _):
        variables = {"REDIS_URL": url, "DATA_DIR": str(folder / "data"), "LISTEN_PORT": str(port)}
        command = [sys.executable, "-P", "-m", "app.cli", "api"]
        image = session.images[0].read_bytes()
        with (
            Server("api", command, clean_environment(**variables), folder) as api,
            redis.Redis.from_url(url) as client,
        ):
            ledger = RedisLedger(client, create_settings(url))
            api.wait_for(lambda: _accepts(port), START_SECONDS)
            yield _Bench(port, image, client, ledger, psutil.Process(api.process.pid))


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
        return True
    except OSError:
        return False


def _measure_crowd(bench: _Bench) -> Row:
    with EventCrowd(bench.port, bench.submit()) as crowd:
        # What the first streams load stays; the others cost what each costs.
        crowd.grow(_WARM_UP)
        before, started = bench.memory_bytes(), time.perf_counter()
        crowd.grow(LISTENERS - _WARM_UP)
        opened, after = time.perf_counter() - started, bench.memory_bytes()
        claim = bench.claim()
        delays, cpu_before = [], cpu_seconds([bench.api])
        for progress, stage in _STEPS.items():
            report = partial(bench.ledger.report_progress, [claim], progress, stage)
            delays += crowd.time_change(report, progress)
        delays += crowd.time_change(partial(bench.complete, claim), 100)
        spent = cpu_seconds([bench.api]) - cpu_before
    delays.sort()
    return {
        "listeners": LISTENERS,
        "events": len(delays),
        "opened_per_second": (LISTENERS - _WARM_UP) / opened,
        "kilobytes": (after - before) / 1024 / (LISTENERS - _WARM_UP),
        "cpu_us": spent * 1e6 / len(delays),
        "p50_ms": delays[len(delays) // 2] * 1000,
        "p99_ms": delays[int(len(delays) * 0.99)] * 1000,
        "max_ms": delays[-1] * 1000,
    }


def _open_stream(port: int, job_id: str) -> tuple[socket.socket, bytes]:
    return _open(port, f"/status/{job_id}/events", ""), b'"status":"completed"'


def _open_wait(port: int, job_id: str) -> tuple[socket.socket, bytes]:
    return _open(port, f"/result/{job_id}", "Prefer: wait=30\r\n"), b'"predictions"'


def _open(port: int, path: str, header: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n".encode())
    return connection


def _time_end(
    bench: _Bench, open_client: Callable[[int, str], tuple[socket.socket, bytes]]
) -> float:
    """Seconds from before a job is completed until one client knows."""
    job_id = bench.submit()
    claim = bench.claim()
    connection, mark = open_client(bench.port, job_id)
    with connection:
        while not bench.client.hexists(keys.job(job_id), "watchers"):
            time.sleep(_PAUSE_SECONDS)
        started = time.perf_counter()
        bench.complete(claim)
        text = b""
        while mark not in text:
            data = connection.recv(65_536)
            if not data:
                raise ServerError(f"the answer ended before the end was told: {text[-200:]!r}")
            text += data
        return time.perf_counter() - started
