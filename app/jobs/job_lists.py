"""Each owner's jobs, the newest first, in pages."""

import base64
import binascii
import re
from dataclasses import dataclass
from functools import partial
from typing import cast

import redis.asyncio

from app.core import keys
from app.core.errors import InvalidRequestError
from app.jobs.job import Job, JobState
from app.jobs.redis_guard import RedisGuard

# What a list shows of a record; the predictions stay where they are.
_FIELDS = ("state", "owner", "progress", "stage", "attempts", "created", "updated")

# Records that are read in one round trip: more than ever came with one script and score, and few
# enough for a Redis that runs nothing else meanwhile. Who looks for a rare state gets a short page
# after so many steps, and goes on from there.
_STEP = 250
_MOST_STEPS = 20

_POSITION = re.compile(r"(\d{1,17})-([0-9A-Za-z-]{1,64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Position:
    """A place in an owner's list: what comes next is older."""

    score: int
    job_id: str

    def render(self) -> str:
        """As a client gets it, who need not know what is in it."""
        text = f"{self.score}-{self.job_id}"
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> "Position":
        """What :meth:`render` gave. Raises :class:`InvalidRequestError`."""
        try:
            padding = "=" * (-len(text) % 4)
            decoded = base64.b64decode(text + padding, altchars=b"-_", validate=True).decode()
        except (binascii.Error, ValueError):
            decoded = ""
        match = _POSITION.fullmatch(decoded)
        if not match:
            raise InvalidRequestError("cursor must be a next_cursor of an earlier answer.")
        return cls(int(match[1]), match[2])

    def is_before(self, score: int, job_id: str) -> bool:
        """Whether such an entry comes after this place; Redis orders equal scores by id."""
        return (score, job_id) < (self.score, self.job_id)


class JobLists:
    """One per API process. Raises what :class:`RedisGuard` raises while Redis is away."""

    def __init__(self, client: "redis.asyncio.Redis", guard: RedisGuard) -> None:
        self._redis = client
        self._guard = guard

    async def read_page(
        self, owner: str, limit: int, state: JobState | None, after: Position | None
    ) -> tuple[list[Job], Position | None]:
        """Up to ``limit`` jobs behind ``after``, and where to go on; ``None`` at the end."""
        found: list[Job] = []
        for _ in range(_MOST_STEPS):
            entries = await self._list(owner, after)
            jobs = await self._read(owner, [job_id for _, job_id in entries])
            for (score, job_id), job in zip(entries, jobs, strict=True):
                after = Position(score, job_id)
                if job is not None and state in (None, job.state):
                    found.append(job)
                if len(found) == limit:
                    is_last = after == Position(*entries[-1]) and not await self._list(owner, after)
                    return found, None if is_last else after
            if not entries:
                return found, None
        return found, after

    async def _list(self, owner: str, after: Position | None) -> list[tuple[int, str]]:
        command = partial(
            self._redis.zrevrangebyscore,
            keys.jobs(owner),
            "+inf" if after is None else after.score,
            "-inf",
            start=0,
            num=_STEP,
            withscores=True,
        )
        answer = cast(list[tuple[bytes, float]], await self._guard.call(command))
        entries = [(int(score), job_id.decode()) for job_id, score in answer]
        return [entry for entry in entries if after is None or after.is_before(*entry)]

    async def _read(self, owner: str, job_ids: list[str]) -> list[Job | None]:
        """Their records without the predictions; those that have expired leave the list."""
        if not job_ids:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        for job_id in job_ids:
            pipeline.hmget(keys.job(job_id), _FIELDS)
        jobs: list[Job | None] = []
        expired: list[str] = []
        for job_id, values in zip(job_ids, await self._guard.call(pipeline.execute), strict=True):
            record = {name: value.decode() for name, value in zip(_FIELDS, values) if value}
            jobs.append(Job.from_fields(job_id, record) if record else None)
            if not record:
                expired.append(job_id)
        if expired:
            await self._guard.call(partial(self._redis.zrem, keys.jobs(owner), *expired))
        return jobs
