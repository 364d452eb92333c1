"""Answering a doorbell: claim a batch, decode, classify, finish."""

import logging
import time
from collections.abc import Callable, Sequence

from redis.exceptions import RedisError

from app.celery_app import celery_app
from app.core.config import LimitSettings
from app.core.errors import JobFailedError, PayloadLostError
from app.inference.engines.engine import Pixels
from app.inference.images import decode
from app.jobs.doorbell import TASK_NAME
from app.jobs.job import Answer, Claim, Outcome, Stage
from app.jobs.ledger import RedisLedger
from app.jobs.payloads import PayloadStore
from app.models.ml_models import LoadedModel

logger = logging.getLogger(__name__)

# Whoever watches can't see steps that are closer together, so a fast batch is written once, at its
# end, and a slow one shows where it is and hands over each job as it is done.
_PACE_SECONDS = 0.05

# Where a job is when a stage begins, in percent: reading is quick, classifying takes longest.
_PROGRESS = {Stage.LOADING: 10, Stage.DECODING: 20, Stage.CLASSIFYING: 50}


Clock = Callable[[], float]
"""Seconds that only grow, as from :func:`time.monotonic`."""


class _Pace:
    """Says when it is time to write again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = clock()

    def is_due(self) -> bool:
        return self._clock() - self._last >= _PACE_SECONDS

    def mark(self) -> None:
        self._last = self._clock()


class BatchClassifier:
    """One per worker process: everything that a batch needs."""

    def __init__(
        self,
        holder: str,
        ledger: RedisLedger,
        payloads: PayloadStore,
        model: LoadedModel,
        limits: LimitSettings,
        clock: Clock = time.monotonic,
    ) -> None:
        self._holder = holder
        self._ledger = ledger
        self._payloads = payloads
        self._model = model
        self._limits = limits
        self._clock = clock
        self._answer = Answer(model.manifest.name, model.manifest.version, model.engine.name)

    def answer_doorbell(self) -> int:
        """Claim what waits, up to a batch, and bring each job to its end. Returns how many."""
        claims = self._ledger.claim(self._holder, self._answer)
        if claims:
            started = self._clock()
            try:
                self._classify(claims)
            except BaseException:
                self._give_back()
                raise
            logger.info("classified %d in %.0f ms", len(claims), (self._clock() - started) * 1000)
        return len(claims)

    def _give_back(self) -> None:
        self._payloads.delete_many(self._ledger.release(self._holder))

    def _classify(self, claims: Sequence[Claim]) -> None:
        pace = _Pace(self._clock)
        images = self._payloads.read_many([claim.job_id for claim in claims])
        size = self._model.engine.portion
        outcomes: list[Outcome] = []
        for start in range(0, len(claims), size):
            rest = claims[start:]
            if pace.is_due():
                self._finish(outcomes)
                outcomes = []
                self._report(pace, rest, Stage.LOADING)
            outcomes += self._run(pace, rest[:size], images[start : start + size])
        self._finish(outcomes)

    def _run(
        self, pace: _Pace, claims: Sequence[Claim], payloads: Sequence[bytes | None]
    ) -> list[Outcome]:
        """Decode and classify images that go through the engine together."""
        self._report(pace, claims, Stage.DECODING)
        outcomes: list[Outcome] = []
        decoded: list[tuple[Claim, Pixels]] = []
        for claim, payload in zip(claims, payloads, strict=True):
            try:
                decoded.append((claim, self._decode(payload)))
            except JobFailedError as error:
                logger.info("job %s failed: %s", claim.job_id, error.code)
                outcomes.append(Outcome.failed(claim, error.code, error.text))
        self._report(pace, [claim for claim, _ in decoded], Stage.CLASSIFYING)
        return outcomes + self._predict(decoded)

    def _decode(self, payload: bytes | None) -> Pixels:
        if payload is None:
            raise PayloadLostError()
        return decode(payload, self._model.manifest, self._limits)

    def _predict(self, decoded: Sequence[tuple[Claim, Pixels]]) -> list[Outcome]:
        if not decoded:
            return []
        try:
            answers = self._model.classify([image for _, image in decoded])
        except Exception as error:
            # One image may have upset the engine: the others shall not suffer for it.
            if len(decoded) > 1:
                return [outcome for item in decoded for outcome in self._predict([item])]
            claim = decoded[0][0]
            logger.exception("job %s: the engine failed: %s", claim.job_id, error)
            return [Outcome.failed(claim, JobFailedError.code, JobFailedError.detail)]
        return [
            Outcome.completed(claim, answer)
            for (claim, _), answer in zip(decoded, answers, strict=True)
        ]

    def _report(self, pace: _Pace, claims: Sequence[Claim], stage: Stage) -> None:
        if pace.is_due():
            self._ledger.report_progress(claims, _PROGRESS[stage], stage)
            pace.mark()

    def _finish(self, outcomes: Sequence[Outcome]) -> None:
        if outcomes:
            # What was not ended belongs to somebody else by now, and so does its payload.
            self._payloads.delete_many(self._ledger.finish(outcomes))


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
