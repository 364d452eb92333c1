"""What is measured on one service alone: latency, cache hits, idling, starting, accepting."""

import asyncio
import os
import shutil
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict

from app.embedded.machine_memory import choose_redis_memory
from app.embedded.redis_server import PrivateRedis
from benchmarks.bare_loop import SINGLE, run_bare_loops
from benchmarks.bystanders import Bystanders
from benchmarks.load import run_load
from benchmarks.models import BenchmarkModel
from benchmarks.open_loop import run_constant_rate
from benchmarks.participants import WARM_UP_SECONDS, Session
from benchmarks.processes import Server, ServerError, cpu_seconds
from benchmarks.results import Row
from benchmarks.service import START_SECONDS, ask, run_service
from benchmarks.uploads import SERVICE_FORM, UploadForm
from benchmarks.workspace import clean_environment, find_port

_CACHED_FORM = UploadForm("/classify", "file", {"Prefer": "wait=30"})
_ACCEPT_FORM = UploadForm("/classify", "file", {"Cache-Control": "no-store"})
_HALF = 0.5
_IDLE_SECONDS = 30.0
_SETTLE_SECONDS = 3.0
_SAMPLE = "→"
"""In the line of `classifier up` that gives the sample's answer."""


def measure_latency(session: Session, model: BenchmarkModel) -> Row:
    """At half of what the service was just measured to do; one image alone in a bare loop."""
    alone = run_bare_loops(SINGLE, model, session.images, session.seconds, loops=1)
    requests = [SERVICE_FORM.render(image.read_bytes()) for image in session.images]
    files = SERVICE_FORM.write_requests(list(session.images), session.folder / "requests")
    variables = {"ENGINE": model.engine, "RESULT_CACHE_ENTRIES": "0"}
    with run_service(session.folder / "latency", **variables) as service:
        run_load(service.port, files, WARM_UP_SECONDS)
        capacity = run_load(service.port, files, session.seconds).rate
        rate = capacity * _HALF
        latencies = asyncio.run(run_constant_rate(service.port, requests, rate, session.seconds))
    return {"capacity": capacity, "rate": rate, "alone_ms": alone["wall_ms"], **asdict(latencies)}


def measure_cache_hits(session: Session, model: BenchmarkModel) -> Row:
    """The same images again and again, one connection: every answer comes from the result cache."""
    with run_service(session.folder / "cache", ENGINE=model.engine) as service:
        for image in session.images:
            ask(service.port, _CACHED_FORM, image.read_bytes())
        _, headers, _ = ask(service.port, _CACHED_FORM, session.images[0].read_bytes())
        if "hit" not in headers.get("cache-status", ""):
            raise ServerError("a repeated image was not answered from the result cache")
        files = _CACHED_FORM.write_requests(list(session.images), session.folder / "cached")
        before = service.cpu_seconds()
        result = run_load(service.port, files, session.seconds, connections=1)
        after = service.cpu_seconds()
    spent = sum(after.values()) - sum(before.values())
    return {**result.to_row(), "cpu_ms": spent * 1000 / result.requests}


def measure_idle(session: Session, model: BenchmarkModel) -> Row:
    """CPU time of all processes while nothing is asked, in percent of one core."""
    with run_service(session.folder / "idle", ENGINE=model.engine) as service:
        time.sleep(_SETTLE_SECONDS)
        before, started = service.cpu_seconds(), time.monotonic()
        time.sleep(max(_IDLE_SECONDS, session.seconds))
        seconds, after = time.monotonic() - started, service.cpu_seconds()
    shares = {group: (after[group] - before[group]) * 100 / seconds for group in before}
    return {"seconds": seconds, "percent": sum(shares.values()), "groups": shares}


def measure_start(session: Session, model: BenchmarkModel) -> Row:
    """From the command until the sample's answer; the engine was chosen at an earlier start."""
    port, folder = find_port(), session.folder / f"start-{time.monotonic_ns()}"
    command = [sys.executable, "-P", "-m", "app.cli", "up", "--port", str(port)]
    command += ["--workers", "2", "--data-dir", str(folder / "data")]
    started = time.monotonic()
    with Server("start", command, clean_environment(ENGINE=model.engine), folder) as server:
        server.wait_for(lambda: _SAMPLE in server.read_log(), START_SECONDS)
        return {"seconds": time.monotonic() - started}


def measure_acceptance(session: Session, **variables: str) -> Row:
    """One API process and its Redis, no worker: uploads that are accepted each second.

    ``variables`` go to the API beside those that the measurement itself sets.
    """
    port, folder = find_port(), session.folder / f"accept-{time.monotonic_ns()}"
    data_dir = folder / "data"
    data_dir.mkdir(parents=True)
    redis = PrivateRedis(data_dir, "everysec", choose_redis_memory())
    variables |= {"QUEUE_MAX_JOBS": "100000000", "QUEUE_MAX_BYTES": str(1 << 50)}
    variables |= {"REDIS_URL": redis.url, "DATA_DIR": str(data_dir)}
    variables |= {"RESULT_CACHE_ENTRIES": "0", "LISTEN_PORT": str(port)}
    environment = clean_environment(**variables)
    with ExitStack() as stack:
        stack.callback(redis.close)
        server = stack.enter_context(Server("redis", redis.arguments(), environment, folder))
        asyncio.run(redis.wait_ready())
        command = [sys.executable, "-P", "-m", "app.cli", "api"]
        api = stack.enter_context(Server("api", command, environment, folder))
        image = session.images[0].read_bytes()
        api.wait_for(lambda: _is_accepted(port, image), START_SECONDS)
        files = _ACCEPT_FORM.write_requests(list(session.images), folder / "requests")
        run_load(port, files, WARM_UP_SECONDS, expected_status=202)
        before, bystanders = (cpu_seconds(api.tree()), cpu_seconds(server.tree())), Bystanders()
        result = run_load(port, files, session.seconds, expected_status=202)
        after = cpu_seconds(api.tree()), cpu_seconds(server.tree())
        spent = sum(after) - sum(before)
        others = bystanders.cores(spent + result.load_cpu_seconds)
    shutil.rmtree(data_dir)  # a gigabyte each round
    row = {**result.to_row(), "upload_bytes": os.path.getsize(session.images[0])}
    row["others_cores"] = others
    row["api_cpu_ms"], row["redis_cpu_ms"] = (
        (later - earlier) * 1000 / result.requests
        for earlier, later in zip(before, after, strict=True)
    )
    return row


def _is_accepted(port: int, image: bytes) -> bool:
    try:
        return ask(port, _ACCEPT_FORM, image)[0] == 202
    except OSError:
        return False
