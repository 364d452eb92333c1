"""Answering a doorbell: claim a batch, decode, classify, finish, and claim the next."""

import contextlib
import logging
import random
import time
from collections.abc import Sequence

from celery.exceptions import SoftTimeLimitExceeded
from redis.exceptions import RedisError

from app.celery_app import celery_app
from app.core.config import Settings
from app.core.job_errors import (
    DeadlineExceededError,
    ImageTooCostlyError,
    JobCancelledError,
    JobFailedError,
    ModelUnavailableError,
    OutOfMemoryError,
    PayloadLostError,
    RetryableJobError,
)
from app.inference.decoding.examination import examine
from app.inference.decoding.guard import CAN_GUARD, cpu_alarm
from app.inference.engines.engine import Pixels, is_out_of_memory
from app.inference.images import decode_examined
from app.jobs.doorbell import TASK_NAME
from app.jobs.job import Answer, Claim, DeathReason, Outcome, Stage
from app.jobs.ledger import RedisLedger
from app.jobs.payloads import PayloadStore
from app.models.ml_models import LoadedModel
from app.tasks.claimed_batch import PACE_SECONDS, ClaimedBatch, Clock
from app.tasks.guarded_jobs import GuardedJobs

logger = logging.getLogger(__name__)

# A doorbell costs more than a turn, so a process that found work goes on while there is more. Not
# for longer than this, nor than a share of its time limit, which Celery counts from the doorbell.
_SPELL_SECONDS = 1.0
_SHARE_OF_LIMIT = 0.1

# Before a process rests it listens for the next bell itself, longer than jobs are apart when it is
# half busy: that spares the way through Celery's main process.
_LISTEN_SECONDS = 0.05

# A process goes on from one image that is decoded under guard to the next for this share of its
# soft time limit. The last one may take two thirds of it more.
_GUARDED_SHARE_OF_LIMIT = 0.25

_LONGEST_DELAY_MS = 300_000

# Of an engine's complaint in a dead letter.
_LONGEST_REASON = 300

# Where a job is when a stage begins, in percent: reading is quick, classifying takes longest.
_PROGRESS = {Stage.LOADING: 10, Stage.DECODING: 20, Stage.CLASSIFYING: 50}


class HandBackRequested(BaseException):
    """Raised in the middle of a batch when its worker has to end. No decoder takes it for its own
    error, as it might an :class:`Exception`."""


