"""What its owner no longer wants: a job is cancelled, or erased with all that belongs to it."""

import asyncio
from enum import IntEnum
from typing import Any
from uuid import uuid4

import redis.asyncio

from app.core import keys
from app.core.config import Settings
from app.core.errors import JobEndedError, JobErasedError, JobNotFoundError
from app.jobs.job import Job
from app.jobs.payloads import PayloadIntake
from app.jobs.redis_guard import RedisGuard
from app.jobs.script import Rules, render_script


class Withdrawal(IntEnum):
    """What became of a wish to cancel or to erase."""

    UNKNOWN = 0
    """No job of this owner has the id."""
    GONE = 1
    """It was erased before."""
    ENDED = 2
    """It had ended before."""
    DONE = 3
    """It is cancelled, or erased."""
    ASKED = 4
    """A worker has it, and will hear of it."""


class Withdrawals:
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
        self._cancel = client.register_script(render_script("cancel", rules))
        self._erase = client.register_script(render_script("erase", rules))

    async def cancel(self, job_id: str, owner: str) -> Job:
        """Cancel a job: at once if it waits, else before its worker's next step.

        Returns its record, cancelled or still processing. Raises :class:`JobNotFoundError`,
        :class:`JobErasedError` and :class:`JobEndedError`.
        """
        verdict, words = await self._run(self._cancel, job_id, owner)
        _check(Withdrawal(verdict), job_id)
        if verdict == Withdrawal.DONE:
            await self._erase_upload(job_id)
        return Job.from_record(job_id, dict(zip(words[::2], words[1::2], strict=True)))

    async def erase(self, job_id: str, owner: str) -> None:
        """Erase a job, its upload and its result, whatever its state.

        Raises :class:`JobNotFoundError` and :class:`JobErasedError`.
        """
        _check(Withdrawal(await self._run(self._erase, job_id, owner)), job_id)
        await self._erase_upload(job_id)

    async def explain_absence(self, job_id: str) -> JobNotFoundError | JobErasedError:
        """Why there is no record of a job."""
        is_erased = await self._guard.call(lambda: self._redis.exists(keys.erased(job_id)))
        return JobErasedError(job_id=job_id) if is_erased else JobNotFoundError()

    async def _run(self, script: Any, job_id: str, owner: str) -> Any:
        # Sent again when the answer is lost, it must not find a stranger's deed in its own.
        words = [job_id, owner, uuid4().hex]
        return await self._guard.call(lambda: script(args=words))

    async def _erase_upload(self, job_id: str) -> None:
        await asyncio.to_thread(self._payloads.delete_many, [job_id])


def _check(verdict: Withdrawal, job_id: str) -> None:
    if verdict is Withdrawal.UNKNOWN:
        raise JobNotFoundError()
    if verdict is Withdrawal.GONE:
        raise JobErasedError(job_id=job_id)
    if verdict is Withdrawal.ENDED:
        raise JobEndedError(job_id=job_id)
