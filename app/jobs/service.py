"""What the API can ask for: submit, follow, fetch, and how the service is."""

import asyncio
import contextlib
import logging
import math
from dataclasses import dataclass, field
from typing import cast
from uuid import UUID

import redis.asyncio
from pydantic import BaseModel, ValidationError
from redis.exceptions import RedisError

from app.core import keys
from app.core.config import Settings
from app.core.errors import (
    ResultsFullError,
    ServiceError,
    ServiceUnavailableError,
    StorageFullError,
)
from app.core.redis_client import find_policy_warning
from app.jobs import webhook_reasons
from app.jobs.admission import AdmissionGate
from app.jobs.answer_options import DEFAULT_OPTIONS, AnswerOptions
from app.jobs.batches import Batches
from app.jobs.dead_letters import DeadLetters
from app.jobs.grouped_calls import GroupedCall
from app.jobs.idempotency import IdempotencyKeys
from app.jobs.in_flight import InFlightUpload
from app.jobs.intake import RedisIntake, add_backlog, read_backlog
from app.jobs.job import Backlog, Job, Priority, Reception, Submission
from app.jobs.job_lists import JobLists
from app.jobs.live_channel import Follower, LiveChannel
from app.jobs.payload_stores import create_payload_intake
from app.jobs.payloads import PayloadWriter
from app.jobs.redis_guard import RedisGuard
from app.jobs.withdrawals import Withdrawals

logger = logging.getLogger(__name__)

# Of those who ask for the service's health at the same moment; they share one look.
_LARGEST_GROUP = 1000

# Fields of the cache's counts, in the order of CacheCounts.
_COUNTED = tuple(
    str(int(reception)) for reception in (Reception.ANSWERED, Reception.JOINED, Reception.ACCEPTED)
)


class Heartbeat(BaseModel):
    """What a worker says of itself, every few seconds."""

    name: str
    model: str
    engine: str
    processes: int
    reasons: list[str] = []


@dataclass(frozen=True, slots=True)
class CacheCounts:
    """How many uploads the result cache answered, joined to others and let pass; what it holds."""

    answered: int
    joined: int
    classified: int
    entries: int


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """The service as Redis and the workers' heartbeats show it."""

    redis_connected: bool
    backlog: Backlog | None = None
    dead_letters: int | None = None
    cache: CacheCounts | None = None
    workers: list[Heartbeat] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


