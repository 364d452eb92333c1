"""What the API can ask for: submit, follow, fetch, and how the service is."""

import asyncio
import logging
from dataclasses import dataclass, field
from uuid import UUID

import redis.asyncio
from pydantic import BaseModel, ValidationError
from redis.exceptions import RedisError

from app.core import keys
from app.core.errors import JobNotFoundError
from app.core.redis_client import find_policy_warning
from app.jobs.grouped_calls import GroupedCall
from app.jobs.job import Job
from app.jobs.ledger import RedisIntake
from app.jobs.payloads import PayloadIntake, PayloadWriter

logger = logging.getLogger(__name__)

# Of those who ask for the service's health at the same moment; they share one look.
_LARGEST_GROUP = 1000


class Heartbeat(BaseModel):
    """What a worker says of itself, every few seconds."""

    name: str
    model: str
    engine: str
    processes: int
    reasons: list[str] = []


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """The service as Redis and the workers' heartbeats show it."""

    redis_connected: bool
    queue_length: int | None = None
    workers: list[Heartbeat] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


class JobService:
    """One per API process. Raises :class:`redis.RedisError` while Redis is away."""

    def __init__(
        self,
        client: "redis.asyncio.Redis",
        intake: RedisIntake,
        payloads: PayloadIntake,
    ) -> None:
        self._redis = client
        self._intake = intake
        self._payloads = payloads
        self._look = GroupedCall(self._look_once, _LARGEST_GROUP)

    def create_upload(self, job_id: UUID) -> PayloadWriter:
        """Begin the upload of a job that is not accepted yet."""
        return self._payloads.create_writer(str(job_id))

    async def submit(self, job_id: UUID, upload: PayloadWriter, owner: str) -> None:
        """Accept a job whose upload is complete. When this returns, the job is safe."""
        await upload.commit()
        await self._intake.submit(str(job_id), owner)

    async def get_job(self, job_id: UUID) -> Job:
        """A job's record. Raises :class:`JobNotFoundError`."""
        job = await self._intake.find(str(job_id))
        if job is None:
            raise JobNotFoundError()
        return job

    async def get_health(self, timeout_seconds: float) -> ServiceHealth:
        """Look at Redis and the workers; an answer within the time limit, whatever hangs."""
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._look(None)
        except (RedisError, OSError, TimeoutError):
            return ServiceHealth(
                redis_connected=False, reasons=[f"Redis did not answer in {timeout_seconds:g} s"]
            )

    async def _look_once(self, askers: list[None]) -> list[ServiceHealth]:
        """One look for all who ask at the same time."""
        return [await self._read_health()] * len(askers)

    async def _read_health(self) -> ServiceHealth:
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.zrange(keys.WORKERS, 0, -1)
        pipeline.llen(keys.QUEUE)
        pipeline.info("memory")
        names, queue_length, memory = await pipeline.execute()
        workers = await self._read_heartbeats([name.decode() for name in names])
        reasons = [] if workers else ["no worker: accepted jobs wait until one starts"]
        policy = find_policy_warning(memory)
        if policy:
            reasons.append(policy)
        reasons += [f"{worker.name}: {text}" for worker in workers for text in worker.reasons]
        return ServiceHealth(True, queue_length, workers, reasons)

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
