"""The ledger: the one truth about every job, kept in Redis by the Lua scripts beside this file.

:class:`RedisIntake` is the API's half (asynchronous: submit, look up), :class:`RedisLedger` the
worker's (blocking: claim, finish, renew, recover). Every method is one round trip, atomic, and
safe to repeat.
"""

import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol, cast

import redis
import redis.asyncio

from app.core import keys
from app.core.config import QueueSettings, ResultSettings
from app.core.errors import AttemptsExhaustedError
from app.jobs.doorbell import BELL_ID, render_message
from app.jobs.grouped_calls import GroupedCall
from app.jobs.job import Answer, Claim, Job, Outcome, Stage

_SCRIPTS = Path(__file__).parent / "scripts"
_KEY_NAMES = (
    "JOB",
    "HOLDER",
    "QUEUE",
    "LEASES",
    "HISTORY",
    "EVENTS",
    "SWEEPER",
    "DOORBELLS",
    "BELLS_RUNG",
)

_EXHAUSTED = json.dumps(
    {"code": AttemptsExhaustedError.code, "detail": AttemptsExhaustedError.detail}
)


@cache
def script_text(name: str) -> str:
    """A script as Redis gets it: the keys' names, the doorbell, the prelude, the script."""
    constants = {key: getattr(keys, key) for key in _KEY_NAMES}
    constants |= {"BELL": render_message(), "BELL_ID": BELL_ID.replace("-", "%-")}
    names = "".join(f"local {key} = [[{value}]]\n" for key, value in constants.items())
    prelude = (_SCRIPTS / "prelude.lua").read_text()
    return names + prelude + (_SCRIPTS / f"{name}.lua").read_text()


# Enough for every request that an API process has under way, short enough for Redis, which runs
# nothing else meanwhile: a submit costs it some 20 µs.
_LARGEST_GROUP = 128


class RedisIntake:
    """The API's half of the ledger. Calls that meet share a round trip."""

    def __init__(self, client: "redis.asyncio.Redis", queue: QueueSettings) -> None:
        self._redis = client
        self._queue = queue
        self._script = client.register_script(script_text("submit"))
        self._submit = GroupedCall(self._submit_group, _LARGEST_GROUP)
        self._find = GroupedCall(self._find_group, _LARGEST_GROUP)

    async def submit(self, job_id: str, owner: str) -> None:
        """Accept a job whose payload is stored. Idempotent by id."""
        await self._submit((job_id, owner))

    async def find(self, job_id: str) -> Job | None:
        """A job's record, or ``None`` if the id was never given out or has expired."""
        return await self._find(job_id)

    async def _submit_group(self, jobs: list[tuple[str, str]]) -> list[None]:
        words = [word for job in jobs for word in job]
        await self._script(args=[self._queue.batch_size, self._queue.history_length, *words])
        return [None] * len(jobs)

    async def _find_group(self, job_ids: list[str]) -> list[Job | None]:
        pipeline = self._redis.pipeline(transaction=False)
        for job_id in job_ids:
            pipeline.hgetall(keys.job(job_id))
        records = await pipeline.execute()
        return [
            Job.from_record(job_id, record) if record else None
            for job_id, record in zip(job_ids, records, strict=True)
        ]


class _Script(Protocol):
    def __call__(self, *, args: Sequence[Any]) -> Any: ...


class RedisLedger:
    """The worker's half of the ledger."""

    def __init__(self, client: "redis.Redis", queue: QueueSettings, result: ResultSettings) -> None:
        self._queue = queue
        self._lease_ms = int(queue.lease_seconds * 1000)
        # What every script that may fail a job needs to do so.
        self._giving_up = [
            queue.batch_size,
            queue.max_attempts,
            _EXHAUSTED,
            result.ttl,
            queue.history_length,
        ]
        self._result_ttl = result.ttl
        self._claim = self._register(client, "claim")
        self._progress = self._register(client, "progress")
        self._finish = self._register(client, "finish")
        self._release = self._register(client, "release")
        self._renew = self._register(client, "renew")
        self._sweep = self._register(client, "sweep")

    @staticmethod
    def _register(client: "redis.Redis", name: str) -> _Script:
        return cast(_Script, client.register_script(script_text(name)))

    def claim(self, holder: str, answer: Answer) -> list[Claim]:
        """Claim up to a batch of jobs for a worker process that got a doorbell.

        What ``holder`` still holds is given again first, so a lost answer loses no job.
        """
        reply = self._claim(
            args=[
                holder,
                self._queue.batch_size,
                self._lease_ms,
                self._queue.history_length,
                answer.model,
                answer.version,
                answer.engine,
            ]
        )
        pairs = zip(reply[::2], reply[1::2], strict=True)
        return [Claim(job_id.decode(), int(attempt)) for job_id, attempt in pairs]

    def report_progress(self, claims: Iterable[Claim], progress: int, stage: Stage) -> None:
        """Say that claimed jobs are ``progress`` percent done and in ``stage``."""
        pairs = [word for claim in claims for word in (claim.job_id, claim.attempt)]
        if pairs:
            self._progress(args=[progress, stage, *pairs])

    def finish(self, outcomes: Iterable[Outcome]) -> set[str]:
        """End claimed jobs. Returns the ids that have ended under these claims.

        Not among them are jobs that somebody else has claimed since.
        """
        words = [
            word
            for outcome in outcomes
            for word in (
                outcome.claim.job_id,
                outcome.claim.attempt,
                outcome.state,
                outcome.body,
            )
        ]
        ended = self._finish(args=[self._result_ttl, self._queue.history_length, *words])
        return {job_id.decode() for job_id in ended}

    def renew(self, holders: Iterable[str]) -> None:
        """Prolong every lease of these worker processes, all of them alive and at work."""
        names = list(holders)
        if names:
            self._renew(args=[self._lease_ms, *names])

    def release(self, holder: str) -> list[str]:
        """Take back what a dead worker process held.

        Returns the ids of jobs that failed because their attempts are used up.
        """
        return [job_id.decode() for job_id in self._release(args=[holder, *self._giving_up])]

    def sweep(self) -> tuple[int, list[str]]:
        """Recover expired leases and lost doorbells, unless another worker did just now.

        Returns (leases that had run out, ids of jobs that failed).
        """
        # A lock that ends before the next round keeps one sweeper and never outlives a dead one.
        lock_ms = max(int(self._queue.sweep_seconds * 900), 1)
        reply = self._sweep(args=[lock_ms, *self._giving_up])
        if reply is None:
            return 0, []
        return int(reply[0]), [job_id.decode() for job_id in reply[1:]]