class JobService:
    """One per API process. Raises :class:`ServiceUnavailableError` while Redis is away."""

    def __init__(
        self, client: "redis.asyncio.Redis", settings: Settings, guard: RedisGuard
    ) -> None:
        self._redis = client
        self._guard = guard
        self._max_memory = settings.redis.max_memory
        self._has_cache = settings.result.cache_entries > 0
        self._live = LiveChannel(client, settings, guard)
        self._intake = RedisIntake(client, settings, guard, self._live.name)
        self._payloads = create_payload_intake(settings, client, guard)
        self._gate = AdmissionGate(self._intake, self._payloads, settings.queue)
        self.dead_letters = DeadLetters(client, settings, self._payloads, guard)
        self.batches = Batches(
            client, settings, self._payloads, guard, self._gate, self._live.batches
        )
        self.job_lists = JobLists(client, guard)
        self.idempotency_keys = IdempotencyKeys(client, settings, guard)
        self._withdrawals = Withdrawals(client, settings, self._payloads, guard)
        self._look = GroupedCall(self._look_once, _LARGEST_GROUP)

    async def run(self) -> None:
        """What goes on beside the requests; ends when it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._payloads.run())
            group.create_task(self._live.run())

    async def admit(self, upload_bytes: int) -> InFlightUpload:
        """Look whether an upload has a chance, before it is read; ``upload_bytes`` 0 if unknown.

        Raises :class:`QueueFullError` or :class:`StorageFullError`.
        """
        await self.check_room(upload_bytes)
        return self.begin_upload()

    async def check_room(self, upload_bytes: int = 0) -> None:
        """Look once more while an upload arrives. Raises as :meth:`admit`."""
        self._guard.check()
        await self._gate.check(upload_bytes)

    def begin_upload(self) -> InFlightUpload:
        """What counts the bytes of a request's uploads until they are submitted, or thrown away."""
        return InFlightUpload(self._gate.hold)

    def create_upload(self, job_id: UUID) -> PayloadWriter:
        """Begin the upload of a job that is not accepted yet."""
        return self._payloads.create_writer(str(job_id))

    async def submit(
        self,
        job_id: UUID,
        upload: PayloadWriter,
        owner: str,
        *,
        patience_seconds: float | None = None,
        wait_seconds: float = 0,
        priority: Priority = Priority.INTERACTIVE,
        content: str = "",
        is_fresh: bool = False,
        options: AnswerOptions = DEFAULT_OPTIONS,
        key_name: str = "",
        fingerprint: str = "",
    ) -> tuple[Reception, Job | None]:
        """Accept a job whose upload is complete. When this returns, the job is safe.

        ``patience_seconds``: unless a worker comes to it by then, the job fails. ``content``,
        ``is_fresh`` and those behind as in :class:`Submission`. Returns what became of it, and its
        record if it was waited for. Raises :class:`QueueFullError` when there is no room, and
        :class:`IdempotencyKeyInUseError`; the upload is erased then. Raises as :meth:`get_job` when
        the job is erased while it is waited for.
        """
        try:
            upload_bytes = await upload.commit()
        except BaseException:
            with contextlib.suppress(ServiceError):
                await upload.abort()
            raise
        submission = Submission(
            job_id=str(job_id),
            owner=owner,
            upload_bytes=upload_bytes,
            patience_ms=math.ceil((patience_seconds or 0) * 1000),
            is_watched=wait_seconds > 0,
            priority=priority,
            content=content,
            is_fresh=is_fresh,
            options=options,
            key_name=key_name,
            fingerprint=fingerprint,
        )
        if not wait_seconds:
            return await self._accept(submission, upload), None
        with self._live.expect_end(submission.job_id) as end:
            reception = await self._accept(submission, upload)
            try:
                job = await self._live.wait(end, submission.job_id, wait_seconds)
                return reception, await self._require(submission.job_id, job)
            except (ServiceUnavailableError, asyncio.CancelledError):
                # Redis has gone since, or the server stops. The job is accepted all the same, and
                # without an answer now the client would never learn its id.
                return reception, None

    async def _accept(self, submission: Submission, upload: PayloadWriter) -> Reception:
        try:
            reception, backlog = await self._intake.submit(submission)
        except ResultsFullError:
            await upload.abort()
            raise await self._gate.refuse_memory() from None
        except StorageFullError:
            await upload.abort()
            raise
        # Whatever else is raised leaves open whether the job was accepted: its upload stays, for
        # the job or for the sweeper.
        self._gate.learn(backlog)
        if reception not in (Reception.ACCEPTED, Reception.JOINED):
            await upload.abort()
        self._gate.judge(reception)
        return reception

    async def get_job(self, job_id: UUID, wait_seconds: float = 0) -> Job:
        """A job's record, once it has ended or after ``wait_seconds``.

        Raises :class:`JobNotFoundError` and :class:`JobErasedError`.
        """
        if wait_seconds:
            job = await self._live.wait_for_end(str(job_id), wait_seconds)
        else:
            job = await self._intake.find(str(job_id))
        return await self._require(str(job_id), job)

    async def _require(self, job_id: str, job: Job | None) -> Job:
        if job is None:
            raise await self._withdrawals.explain_absence(job_id)
        return job

    async def cancel_job(self, job_id: UUID, owner: str) -> Job:
        """As :meth:`Withdrawals.cancel`."""
        return await self._withdrawals.cancel(str(job_id), owner)

    async def erase_job(self, job_id: UUID, owner: str) -> None:
        """As :meth:`Withdrawals.erase`."""
        await self._withdrawals.erase(str(job_id), owner)

    async def list_models(self) -> list[str]:
        """The names of the models that workers run now."""

        async def read() -> list[Heartbeat]:
            names = cast(list[bytes], await self._redis.zrange(keys.WORKERS, 0, -1))
            return await self._read_heartbeats([name.decode() for name in names])

        return sorted({worker.model for worker in await self._guard.call(read)})

    def follow(self, job_id: str, follower: Follower) -> None:
        """Tell ``follower`` of each change of a job, once :meth:`look` was called for it."""
        self._live.follow(job_id, follower)

    def unfollow(self, job_id: str) -> None:
        """Tell the job's follower nothing more."""
        self._live.unfollow(job_id)

    async def look(self, job_id: str) -> Job:
        """The record of a job that is followed. Raises as :meth:`get_job`."""
        return await self._require(job_id, await self._live.look(job_id))

    def stop_waiting(self) -> None:
        """The server stops: whoever waits for the end of a job has it as it is."""
        self._live.give_up()

    async def get_health(self, timeout_seconds: float) -> ServiceHealth:
        """Look at Redis and the workers; an answer within the time limit, whatever hangs."""
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._look(None)
        except TimeoutError:
            reason = f"Redis did not answer in {timeout_seconds:g} s"
        except (RedisError, OSError):
            reason = "Redis is not reachable"
        return ServiceHealth(redis_connected=False, reasons=[reason])

    async def _look_once(self, askers: list[None]) -> list[ServiceHealth]:
        """One look for all who ask at the same time."""
        return [await self._read_health()] * len(askers)

    async def _read_health(self) -> ServiceHealth:
        pipeline = self._redis.pipeline(transaction=False)
        add_backlog(pipeline)
        pipeline.zrange(keys.WORKERS, 0, -1)
        pipeline.zcard(keys.DEAD)
        pipeline.hmget(keys.CACHE_COUNTS, *_COUNTED)
        pipeline.zcard(keys.CACHE_USE)
        webhook_reasons.add_look(pipeline)
        looks = await pipeline.execute()
        *answers, names, dead_letters, counts, entries = looks[: -webhook_reasons.LOOKS]
        backlog = read_backlog(answers, self._max_memory)
        workers = await self._read_heartbeats([name.decode() for name in names])
        reasons = [] if workers else ["no worker: accepted jobs wait until one starts"]
        reasons += [reason for reason in (find_policy_warning(answers[-1]),) if reason]
        if backlog.memory_full:
            reasons.append("Redis is at its memory limit: new images are refused")
        if not self._payloads.has_room():
            reasons.append("the disk for uploads is full: new images are refused")
        trouble = self._guard.find_trouble()
        if trouble:
            reasons.append(f"Redis refuses to write: {trouble}")
        reasons += [f"{worker.name}: {text}" for worker in workers for text in worker.reasons]
        reasons += webhook_reasons.find_reasons(looks[-webhook_reasons.LOOKS :])
        cache = CacheCounts(*(int(count or 0) for count in (*counts, entries)))
        return ServiceHealth(
            True, backlog, dead_letters, cache if self._has_cache else None, workers, reasons
        )

    async def _read_heartbeats(self, names: list[str]) -> list[Heartbeat]:
        if not names:
            return []
        beats = await self._redis.mget([keys.worker(name) for name in names])
        workers = []
        for beat in beats:
            try:
                if beat is not None:
                    workers.append(Heartbeat.model_validate_json(beat))
            except ValidationError:
                logger.warning("unreadable heartbeat: %r", beat)
        return workers
