"""The API's half of the ledger: submit jobs, look them up, see what waits."""

import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

import redis.asyncio

from app.core import keys
from app.core.config import Settings
from app.jobs.job import Backlog, Job, Priority, Reception, Submission
from app.jobs.records import read_jobs
from app.jobs.redis_guard import RedisGuard
from app.jobs.script import Rules, render_script

# Enough for every request that an API process has under way, short enough for Redis, which runs
# nothing else meanwhile: a submit costs it some 20 µs.
_LARGEST_GROUP = 128

# Of the memory that Redis may use; the rest is for the ends of accepted jobs, for what arrives
# between two looks at it, and for what Redis needs beside its data.
_MEMORY_SHARE = 0.9

# What a job's record may grow to at its end: a hundred classes with names like ImageNet's.
RECORD_BYTES = 8192


class RedisIntake:
    """One per API process. Calls that meet share a round trip.

    Raises :class:`redis.RedisError` or :class:`ServiceUnavailableError` while Redis is away.
    """

    def __init__(
        self,
        client: "redis.asyncio.Redis",
        settings: Settings,
        guard: RedisGuard,
        channel: str = "",
    ) -> None:
        """``channel``: the name of the live channel that jobs are watched on."""
        self._redis = client
        self._guard = guard
        self._max_memory = settings.redis.max_memory
        self._channel = channel
        self._script = client.register_script(
            render_script("submit", Rules.from_settings(settings))
        )
        self._relief = client.register_script(
            render_script("relief", Rules.from_settings(settings))
        )
        self._submit = guard.group(self._submit_group, _LARGEST_GROUP)
        self._find = guard.group(self._find_group, _LARGEST_GROUP)
        self._look = guard.group(self._look_group, _LARGEST_GROUP)

    async def submit(self, submission: Submission) -> tuple[Reception, Backlog]:
        """Accept a job whose payload is stored, if there is room. Idempotent by id.

        Returns what became of it, and what waits now.
        """
        return await self._submit(submission)

    async def find(self, job_id: str) -> Job | None:
        """A job's record, or ``None`` if the id was never given out or has expired."""
        return await self._find(job_id)

    async def read_backlog(self) -> Backlog:
        """What waits now, Redis's memory included."""
        return await self._look(None)

    async def read_relief(self) -> float | None:
        """Seconds until a record expires, ``None`` if none will yet."""
        call = partial(cast(Callable[..., Awaitable[int | None]], self._relief), args=[])
        relief_ms = await self._guard.call(call)
        return None if relief_ms is None else relief_ms / 1000

    async def _submit_group(self, jobs: list[Submission]) -> list[tuple[Reception, Backlog]]:
        words: list[str | int] = [self._channel]
        for job in jobs:
            words += (job.job_id, job.owner, job.upload_bytes, job.patience_ms)
            words += (int(job.is_watched), int(job.priority is Priority.BULK))
            words += (job.content, int(job.is_fresh), job.options.to_json())
            words += (job.key_name, job.fingerprint)
        waiting, upload_bytes, rate, relief, *verdicts = await self._guard.call(
            lambda: cast(Awaitable[Any], self._script(args=words))
        )
        backlog = read_reply(waiting, upload_bytes, rate, relief)
        return [(Reception(verdict), backlog) for verdict in verdicts]

    async def _find_group(self, job_ids: list[str]) -> list[Job | None]:
        return await read_jobs(self._redis, self._guard, job_ids)

    async def _look_group(self, askers: list[None]) -> list[Backlog]:
        pipeline = self._redis.pipeline(transaction=False)
        add_backlog(pipeline)
        answers = await self._guard.call(pipeline.execute)
        return [read_backlog(answers, self._max_memory)] * len(askers)


def add_backlog(pipeline: "redis.asyncio.client.Pipeline") -> None:
    """Add to a pipeline the commands whose answers :func:`read_backlog` understands."""
    pipeline.get(keys.BACKLOG_JOBS)
    pipeline.zcard(keys.LEASES)
    pipeline.get(keys.BACKLOG_BYTES)
    pipeline.hget(keys.DRAIN, "rate")
    pipeline.info("memory")


def read_backlog(answers: list[Any], max_memory: int | None) -> Backlog:
    """The backlog in a pipeline's answers; ``max_memory``: bytes that Redis may use, if it may not
    use all that it would."""
    unfinished, claimed, upload_bytes, rate, memory = answers
    limits = [number for number in (memory["maxmemory"], max_memory) if number]
    taken = memory["used_memory"] + int(unfinished or 0) * RECORD_BYTES
    return Backlog(
        jobs=int(unfinished or 0) - claimed,
        upload_bytes=int(upload_bytes or 0),
        drain_rate=_read_rate(rate),
        free_bytes=min(limits, default=math.inf) * _MEMORY_SHARE - taken,
    )


def read_reply(waiting: int, upload_bytes: int, rate: bytes, relief_ms: int | bytes) -> Backlog:
    """The backlog that a script which accepts jobs has replied; the last two may be empty."""
    relief_seconds = relief_ms / 1000 if isinstance(relief_ms, int) else None
    return Backlog(waiting, upload_bytes, _read_rate(rate), relief_seconds=relief_seconds)


def _read_rate(rate: bytes | None) -> float | None:
    return float(rate) if rate else None
