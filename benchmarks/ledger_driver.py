"""Drives the job ledger as the API and the workers do, without uploads and without a model.

``python -m benchmarks.ledger_driver URL SECONDS submit|work`` is one process of the null engine's
measurement. The one place in the benchmarks that knows how the ledger is called.
"""

import asyncio
import sys
import time
from types import TracebackType
from uuid import uuid4

import redis
import redis.asyncio

from app.core.config import QueueSettings, RedisSettings, Settings
from app.jobs.intake import RedisIntake
from app.jobs.job import Answer, Claim, Outcome, Submission
from app.jobs.ledger import RedisLedger
from app.jobs.redis_guard import RedisGuard

FINISHED = "benchmark:finished"
_ANSWER = Answer("null", "1", "null")
_UPLOAD_BYTES = 108 * 1024
_PREDICTIONS = [{"class_name": f"class {number}", "confidence": 0.123456} for number in range(5)]
_CLIENTS = 16
_MOST_WAITING = 2_000
_PAUSE_SECONDS = 0.002


def create_settings(url: str) -> Settings:
    """The service's defaults, with room for millions of jobs."""
    queue = QueueSettings(max_jobs=100_000_000, max_bytes=1 << 50)
    return Settings(redis=RedisSettings(url=url), queue=queue)


class LedgerDriver:
    """Submits, claims and finishes, in this process."""

    def __init__(self, url: str) -> None:
        self._settings = create_settings(url)
        self._url = url
        self._client = redis.Redis.from_url(url)
        self._ledger = RedisLedger(self._client, self._settings)
        self._loop = asyncio.Runner()
        self._claims: list[Claim] = []

    def __enter__(self) -> "LedgerDriver":
        self._async_client = redis.asyncio.Redis.from_url(self._url)
        self._intake = RedisIntake(self._async_client, self._settings, RedisGuard())
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._loop.run(self._async_client.aclose())
        self._loop.close()
        self._client.close()

    def submit(self, count: int, group: int) -> None:
        """Submit jobs, so many at the same time, which share a script call."""
        self._loop.run(self._submit(count, group))

    async def _submit(self, count: int, group: int) -> None:
        for start in range(0, count, group):
            size = min(group, count - start)
            await asyncio.gather(*(submit_one(self._intake) for _ in range(size)))

    def claim(self, count: int) -> None:
        """Claim so many jobs in batches, each as a worker process of its own."""
        while count > 0:
            claims = self._ledger.claim(f"benchmark/{uuid4()}", _ANSWER).claims
            self._claims += claims
            count -= len(claims)

    def finish(self) -> None:
        """Complete everything that was claimed, in batches."""
        batch = self._settings.queue.batch_size
        for start in range(0, len(self._claims), batch):
            self._ledger.finish(
                Outcome.completed(claim, _PREDICTIONS)
                for claim in self._claims[start : start + batch]
            )
        self._claims.clear()


async def submit_one(intake: RedisIntake) -> int:
    """Submit a job; how many wait now."""
    accepted, backlog = await intake.submit(Submission(str(uuid4()), "anonymous", _UPLOAD_BYTES))
    assert accepted
    return backlog.jobs


async def keep_submitting(url: str, seconds: float) -> None:
    """As an API process with 16 clients, while not too much waits."""
    client = redis.asyncio.Redis.from_url(url)
    intake, end = (
        RedisIntake(client, create_settings(url), RedisGuard()),
        time.monotonic() + seconds,
    )

    async def work() -> None:
        while time.monotonic() < end:
            if await submit_one(intake) > _MOST_WAITING:
                await asyncio.sleep(_PAUSE_SECONDS)

    await asyncio.gather(*(work() for _ in range(_CLIENTS)))
    await client.aclose()


def keep_working(url: str, seconds: float) -> None:
    """As a worker process whose engine takes no time."""
    client, end = redis.Redis.from_url(url), time.monotonic() + seconds
    ledger, holder, done = RedisLedger(client, create_settings(url)), f"null/{uuid4()}", 0
    while time.monotonic() < end:
        claims = ledger.claim(holder, _ANSWER).claims
        if claims:
            done += len(ledger.finish(Outcome.completed(claim, _PREDICTIONS) for claim in claims))
        else:
            time.sleep(_PAUSE_SECONDS)
    client.incrby(FINISHED, done)


def main() -> None:
    """One process, in one of the two roles."""
    url, seconds, role = sys.argv[1], float(sys.argv[2]), sys.argv[3]
    if role == "submit":
        asyncio.run(keep_submitting(url, seconds))
    else:
        keep_working(url, seconds)
    print("done", flush=True)


if __name__ == "__main__":
    main()
