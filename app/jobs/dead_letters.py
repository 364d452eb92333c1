"""Dead letters: jobs that were given up, kept with their uploads until somebody looks at them."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import redis.asyncio

from app.core import keys
from app.core.config import Settings
from app.core.errors import DeadLetterNotFoundError
from app.jobs.job import Job
from app.jobs.payloads import PayloadIntake
from app.jobs.records import read_jobs
from app.jobs.redis_guard import RedisGuard
from app.jobs.script import Rules, render_script

# A script holds Redis up; so many take it some milliseconds.
_LARGEST_GROUP = 500


class DeadLetters:
    """One per API process. Raises what :class:`RedisGuard` raises while Redis is away."""

    def __init__(
        self,
        client: "redis.asyncio.Redis",
        settings: Settings,
        payloads: PayloadIntake,
        guard: RedisGuard,
    ) -> None:
        rules = Rules.from_settings(settings)
        self._redis = client
        self._payloads = payloads
        self._guard = guard
        self._revive = client.register_script(render_script("revive", rules))
        self._purge = client.register_script(render_script("purge", rules))

    async def count(self) -> int:
        """How many there are."""
        return int(await self._guard.call(lambda: self._redis.zcard(keys.DEAD)))

    async def list_newest(self, offset: int, limit: int) -> list[Job]:
        """Dead letters, the latest death first."""
        ids = await self._list_ids(-offset - limit, -offset - 1)
        return await self._read(ids[::-1])

    async def get(self, job_id: str) -> Job:
        """One dead letter. Raises :class:`DeadLetterNotFoundError`."""
        found = await self._read([job_id])
        if not found:
            raise DeadLetterNotFoundError()
        return found[0]

    async def read_upload(self, job_id: str) -> bytes | None:
        """A dead letter's upload, ``None`` if it is gone."""
        return await self._payloads.read(job_id)

    async def list_ids(self) -> list[str]:
        """The ids of all that there are now."""
        return await self._list_ids(0, -1)

    async def retry(self, job_ids: Sequence[str]) -> list[str]:
        """Put dead letters back into the queue under their ids; returns those that were some."""
        return await self._run(self._revive, job_ids)

    async def purge(self, job_ids: Sequence[str]) -> list[str]:
        """Erase dead letters, uploads included; returns the ids of those that were some."""
        purged = await self._run(self._purge, job_ids)
        await asyncio.to_thread(self._payloads.delete_many, purged)
        return purged

    async def _run(self, script: Any, job_ids: Sequence[str]) -> list[str]:
        done: list[bytes] = []
        for start in range(0, len(job_ids), _LARGEST_GROUP):
            group = job_ids[start : start + _LARGEST_GROUP]
            done += await self._guard.call(partial(script, args=group))
        return [job_id.decode() for job_id in done]

    async def _list_ids(self, first: int, last: int) -> list[str]:
        """By rank, the oldest first."""
        command = partial(self._redis.zrange, keys.DEAD, first, last)
        return [job_id.decode() for job_id in cast(list[bytes], await self._guard.call(command))]

    async def _read(self, job_ids: Sequence[str]) -> list[Job]:
        jobs = await read_jobs(self._redis, self._guard, job_ids)
        # One may have been retried or have expired in between.
        return [job for job in jobs if job is not None and job.death_reason]
