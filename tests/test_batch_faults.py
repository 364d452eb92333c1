"""What goes wrong in the middle of a batch, and whom it costs what."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from numpy.typing import NDArray
from PIL import Image

from app.core import keys
from app.core.config import RetrySettings, Settings
from app.jobs.answer_options import AnswerOptions
from app.jobs.file_payloads import FilePayloads
from app.jobs.job import DeathReason, JobState
from app.jobs.payload_stores import payload_folder
from app.models.ml_models import ClassPrediction, LoadedModel
from app.tasks.classification import HandBackRequested
from tests.service import wait_until
from tests.workplace import Workplace

CAT = (Path(__file__).parent.parent / "app" / "samples" / "cat.jpg").read_bytes()


def one_colour_png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (300, 300), (value, value, value)).save(file, "PNG")
    return file.getvalue()


BLACK = one_colour_png(0)


class TroubledModel(LoadedModel):
    """A real model that raises ``error`` whenever a dark image is among its images."""

    def __init__(self, model: LoadedModel, error: BaseException | None, portion: int = 8) -> None:
        super().__init__(model.manifest, PortionedEngine(model, portion))
        self.error = error

    def classify(
        self, images: Sequence[NDArray[np.uint8]], options: Iterable[AnswerOptions]
    ) -> list[list[ClassPrediction]]:
        if self.error is not None and any(image.mean() < 10 for image in images):
            raise self.error
        return super().classify(images, options)


class PortionedEngine:
    """A real engine that takes so many images at once."""

    def __init__(self, model: LoadedModel, portion: int) -> None:
        self.name = model.engine.name
        self.portion = portion
        self._engine = model.engine

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._engine.predict(batch)


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hasty(settings: Settings) -> Settings:
    """Retries are due after a moment."""
    retry = RetrySettings(limit=2, backoff_seconds=0.001)
    return settings.model_copy(update={"retry": retry})


def answer_until_ended(workplace: Workplace, job_id: str) -> None:
    """Sweep and answer doorbells until the job has ended."""

    def has_ended() -> bool:
        workplace.redis.delete(keys.SWEEPER)
        workplace.ledger.sweep()
        workplace.classifier.answer_doorbell()
        return workplace.get(job_id).state in (JobState.COMPLETED, JobState.FAILED)

    wait_until(has_ended, 10)


# --- A store that can't be read -------------------------------------------------------------------


def test_while_uploads_can_not_be_read_jobs_wait_and_then_complete(
    hasty: Settings, model: LoadedModel
) -> None:
    workplace = Workplace(hasty, model)
    ids = workplace.submit(CAT, CAT)
    folder = payload_folder(hasty)
    away = folder.rename(folder.with_name("away"))
    workplace.classifier.answer_doorbell()
    for job_id in ids:
        job = workplace.get(job_id)
        assert (job.state, job.trail[0]["reason"]) == (JobState.PENDING, "payload_unreadable")
    away.rename(folder)
    for job_id in ids:
        answer_until_ended(workplace, job_id)
        assert workplace.get(job_id).state is JobState.COMPLETED


def test_an_upload_that_can_never_be_read_is_a_dead_letter(
    hasty: Settings, model: LoadedModel
) -> None:
    workplace = Workplace(hasty, model)
    (job_id,) = workplace.submit(CAT)
    upload = payload_folder(hasty) / job_id
    upload.unlink()
    upload.mkdir()
    answer_until_ended(workplace, job_id)
    job = workplace.get(job_id)
    assert job.death_reason == DeathReason.RETRIES_EXHAUSTED
    assert [note["reason"] for note in job.trail] == ["payload_unreadable"] * 3


def test_an_upload_that_can_not_be_read_takes_nobody_with_it(
    hasty: Settings, model: LoadedModel
) -> None:
    workplace = Workplace(hasty, model)
    first, unreadable, last = workplace.submit(CAT, CAT, CAT)
    upload = payload_folder(hasty) / unreadable
    upload.unlink()
    upload.mkdir()
    workplace.classifier.answer_doorbell()
    states = [workplace.get(job_id).state for job_id in (first, unreadable, last)]
    assert states == [JobState.COMPLETED, JobState.PENDING, JobState.COMPLETED]


# --- An engine in trouble -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("onnxruntime: Failed to allocate memory for 5 GB")]
)
def test_an_engine_out_of_memory_is_tried_again(
    hasty: Settings, model: LoadedModel, error: Exception
) -> None:
    troubled = TroubledModel(model, error)
    workplace = Workplace(hasty, troubled)
    good, dark = workplace.submit(CAT, BLACK)
    workplace.classifier.answer_doorbell()
    assert workplace.get(good).state is JobState.COMPLETED
    job = workplace.get(dark)
    assert (job.state, job.trail[0]["reason"]) == (JobState.PENDING, "out_of_memory")
    troubled.error = None
    answer_until_ended(workplace, dark)
    assert workplace.get(dark).state is JobState.COMPLETED


def test_a_decoder_out_of_memory_is_tried_again(
    hasty: Settings, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    workplace = Workplace(hasty, model)
    (job_id,) = workplace.submit(CAT)
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", _raise_memory_error)
        workplace.classifier.answer_doorbell()
    job = workplace.get(job_id)
    assert (job.state, job.trail[0]["reason"]) == (JobState.PENDING, "out_of_memory")
    answer_until_ended(workplace, job_id)
    assert workplace.get(job_id).state is JobState.COMPLETED


def _raise_memory_error(*_: object, **__: object) -> None:
    raise MemoryError


def test_an_image_that_the_engine_refuses_is_a_dead_letter_with_the_reason(
    settings: Settings, model: LoadedModel
) -> None:
    workplace = Workplace(settings, TroubledModel(model, ValueError("too dark")))
    good, dark, fine = workplace.submit(CAT, BLACK, CAT)
    workplace.classifier.answer_doorbell()
    assert {workplace.get(job_id).state for job_id in (good, fine)} == {JobState.COMPLETED}
    job = workplace.get(dark)
    assert (job.state, job.death_reason) == (JobState.FAILED, DeathReason.UNPROCESSABLE)
    assert job.trail[0]["reason"] == "ValueError: too dark"
    assert workplace.payloads.read_many([good, dark, fine]) == [None, BLACK, None]


class TroubledStore(FilePayloads):
    """A real store in which reading fails once."""

    error: BaseException | None = None

    def read_many(self, job_ids: Sequence[str]) -> list[bytes | None]:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return super().read_many(job_ids)


def create_with_troubled_store(
    settings: Settings, model: LoadedModel, error: BaseException
) -> Workplace:
    store = TroubledStore(payload_folder(settings))
    store.error = error
    return Workplace(settings, model, payloads=store)


def test_uploads_that_memory_is_too_short_for_together_are_read_one_by_one(
    settings: Settings, model: LoadedModel
) -> None:
    workplace = create_with_troubled_store(settings, model, MemoryError())
    ids = workplace.submit(CAT, CAT)
    workplace.classifier.answer_doorbell()
    assert {workplace.get(job_id).state for job_id in ids} == {JobState.COMPLETED}


def test_an_error_that_nobody_expected_counts_and_the_worker_goes_on(
    settings: Settings, model: LoadedModel
) -> None:
    """Or the same batch would fail for ever."""
    workplace = create_with_troubled_store(settings, model, ZeroDivisionError())
    (job_id,) = workplace.submit(CAT)
    workplace.classifier.answer_doorbell()
    assert workplace.get(job_id).trail[0]["reason"] == "worker_lost"
    assert workplace.redis.hget(keys.job(job_id), "losses") == b"1"
    workplace.classifier.answer_doorbell()
    assert workplace.get(job_id).state is JobState.COMPLETED


# --- Interruptions --------------------------------------------------------------------------------


def interrupt_in_the_middle(
    settings: Settings, model: LoadedModel, error: BaseException
) -> tuple[Workplace, list[str]]:
    """Six images in portions of two; the signal comes in the second one."""
    workplace = Workplace(settings, TroubledModel(model, error, portion=2), Clock())
    ids = workplace.submit(CAT, CAT, CAT, BLACK, CAT, CAT)
    workplace.classifier.answer_doorbell()
    return workplace, ids


def test_a_batch_that_takes_too_long_costs_only_those_that_were_under_way(
    settings: Settings, model: LoadedModel
) -> None:
    workplace, ids = interrupt_in_the_middle(settings, model, SoftTimeLimitExceeded())
    jobs = [workplace.get(job_id) for job_id in ids]
    states = [job.state for job in jobs]
    assert states == [JobState.COMPLETED] * 2 + [JobState.PENDING] * 4
    reasons = [job.trail[0]["reason"] for job in jobs[2:]]
    assert reasons == ["timed_out", "timed_out", "handed_back", "handed_back"]
    solo = [workplace.redis.hget(keys.job(job_id), "solo") for job_id in ids[2:]]
    assert solo == [b"1", b"1", None, None]
    assert None not in workplace.payloads.read_many(ids[2:])


def test_a_worker_that_has_to_end_hands_everything_back_unharmed(
    settings: Settings, model: LoadedModel
) -> None:
    workplace, ids = interrupt_in_the_middle(settings, model, HandBackRequested())
    jobs = [workplace.get(job_id) for job_id in ids]
    assert [job.state for job in jobs] == [JobState.COMPLETED] * 2 + [JobState.PENDING] * 4
    assert {job.trail[0]["reason"] for job in jobs[2:]} == {"handed_back"}
    assert not any(workplace.redis.hexists(keys.job(job_id), "losses") for job_id in ids)
    assert workplace.redis.exists(keys.LEASES, keys.holder("holder")) == 0


def test_an_image_that_always_takes_too_long_is_a_dead_letter_and_no_other_is(
    settings: Settings, model: LoadedModel
) -> None:
    workplace, ids = interrupt_in_the_middle(settings, model, SoftTimeLimitExceeded())
    while workplace.classifier.answer_doorbell():
        pass
    assert workplace.get(ids[3]).death_reason == DeathReason.TIMED_OUT
    others = [workplace.get(job_id).state for job_id in ids[:3] + ids[4:]]
    assert others == [JobState.COMPLETED] * 5