class BatchClassifier:
    """One per worker process: everything that a batch needs."""

    def __init__(
        self,
        holder: str,
        ledger: RedisLedger,
        payloads: PayloadStore,
        model: LoadedModel,
        settings: Settings,
        clock: Clock = time.monotonic,
    ) -> None:
        self._holder = holder
        self._ledger = ledger
        self._payloads = payloads
        self._model = model
        self._limits = settings.limits
        self._decode_seconds = settings.worker.decode_seconds
        self._spell_seconds = min(
            _SPELL_SECONDS, settings.worker.soft_limit_seconds * _SHARE_OF_LIMIT
        )
        self._backoff_ms = settings.retry.backoff_seconds * 1000
        self._clock = clock
        self._most = self._wanted = settings.queue.batch_size
        # As if a whole batch took the pace's time, until it is known.
        self._image_seconds = PACE_SECONDS / self._most
        manifest = model.manifest
        self._guarded = GuardedJobs(holder, ledger, payloads, manifest, settings)
        self._guarded_seconds = settings.worker.soft_limit_seconds * _GUARDED_SHARE_OF_LIMIT
        self._answer = Answer(manifest.name, manifest.version, model.engine.name, model.identity)

    def answer_doorbell(self) -> int:
        """Claim what waits, batch by batch, and bring each job to its end. Returns how many.

        Goes on with jobs that come soon after.

        Raises :class:`redis.RedisError` when the ledger is away: the next claim gives the same jobs
        again, or their leases run out.
        """
        started, done = self._clock(), 0

        def has_time() -> bool:
            return self._clock() - started < self._spell_seconds

        try:
            # What an outage left behind.
            self._guarded.hand_back()
            batch = self._work(ClaimedBatch(self._clock), more=True)
            while batch is not None and (
                batch.claims
                or self._wait_for_guarded(started)
                or (done and has_time() and self._ledger.hear_bell(_LISTEN_SECONDS))
            ):
                done += len(batch.claims)
                # Whoever hears a bell looks for what it rang for.
                more = not batch.claims or has_time()
                batch = self._work(batch, more and not self._guarded.is_full)
        except SoftTimeLimitExceeded:
            self._guarded.give_up(DeathReason.TIMED_OUT)
            self._hand_back()
        except HandBackRequested:
            # Between two batches: what was just claimed has lost nothing.
            self._hand_back()
        finally:
            self._guarded.stop()
        if done:
            milliseconds = (self._clock() - started) * 1000
            logger.info("classified %d in %.0f ms", done, milliseconds)
        return done

    def _wait_for_guarded(self, started: float) -> bool:
        """Whether images are being decoded under guard; waits for one of them, or for a bell."""
        if not self._guarded:
            return False
        if self._clock() - started >= self._guarded_seconds:
            # Celery counts the time limit from the doorbell: the rest needs another.
            self._guarded.close()
        if self._guarded.is_full:
            self._guarded.wait(_LISTEN_SECONDS)
        else:
            self._ledger.hear_bell(_LISTEN_SECONDS)
        return True

    def _work(self, batch: ClaimedBatch, more: bool) -> ClaimedBatch | None:
        """Bring a batch to its end; returns the next, without claims unless there is ``more``.

        ``None`` after a batch that was given up: this process rests before it claims anything.
        """
        try:
            return self._work_or_give_up(batch, more)
        except HandBackRequested:
            # Perhaps in the middle of giving up for another reason: that is as good.
            self._report_outcomes(batch)
            self._hand_back()
        except RedisError:
            raise
        except BaseException:
            self._hand_back()
            raise
        return None

    def _work_or_give_up(self, batch: ClaimedBatch, more: bool) -> ClaimedBatch | None:
        try:
            self._classify(batch)
            self._finish_guarded(batch)
            return self._take_turn(batch, more)
        except SoftTimeLimitExceeded:
            logger.warning("a batch of %d took too long", len(batch.claims))
            if not batch.under_way:
                self._guarded.give_up(DeathReason.TIMED_OUT)
            self._give_up(batch, DeathReason.TIMED_OUT)
        except RedisError:
            with contextlib.suppress(RedisError):
                self._report_outcomes(batch)
                self._hand_back()
            raise
        except Exception:
            # Nobody knows why, so it may happen each time: that must count, and end.
            logger.exception("a batch of %d failed", len(batch.claims))
            self._give_up(batch, DeathReason.WORKER_LOST)
        return None

    def _take_turn(self, batch: ClaimedBatch, more: bool) -> ClaimedBatch:
        following = ClaimedBatch(self._clock)
        if more:
            self._learn(batch)
            turn = self._ledger.take_turn(batch.outcomes, self._holder, self._answer, self._wanted)
            following.claims = turn.claims
            # The round trip is the ledger's, not the batch's.
            following.mark()
            batch.outcomes = []
            self._payloads.delete_many(turn.ended)
        else:
            self._report_outcomes(batch)
        return following

    def _learn(self, batch: ClaimedBatch) -> None:
        """Want as many jobs as take the pace's time: more would be reported in pieces, each a round
        trip, and keep the first waiting for the last."""
        if batch.claims:
            seconds = batch.worked_seconds / len(batch.claims)
            # Half of the way: one slow image says little about the next.
            self._image_seconds = (self._image_seconds + seconds) / 2
            portion = self._model.engine.portion
            portions = max(1, round(PACE_SECONDS / self._image_seconds / portion))
            self._wanted = min(portions * portion, self._most)

    def _give_up(self, batch: ClaimedBatch, reason: DeathReason) -> None:
        """What was under way may be why; the rest has lost nothing."""
        self._report_outcomes(batch)
        suspects = batch.under_way or batch.claims
        self._payloads.delete_many(self._ledger.release(self._holder, reason, suspects))
        self._hand_back()

    def _hand_back(self) -> None:
        self._payloads.delete_many(self._ledger.hand_back(self._holder))
        self._guarded.hand_back()

    def _classify(self, batch: ClaimedBatch) -> None:
        images = self._read(batch)
        size = self._model.engine.portion
        for start in range(0, len(images), size):
            if batch.is_due():
                self._report_outcomes(batch)
                rest = [claim for claim, _ in images[start:]]
                self._report(batch, rest, Stage.LOADING)
            portion = batch.keep_wanted(images[start : start + size])
            if portion:
                self._run(batch, portion)

    def _read(self, batch: ClaimedBatch) -> list[tuple[Claim, bytes | None]]:
        """The uploads of the batch, but for those that can't be read now."""
        try:
            return self._read_together(batch.claims)
        except RetryableJobError:
            # Of one, or of all: the others shall not suffer for it.
            images: list[tuple[Claim, bytes | None]] = []
            for claim in batch.claims:
                try:
                    images += self._read_together([claim])
                except RetryableJobError as error:
                    batch.outcomes.append(self._fail(claim, error))
            return images

    def _read_together(self, claims: Sequence[Claim]) -> list[tuple[Claim, bytes | None]]:
        if not claims:
            return []
        try:
            images = self._payloads.read_many([claim.job_id for claim in claims])
        except MemoryError as error:
            raise OutOfMemoryError() from error
        return list(zip(claims, images, strict=True))

    def _run(self, batch: ClaimedBatch, images: Sequence[tuple[Claim, bytes | None]]) -> None:
        """Decode and classify images that go through the engine together."""
        started = self._clock()
        batch.under_way = [claim for claim, _ in images]
        self._report(batch, batch.under_way, Stage.DECODING)
        decoded: list[tuple[Claim, Pixels]] = []
        for claim, data in self._examine(batch, batch.keep_wanted(images)):
            try:
                decoded.append((claim, self._decode(data)))
            except JobFailedError as error:
                if isinstance(error.__cause__, SoftTimeLimitExceeded):
                    # It came in the middle of a decoder, which took it for a damaged image.
                    raise error.__cause__ from None
                batch.outcomes.append(self._fail(claim, error))
        self._report(batch, [claim for claim, _ in decoded], Stage.CLASSIFYING)
        batch.outcomes += self._predict(batch.keep_wanted(decoded))
        batch.under_way = []
        batch.worked_seconds += self._clock() - started

    def _examine(
        self, batch: ClaimedBatch, images: Sequence[tuple[Claim, bytes | None]]
    ) -> list[tuple[Claim, bytes]]:
        """Those that are to be decoded here: the others fail, or go under guard."""
        here, guarded = [], []
        for claim, payload in images:
            try:
                self._check(batch, claim)
                if payload is None:
                    raise PayloadLostError()
                data, is_costly = examine(payload, self._limits)
                if is_costly and not CAN_GUARD:
                    raise ImageTooCostlyError()
            except JobFailedError as error:
                batch.outcomes.append(self._fail(claim, error))
            else:
                if CAN_GUARD and (is_costly or claim.is_suspect):
                    guarded.append(claim)
                else:
                    here.append((claim, data))
        if guarded:
            self._guarded.add(guarded)
            batch.under_way = [claim for claim, _ in here]
        return here

    def _check(self, batch: ClaimedBatch, claim: Claim) -> None:
        if claim.patience_ms is not None and batch.age_seconds() * 1000 >= claim.patience_ms:
            raise DeadlineExceededError()
        if claim.options.model not in ("", self._answer.model):
            raise ModelUnavailableError()

    def _decode(self, data: bytes) -> Pixels:
        try:
            with cpu_alarm(self._decode_seconds):
                return decode_examined(data, self._model.manifest, self._limits)
        except MemoryError as error:
            raise OutOfMemoryError() from error

    def _finish_guarded(self, batch: ClaimedBatch) -> None:
        """Classify the image that was decoded under guard meanwhile, if there is one."""
        finished = self._guarded.take_finished() if self._guarded else None
        if finished is None:
            return
        # What comes may kill this process: the batch's jobs shall not suffer for it.
        self._report_outcomes(batch)
        claim, pixels = finished
        if isinstance(pixels, JobCancelledError):
            batch.outcomes.append(Outcome.cancelled(claim))
        elif isinstance(pixels, JobFailedError):
            batch.outcomes.append(self._fail(claim, pixels))
        else:
            batch.under_way = [claim]
            batch.outcomes += self._predict([(claim, pixels)])
            batch.under_way = []

    def _predict(self, decoded: Sequence[tuple[Claim, Pixels]]) -> list[Outcome]:
        if not decoded:
            return []
        try:
            answers = self._model.classify(
                [image for _, image in decoded], [claim.options for claim, _ in decoded]
            )
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:
            # One image may have upset the engine: the others shall not suffer for it.
            if len(decoded) > 1:
                return [outcome for item in decoded for outcome in self._predict([item])]
            claim = decoded[0][0]
            if is_out_of_memory(error):
                return [self._fail(claim, OutOfMemoryError())]
            logger.exception("job %s: the engine failed", claim.job_id)
            reason = f"{type(error).__name__}: {error}"[:_LONGEST_REASON]
            code, detail = JobFailedError.code, JobFailedError.detail
            return [Outcome.unprocessable(claim, code, detail, reason)]
        return [
            Outcome.completed(claim, answer)
            for (claim, _), answer in zip(decoded, answers, strict=True)
        ]

    def _fail(self, claim: Claim, error: JobFailedError) -> Outcome:
        """What an error means for its job: the end, or another try."""
        if isinstance(error, RetryableJobError):
            logger.warning("job %s is tried again: %s", claim.job_id, error.reason)
            delay_ms = self._delay_ms(claim.retries)
            return Outcome.retry(
                claim, error.code, error.text, reason=error.reason, delay_ms=delay_ms
            )
        logger.info("job %s failed: %s", claim.job_id, error.code)
        return Outcome.failed(claim, error.code, error.text)

    def _delay_ms(self, retries: int) -> int:
        """Twice as long after each retry, and spread, so that not all come back at once."""
        delay_ms = min(self._backoff_ms * 2 ** min(retries, 30), _LONGEST_DELAY_MS)
        return int(delay_ms * random.uniform(0.5, 1.5))

    def _report(self, batch: ClaimedBatch, claims: Sequence[Claim], stage: Stage) -> None:
        if batch.is_due():
            batch.drop(self._ledger.report_progress(claims, _PROGRESS[stage], stage))
            batch.mark()

    def _report_outcomes(self, batch: ClaimedBatch) -> None:
        if batch.outcomes:
            # What was not ended belongs to somebody else by now, and so does its payload.
            self._payloads.delete_many(self._ledger.finish(batch.outcomes))
            batch.outcomes = []


_classifier: BatchClassifier | None = None


def set_classifier(classifier: BatchClassifier) -> None:
    """Make this worker process ready for work."""
    global _classifier
    _classifier = classifier


@celery_app.task(name=TASK_NAME)
def classify_batch() -> None:
    """The doorbell's task."""
    assert _classifier is not None, "the worker's bootstrap in app.tasks.worker has not run"
    try:
        _classifier.answer_doorbell()
    except RedisError as error:
        # The leases of what was claimed run out, or the next claim gives it again.
        logger.warning("Redis: %s", error)
