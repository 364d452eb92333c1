"""Who may come in: uploads that could not be accepted are refused before their body is read.

The ledger's ``submit`` script has the last word; this is a look ahead, half a second old at most,
so that work which will be refused costs next to nothing.
"""

import contextlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace

from app.core.config import QueueSettings
from app.core.errors import (
    IdempotencyKeyInUseError,
    QueueFullError,
    ResultsFullError,
    ServiceError,
    StorageFullError,
)
from app.jobs.intake import RECORD_BYTES, RedisIntake
from app.jobs.job import Backlog, Reception
from app.jobs.payloads import PayloadIntake

logger = logging.getLogger(__name__)

# Each submitted job brings news of the queue, too; this is for memory, disk, and while none is
# accepted.
_FRESH_SECONDS = 0.5

_LONGEST_RETRY_SECONDS = 3600

_MEMORY_FULL = "no room in Redis's memory"
_CROWDED = "as many results as allowed are kept"


class AdmissionGate:
    """One per API process."""

    def __init__(
        self,
        intake: RedisIntake,
        payloads: PayloadIntake,
        queue: QueueSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._intake = intake
        self._payloads = payloads
        self._queue = queue
        self._clock = clock
        self._backlog = Backlog(0, 0, None)
        self._seen = self._crowded = -math.inf
        self._relief_at: float | None = None
        self._disk_full = False
        self._in_flight_bytes = 0
        # Since the last look at Redis's memory, which holds what arrived before.
        self._arrived_bytes = 0
        self._refused = 0

    async def check(self, upload_bytes: int) -> None:
        """Raises :class:`QueueFullError` or :class:`StorageFullError` when there is no room.

        ``upload_bytes``: how large the upload says it is, 0 when it does not.
        """
        if not self._is_fresh(self._seen):
            await self._look()
        if self._disk_full:
            raise self._refuse(StorageFullError(), "no room on the disk")
        if self._backlog.memory_full:
            raise self._refuse(self._create_results_error(), _MEMORY_FULL)
        if self._is_fresh(self._crowded):
            raise self._refuse(self._create_results_error(), _CROWDED)
        full = self._backlog.jobs >= self._queue.max_jobs
        if full or not self._has_room_for(upload_bytes):
            raise self._refuse(self._create_queue_error(), f"{self._backlog.jobs} jobs wait")

    async def check_batch(self, images: int) -> None:
        """Look again before a batch is submitted, which may take megabytes of Redis's memory.

        Raises :class:`ResultsFullError`.
        """
        await self._look()
        if self._backlog.free_bytes < images * RECORD_BYTES:
            await self._look_for_relief()
            raise self._refuse(self._create_results_error(), _MEMORY_FULL)

    def hold(self, more_bytes: int) -> None:
        """Count bytes of uploads that arrive and belong to no job yet; fewer, if negative.

        Raises :class:`QueueFullError` when with what waits they would be too many, and
        :class:`ResultsFullError` when Redis, as their store, has no memory for them.
        """
        if more_bytes > 0:
            if not self._has_room_for(more_bytes):
                raise self._refuse(self._create_queue_error(), "too many bytes wait or arrive")
            if self._payloads.is_in_redis:
                self._arrived_bytes += more_bytes
                if self._arrived_bytes > self._backlog.free_bytes:
                    raise self._refuse(self._create_results_error(), _MEMORY_FULL)
        self._in_flight_bytes += more_bytes

    def _has_room_for(self, upload_bytes: int) -> bool:
        taken = self._backlog.upload_bytes + self._in_flight_bytes
        return taken + upload_bytes <= self._queue.max_bytes

    async def _look(self) -> None:
        backlog = await self._intake.read_backlog()
        if backlog.memory_full:
            await self._look_for_relief()
        self._backlog = backlog
        self._disk_full = not self._payloads.has_room()
        self._seen = self._clock()
        self._arrived_bytes = 0

    async def _look_for_relief(self) -> None:
        seconds = await self._intake.read_relief()
        self._relief_at = None if seconds is None else self._clock() + seconds

    async def refuse_memory(self) -> ServiceError:
        """The error for an upload after which Redis's memory had no room for its job."""
        with contextlib.suppress(ServiceError):
            await self._look_for_relief()
        return self._refuse(self._create_results_error(), _MEMORY_FULL)

    def learn(self, backlog: Backlog) -> None:
        """What a submitted job told of the queue."""
        self._backlog = replace(backlog, free_bytes=self._backlog.free_bytes)
        if backlog.relief_seconds is not None:
            self._crowded = self._clock()
            self._relief_at = self._crowded + backlog.relief_seconds

    def judge(self, reception: Reception) -> None:
        """What the ledger said has the last word.

        Raises :class:`QueueFullError` where it refused a job or a batch,
        :class:`IdempotencyKeyInUseError` where another has its key.
        """
        if reception is Reception.TAKEN:
            raise IdempotencyKeyInUseError()
        if reception is Reception.REFUSED:
            raise self._refuse(self._create_queue_error(), f"{self._backlog.jobs} jobs wait")
        if reception is Reception.CROWDED:
            raise self._refuse(self._create_results_error(), _CROWDED)
        if self._refused:
            logger.warning("there is room again, after %d refused uploads", self._refused)
            self._refused = 0

    def _is_fresh(self, moment: float) -> bool:
        return self._clock() - moment <= _FRESH_SECONDS

    def _estimate_drain(self) -> int | None:
        """How many seconds what waits will take, ``None`` while nothing was measured."""
        backlog = self._backlog
        if not backlog.drain_rate:
            return None
        return min(math.ceil(backlog.jobs / backlog.drain_rate), _LONGEST_RETRY_SECONDS)

    def _create_queue_error(self) -> QueueFullError:
        return QueueFullError(self._estimate_drain())

    def _create_results_error(self) -> ResultsFullError:
        """With the time until a record expires or, before any does, until what waits has ended."""
        if self._relief_at is None:
            return ResultsFullError(self._estimate_drain())
        seconds = math.ceil(self._relief_at - self._clock())
        return ResultsFullError(min(max(seconds, 1), _LONGEST_RETRY_SECONDS))

    def _refuse(self, error: ServiceError, reason: str) -> ServiceError:
        """Counted rather than logged one by one: under load that would bury everything else."""
        if not self._refused:
            logger.warning("uploads are refused: %s", reason)
        self._refused += 1
        return error
