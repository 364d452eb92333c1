"""A load of a constant rate: uploads leave when they are due, whether or not others were answered.

Times are counted from when an upload was due, so a server that stalls pays for all that it kept
waiting (no coordinated omission).
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.connection import Connection
from benchmarks.processes import ServerError

# Uploads under way at once: far more than a server below its capacity ever has.
_CONNECTIONS = 64


@dataclass(frozen=True)
class Latencies:
    """Milliseconds from when an upload was due until its answer was there."""

    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float


async def run_constant_rate(
    port: int, requests: Sequence[bytes], rate: float, seconds: float
) -> Latencies:
    """Send ``rate`` uploads a second. Raises :class:`ServerError` for an answer other than 200."""
    numbers, times = iter(range(int(rate * seconds))), list[float]()
    start = time.perf_counter() + 0.1

    async def work() -> None:
        connection = await Connection.open(port)
        for number in numbers:
            due = start + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            status, _, body = await connection.ask(requests[number % len(requests)])
            if status != 200:
                raise ServerError(f"an upload was answered {status}: {body[:200]!r}")
            times.append(time.perf_counter() - due)
        connection.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(_CONNECTIONS):
            group.create_task(work())
    return _summarise(times)


def _summarise(times: list[float]) -> Latencies:
    times.sort()
    return Latencies(
        count=len(times),
        p50_ms=times[len(times) // 2] * 1000,
        p99_ms=times[int(len(times) * 0.99)] * 1000,
        max_ms=times[-1] * 1000,
    )
