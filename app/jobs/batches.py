"""Batches: accepted as a whole, followed, read while they run, cancelled, erased."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast
from uuid import uuid4

import redis.asyncio

from app.core import keys
from app.core.config import Settings
from app.core.errors import (
    BatchEndedError,
    BatchErasedError,
    BatchNotFoundError,
    ResultsFullError,
)
from app.jobs.admission import AdmissionGate
from app.jobs.answer_options import AnswerOptions
from app.jobs.batch import Batch, BatchImage
from app.jobs.intake import read_reply
from app.jobs.job import Job, Reception
from app.jobs.live_batches import LiveBatches
from app.jobs.payloads import PayloadIntake
from app.jobs.records import read_jobs
from app.jobs.redis_guard import RedisGuard
from app.jobs.script import Rules, render_script
from app.jobs.withdrawals import Withdrawal


class Batches:
    """One per API process. Raises what :class:`RedisGuard` raises while Redis is away."""

    def __init__(
        self,
        client: "redis.asyncio.Redis",
        settings: Settings,
        payloads: PayloadIntake,
        guard: RedisGuard,
        gate: AdmissionGate,
        live: LiveBatches,
    ) -> None:
        rules = Rules.from_settings(settings)
        self._redis = client
        self._payloads = payloads
        self._guard = guard
        self._gate = gate
        self.live = live
        self._turn = asyncio.Lock()
        self._submit = client.register_script(render_script("batch", rules))
        self._cancel = client.register_script(render_script("cancel_batch", rules))
        self._erase = client.register_script(render_script("erase_batch", rules))

    @asynccontextmanager
    async def take_turn(self, images: int) -> AsyncIterator[None]:
        """Wait until a batch may be submitted: one at a time, and as long as there is memory.

        A large one takes Redis a tenth of a second: whoever has more to ask comes in between.
        Raises :class:`ResultsFullError`.
        """
        async with self._turn:
            await self._gate.check_batch(images)
            yield

    async def submit(
        self,
        batch_id: str,
        owner: str,
        images: Sequence[BatchImage],
        options: AnswerOptions,
        is_fresh: bool,
        key_name: str = "",
        fingerprint: str = "",
    ) -> None:
        """Accept a batch whose uploads are complete: all of it. When this returns, it is safe.

        ``key_name``, ``fingerprint``: of its idempotency key, and what to bind that to.

        Raises :class:`QueueFullError` or :class:`StorageFullError` when there is no room,
        :class:`IdempotencyKeyInUseError` when another has the key, and nothing is accepted: the
        caller erases the uploads then. Whatever else is raised leaves open whether it was accepted.
        """
        words: list[str | int] = [batch_id, owner, int(is_fresh), options.to_json()]
        words += (key_name, fingerprint)
        for image in images:
            words += (image.job_id, image.upload_bytes, image.content)
            words += (image.file_name, image.custom_id, image.error)
        try:
            waiting, upload_bytes, rate, relief, reception, *ended = await self._run(
                self._submit, words
            )
        except ResultsFullError:
            raise await self._gate.refuse_memory() from None
        self._gate.learn(read_reply(waiting, upload_bytes, rate, relief))
        self._gate.judge(Reception(reception))
        await self._erase_uploads(ended)

    async def get(self, batch_id: str, owner: str) -> Batch:
        """A batch's record. Raises :class:`BatchNotFoundError` and :class:`BatchErasedError`."""
        command = partial(self._redis.hgetall, keys.batch(batch_id))
        record = cast(dict[bytes, bytes], await self._guard.call(command))
        batch = Batch.from_record(batch_id, record) if record else None
        if batch is None or batch.owner != owner:
            raise await self._explain_absence(batch_id, owner)
        return batch

    async def get_accepted(self, batch_id: str, owner: str) -> tuple[Batch, list[str]]:
        """A batch's record, and its jobs' ids in the sender's order. Raises as :meth:`get`."""
        command = partial(self._redis.lrange, keys.batch_jobs(batch_id), 0, -1)
        # First: they are there as long as the record is.
        job_ids = cast(list[bytes], await self._guard.call(command))
        batch = await self.get(batch_id, owner)
        return batch, [job_id.decode() for job_id in job_ids]

    async def look(self, batch_id: str) -> Batch:
        """The record of a batch that is followed. Raises :class:`BatchNotFoundError`."""
        batch = await self.live.look(batch_id)
        if batch is None:
            raise BatchNotFoundError()
        return batch

    async def read_ended(
        self, batch_id: str, start: int, count: int
    ) -> list[tuple[str, Job | None]]:
        """Jobs that have ended, in that order, from the ``start``-th on, at most ``count``.

        Without its record where a job was erased, or purged as a dead letter.
        """
        command = partial(self._redis.lrange, keys.batch_ended(batch_id), start, start + count - 1)
        job_ids = [word.decode() for word in cast(list[bytes], await self._guard.call(command))]
        jobs = await read_jobs(self._redis, self._guard, job_ids)
        return list(zip(job_ids, jobs, strict=True))

    async def cancel(self, batch_id: str, owner: str) -> Batch:
        """Cancel what has not ended: at once what waits, before the next step what a worker has.

        Returns its record. Raises :class:`BatchNotFoundError`, :class:`BatchErasedError` and
        :class:`BatchEndedError`.
        """
        await self._withdraw(self._cancel, batch_id, owner)
        return await self.get(batch_id, owner)

    async def erase(self, batch_id: str, owner: str) -> None:
        """Erase a batch, and all of its jobs with their uploads and results.

        Raises :class:`BatchNotFoundError` and :class:`BatchErasedError`.
        """
        await self._withdraw(self._erase, batch_id, owner)

    async def _withdraw(self, script: Any, batch_id: str, owner: str) -> None:
        # Sent again when the answer is lost, it must not find a stranger's deed in its own.
        verdict, *ended = await self._run(script, [batch_id, owner, uuid4().hex])
        if verdict == Withdrawal.UNKNOWN:
            raise BatchNotFoundError()
        if verdict == Withdrawal.GONE:
            raise BatchErasedError(batch_id=batch_id)
        if verdict == Withdrawal.ENDED:
            raise BatchEndedError(batch_id=batch_id)
        await self._erase_uploads(ended)

    async def _explain_absence(
        self, batch_id: str, owner: str
    ) -> BatchNotFoundError | BatchErasedError:
        mark = await self._guard.call(partial(self._redis.get, keys.erased(batch_id)))
        eraser = cast(bytes | None, mark) or b""
        is_erased = eraser.decode().partition(" ")[2] == owner
        return BatchErasedError(batch_id=batch_id) if is_erased else BatchNotFoundError()

    async def _run(self, script: Any, words: Sequence[str | int]) -> Any:
        return await self._guard.call(lambda: script(args=words))

    async def _erase_uploads(self, job_ids: Sequence[bytes]) -> None:
        if job_ids:
            ids = [job_id.decode() for job_id in job_ids]
            await asyncio.to_thread(self._payloads.delete_many, ids)
