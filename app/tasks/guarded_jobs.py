"""Jobs whose images are decoded under guard, while their worker process goes on with others."""

import time
from collections import deque
from collections.abc import Sequence

from app.core.config import Settings
from app.core.job_errors import (
    DeadlineExceededError,
    JobCancelledError,
    JobFailedError,
    OutOfMemoryError,
    PayloadLostError,
)
from app.inference.decoding.guard import Budget, GuardedDecoder
from app.inference.engines.engine import Pixels
from app.jobs.job import Claim, DeathReason, Stage
from app.jobs.ledger import RedisLedger
from app.jobs.payloads import PayloadStore
from app.models.manifest import ModelManifest

# While so many wait, their process claims no more: it would only pile up what others could do.
_MOST_WAITING = 16

# Reading is done, classifying is to come.
_PROGRESS = 20


def guarded_holder_name(holder: str) -> str:
    """Return the name under which a worker process holds what is decoded under guard."""
    return f"{holder}/guarded"


class GuardedJobs:
    """One per worker process. One image is decoded at a time, the others wait for their turn.

    Their claims are held under ``holder``, another name of the process: when it dies over another
    job, these have lost nothing.
    """

    def __init__(
        self,
        worker: str,
        ledger: RedisLedger,
        payloads: PayloadStore,
        manifest: ModelManifest,
        settings: Settings,
    ) -> None:
        self.holder = guarded_holder_name(worker)
        self._worker = worker
        self._ledger = ledger
        self._payloads = payloads
        self._manifest = manifest
        self._limits = settings.limits
        self._budget = Budget.create(
            settings.worker.decode_seconds,
            settings.limits,
            settings.worker.longest_decode_seconds,
        )
        # With the time by which each has to be begun, if any.
        self._waiting: deque[tuple[Claim, float | None]] = deque()
        self._current: tuple[Claim, GuardedDecoder] | None = None
        self._may_hold = self._is_closing = False

    def __len__(self) -> int:
        return len(self._waiting) + (self._current is not None)

    @property
    def is_full(self) -> bool:
        """Whether enough wait, or no more shall come."""
        return self._is_closing or len(self._waiting) >= _MOST_WAITING

    def add(self, claims: Sequence[Claim]) -> None:
        """Take over claims of the worker process."""
        # From now on, whatever the answer is: it may be lost.
        self._may_hold = True
        self._ledger.move(self._worker, self.holder, claims)
        now = time.monotonic()
        self._waiting += [
            (claim, None if claim.patience_ms is None else now + claim.patience_ms / 1000)
            for claim in claims
        ]

    def take_finished(self) -> tuple[Claim, Pixels | JobFailedError] | None:
        """A job whose image is decoded, or can't be; begins with the next.

        A claim with pixels is the worker process's again.
        """
        if self._current is None:
            return self._start() if self._waiting else None
        claim, decoder = self._current
        if not decoder.is_done():
            return None
        self._current = None
        try:
            pixels = decoder.read_pixels()
        except JobFailedError as error:
            return claim, error
        finally:
            decoder.close()
        self._ledger.move(self.holder, self._worker, [claim])
        return claim, pixels

    def _start(self) -> tuple[Claim, JobFailedError] | None:
        """Begin with the next. Returns it if that fails."""
        claim, latest = self._waiting.popleft()
        try:
            if latest is not None and time.monotonic() >= latest:
                raise DeadlineExceededError()
            if self._ledger.report_progress([claim], _PROGRESS, Stage.DECODING):
                raise JobCancelledError()
            (payload,) = self._payloads.read_many([claim.job_id])
            if payload is None:
                raise PayloadLostError()
            decoder = GuardedDecoder(payload, self._manifest, self._limits, self._budget)
            self._current = claim, decoder
        except JobFailedError as error:
            return claim, error
        except (MemoryError, OSError):
            # No memory, process or file to be had.
            return claim, OutOfMemoryError()
        return None

    def wait(self, seconds: float) -> None:
        """Wait for the image that is being decoded, but no longer than so."""
        if self._current is not None:
            self._current[1].wait(seconds)

    def close(self) -> None:
        """Take no more until all is done, and hand back what has not begun."""
        self._is_closing = True
        if self._waiting:
            claims = [claim for claim, _ in self._waiting]
            self._waiting.clear()
            self._payloads.delete_many(self._ledger.hand_back(self.holder, claims))

    def give_up(self, reason: DeathReason) -> None:
        """Report that the image which is being decoded took too long."""
        if self._current is not None:
            claim = self._current[0]
            self._payloads.delete_many(self._ledger.release(self.holder, reason, [claim]))

    def hand_back(self) -> None:
        """Hand back everything, also what was not known to be held."""
        self.stop()
        if self._may_hold:
            self._payloads.delete_many(self._ledger.hand_back(self.holder))
            self._may_hold = False

    def stop(self) -> None:
        """End what runs, and forget what waits; its claims are still to be handed back."""
        self._waiting.clear()
        self._is_closing = False
        if self._current is not None:
            self._current[1].close()
            self._current = None
