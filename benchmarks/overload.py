"""What happens at ten times the load that the workers can do.

``python -m benchmarks.overload`` starts `classifier up` with a short queue, measures what it does,
then sends ten times as much for a minute, and waits until everything that was accepted has ended.
Prints a table in Markdown: what became of the uploads, whether ``Retry-After`` was right, how long
``GET /status`` took meanwhile, and how much memory API and Redis used.
"""

import argparse
import asyncio
import bisect
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import redis.asyncio

from app.core import keys
from benchmarks.connection import Connection
from benchmarks.service import Groups, run_service
from benchmarks.uploads import UploadForm

FACTOR = 10
CONNECTIONS = 64
QUEUE_JOBS = 500
CALIBRATION_JOBS = 1000
STATUS_PAUSE_SECONDS = 0.02
MEMORY_PAUSE_SECONDS = 0.5
DRAIN_SECONDS = 120


@dataclass
class Log:
    """What was seen. Times are seconds of the monotonic clock."""

    accepted: list[str] = field(default_factory=list)
    refused: list[tuple[float, int]] = field(default_factory=list)  # when, its Retry-After
    answers: Counter[int] = field(default_factory=Counter)
    ended: list[float] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)
    status_seconds: list[float] = field(default_factory=list)
    memory_bytes: dict[str, list[int]] = field(default_factory=dict)


async def post(client: Connection, upload: bytes, log: Log) -> str | None:
    """Send one image; notes what came of it and gives the id of an accepted one."""
    status, head, body = await client.ask(upload)
    log.answers[status] += 1
    if status == 202:
        job_id: str = json.loads(body)["job_id"]
        log.accepted.append(job_id)
        return job_id
    log.refused.append((time.monotonic(), int(head.split(b"retry-after: ")[1].split(b"\r\n")[0])))
    return None


