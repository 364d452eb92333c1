"""Who may come in: uploads that could not be accepted are refused before their body is read.

The ledger's ``submit`` script has the last word; this is a look ahead, half a second old at most,
so that work which will be refused costs next to nothing.
"""

import logging
import math
import time
from collections.abc import Callable

from app.core.config import QueueSettings
from app.core.errors import QueueFullError, ServiceError, StorageFullError
from app.jobs.intake import RedisIntake
from app.jobs.job import Backlog
from app.jobs.payloads import PayloadIntake

logger = logging.getLogger(__name__)

# Each submitted job brings news of the queue, too; this is for memory, disk, and while none is
# accepted.
_FRESH_SECONDS = 0.5

_LONGEST_RETRY_SECONDS = 3600


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
        self._seen = -math.inf
        self._disk_full = False
        self._refused = 0

    async def check(self, upload_bytes: int) -> None:
        """Raises :class:`QueueFullError` or :class:`StorageFullError` when there is no room.

        ``upload_bytes``: how large the upload says it is, 0 when it does not.
        """
        if self._clock() - self._seen > _FRESH_SECONDS:
            self._backlog = await self._intake.read_backlog()
            self._disk_full = not self._payloads.has_room()
            self._seen = self._clock()
        if self._backlog.memory_full or self._disk_full:
            raise self._refuse(StorageFullError(), "no room in Redis's memory or on the disk")
        full = self._backlog.jobs >= self._queue.max_jobs
        if full or self._backlog.upload_bytes + upload_bytes > self._queue.max_bytes:
            raise self.refuse_for_now()

    def learn(self, backlog: Backlog) -> None:
        """What a submitted job told of the queue."""
        self._backlog = Backlog(
            backlog.jobs, backlog.upload_bytes, backlog.drain_rate, self._backlog.memory_full
        )

    def admit(self) -> None:
        """A job was accepted."""
        if self._refused:
            logger.warning("there is room again, after %d refused uploads", self._refused)
            self._refused = 0

    def refuse_for_now(self) -> ServiceError:
        """The error for an upload that is too much, with the time that what waits will take."""
        backlog = self._backlog
        seconds = None
        if backlog.drain_rate:
            seconds = min(math.ceil(backlog.jobs / backlog.drain_rate), _LONGEST_RETRY_SECONDS)
        return self._refuse(QueueFullError(seconds), f"{backlog.jobs} jobs wait")

    def _refuse(self, error: ServiceError, reason: str) -> ServiceError:
        """Counted rather than logged one by one: under load that would bury everything else."""
        if not self._refused:
            logger.warning("uploads are refused: %s", reason)
        self._refused += 1
        return error