@asynccontextmanager
async def watch_ends(redis_url: str, log: Log) -> AsyncIterator[None]:
    """Notes each job's end, from the ledger's history."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:

        async def listen() -> None:
            # Any: redis-py's types allow each answer to be nearly everything.
            last: Any = "$"
            while True:
                answer: Any = await client.xread({keys.HISTORY: last}, block=1000)
                for _, entries in answer:
                    for last, entry in entries:
                        state = entry[b"state"].decode()
                        if b"job" in entry and state in ("completed", "failed"):
                            log.ended.append(time.monotonic())
                            log.states[state] += 1

        listener = asyncio.create_task(listen())
        yield
        listener.cancel()


async def measure_capacity(port: int, upload: bytes, log: Log) -> float:
    """Jobs per second when there is always enough to do, and never too much."""
    waiting = iter(range(CALIBRATION_JOBS))
    started, before = time.monotonic(), len(log.ended)

    async def work() -> None:
        client = await Connection.open(port)
        for _ in waiting:
            while len(log.accepted) - len(log.ended) > QUEUE_JOBS // 2:
                await asyncio.sleep(0.005)
            await post(client, upload, log)

    await asyncio.gather(*(work() for _ in range(8)))
    while len(log.ended) - before < CALIBRATION_JOBS:
        await asyncio.sleep(0.005)
    return CALIBRATION_JOBS / (time.monotonic() - started)


async def overload(port: int, upload: bytes, rate: float, seconds: float, log: Log) -> int:
    """Send ``rate`` images a second for ``seconds``, come what may; returns how many that were."""
    start = time.monotonic()
    count = int(rate * seconds)
    numbers = iter(range(count))
    sent = 0

    async def work() -> None:
        nonlocal sent
        client = await Connection.open(port)
        for number in numbers:
            due = start + number / rate
            if due - start > seconds or time.monotonic() - start > seconds:
                return
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await post(client, upload, log)
            sent += 1

    await asyncio.gather(*(work() for _ in range(CONNECTIONS)))
    return sent


async def follow_jobs(port: int, log: Log) -> None:
    """Ask for the status of jobs all the time, and note how long it takes."""
    client = await Connection.open(port)
    while True:
        await asyncio.sleep(STATUS_PAUSE_SECONDS)
        if log.accepted:
            request = (
                f"GET /status/{random.choice(log.accepted)} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            )
            started = time.monotonic()
            status, _, _ = await client.ask(request.encode())
            assert status == 200
            log.status_seconds.append(time.monotonic() - started)


async def watch_memory(groups: Groups, log: Log) -> None:
    """Note what API and Redis use."""
    while True:
        for name in ("API", "Redis"):
            used = sum(process.memory_info().rss for process in groups[name])
            log.memory_bytes.setdefault(name, []).append(used)
        await asyncio.sleep(MEMORY_PAUSE_SECONDS)


def judge_retry_after(log: Log) -> list[float]:
    """For each refusal: what Retry-After said, by the time in which that many jobs really ended."""
    ratios = []
    for moment, seconds in log.refused:
        first = bisect.bisect(log.ended, moment)
        if first + QUEUE_JOBS <= len(log.ended):
            ratios.append(seconds / (log.ended[first + QUEUE_JOBS - 1] - moment))
    return ratios


async def run(port: int, redis_url: str, image: bytes, seconds: float, groups: Groups) -> list[str]:
    """The whole course; gives the table's rows."""
    upload = UploadForm("/classify", "file").render(image)
    calm, log = Log(), Log()
    async with watch_ends(redis_url, calm):
        capacity = await measure_capacity(port, upload, calm)
    watcher = asyncio.create_task(watch_memory(groups, log))
    async with watch_ends(redis_url, log):
        follower = asyncio.create_task(follow_jobs(port, log))
        sent = await overload(port, upload, capacity * FACTOR, seconds, log)
        follower.cancel()
        deadline = time.monotonic() + DRAIN_SECONDS
        while len(log.ended) < len(log.accepted) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
    await asyncio.sleep(5)
    watcher.cancel()
    ratios = judge_retry_after(log)
    right = sum(0.5 <= ratio <= 2 for ratio in ratios) / len(ratios)
    times = sorted(log.status_seconds)
    async with httpx2.AsyncClient() as client:
        health = (await client.get(f"http://127.0.0.1:{port}/health")).json()
    rows = [
        f"| workers' capacity | {capacity:.0f} jobs/s |",
        f"| uploads sent | {sent} in {seconds:.0f} s, {sent / seconds / capacity:.1f} times that |",
        f"| answers | {dict(log.answers)} |",
        f"| accepted, and how they ended | {len(log.accepted)}: {dict(log.states)} |",
        f"| `Retry-After` by the time it really took | median {statistics.median(ratios):.2f}, "
        f"{min(ratios):.2f} to {max(ratios):.2f}; {right:.1%} within a factor of two |",
        f"| `GET /status` | median {statistics.median(times) * 1000:.1f} ms, "
        f"p99 {times[int(len(times) * 0.99)] * 1000:.1f} ms, most {times[-1] * 1000:.1f} ms |",
        f"| afterwards | {health['queue_length']} jobs wait, status {health['status']} |",
    ]
    for name, values in log.memory_bytes.items():
        before, most, after = (value / 1e6 for value in (values[0], max(values), values[-1]))
        rows.append(
            f"| memory of {name}, MB | {before:.0f} before, {most:.0f} at most, {after:.0f} after |"
        )
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    image = (Path(__file__).parent.parent / "app" / "samples" / "cat.jpg").read_bytes()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Results are short-lived here, so that memory can be seen to return to what it was.
        limits = {"QUEUE_MAX_JOBS": str(QUEUE_JOBS), "RESULT_TTL": "5"}
        with run_service(folder, QUEUE_HISTORY_LENGTH="1000", **limits) as service:
            redis_url = f"unix://{service.data_dir}/redis.sock"
            rows = asyncio.run(run(service.port, redis_url, image, options.seconds, service.groups))
    print("| overload | |\n|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
