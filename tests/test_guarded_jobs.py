"""Jobs whose images promise cost, or whose worker was lost: they end, and hold nobody up."""

import os
import signal

import pytest

from app.core import keys
from app.core.config import Settings
from app.jobs.job import Answer, DeathReason, JobState
from app.jobs.payload_stores import payload_folder
from app.models.ml_models import LoadedModel
from app.tasks import classification
from app.tasks.guarded_jobs import guarded_holder_name
from tests.image_files import make_png
from tests.jpeg_files import PROGRESSIVE, Scan, make_jpeg, render_frame
from tests.workplace import MoodyEngine, Workplace, read_sample

CAT = read_sample("cat.jpg")
# 16 MP with eight bytes a pixel: too much for a worker process, and quick for a decoder.
COSTLY = make_png(4_000, 4_000, bytes(4_000 * 32_001), 16, 6)
# Two seconds of a processor.
SLOW = make_jpeg(render_frame(10_000, 5_000, PROGRESSIVE), [Scan(), *[Scan(high=1)] * 19])


@pytest.fixture
def workplace(settings: Settings, model: LoadedModel) -> Workplace:
    return Workplace(settings, model)


def assert_nothing_is_held(workplace: Workplace) -> None:
    holders = workplace.redis.keys(f"{keys.HOLDER}*")
    assert holders == [] and workplace.redis.zcard(keys.LEASES) == 0


def test_a_costly_image_and_its_neighbours_are_classified(workplace: Workplace) -> None:
    ids = workplace.submit(CAT, COSTLY, CAT, COSTLY)
    assert workplace.classifier.answer_doorbell() == 4
    jobs = [workplace.get(job_id) for job_id in ids]
    assert [(job.state, job.attempts) for job in jobs] == [(JobState.COMPLETED, 1)] * 4
    assert "cat" in jobs[0].predictions[0]["class_name"]
    assert_nothing_is_held(workplace)


def test_neighbours_end_first_although_they_came_later(workplace: Workplace) -> None:
    costly, *cats = workplace.submit(COSTLY, *[CAT] * 20)
    workplace.classifier.answer_doorbell()
    entries = [entry for _, entry in workplace.redis.xrange(keys.HISTORY)]
    ended = [entry[b"job"].decode() for entry in entries if entry[b"state"] == b"completed"]
    assert ended == [*cats, costly]


def test_too_much_time_fails_the_job_at_once_and_nobody_else(
    settings: Settings, model: LoadedModel
) -> None:
    worker = settings.worker.model_copy(update={"decode_seconds": 1})
    workplace = Workplace(settings.model_copy(update={"worker": worker}), model)
    before, slow, after = workplace.submit(CAT, SLOW, CAT)
    workplace.classifier.answer_doorbell()
    job = workplace.get(slow)
    assert (job.state, job.error["code"]) == (JobState.FAILED, "image-too-costly")
    assert (job.attempts, job.trail, job.death_reason) == (1, [], "")
    assert workplace.redis.zcard(keys.DEAD) == 0
    assert [workplace.get(cat).attempts for cat in (before, after)] == [1, 1]
    assert [workplace.get(cat).state for cat in (before, after)] == ["completed"] * 2
    assert workplace.payloads.read_many([slow]) == [None]


def test_scans_without_end_fail_without_being_decoded(workplace: Workplace) -> None:
    scans = [Scan(), *[Scan((1,), 1, 63)] * 100]
    (job_id,) = workplace.submit(make_jpeg(render_frame(10_000, 5_000, PROGRESSIVE), scans))
    workplace.classifier.answer_doorbell()
    assert workplace.get(job_id).error["code"] == "image-too-costly"


def test_a_suspect_is_decoded_under_guard(workplace: Workplace) -> None:
    (job_id,) = workplace.submit(CAT)
    workplace.ledger.claim("gone", Answer("m", "1", "onnxruntime"))
    workplace.ledger.release("gone", DeathReason.WORKER_LOST)
    (claim,) = workplace.ledger.claim("next", Answer("m", "1", "onnxruntime")).claims
    assert claim.is_suspect
    workplace.ledger.hand_back("next")
    workplace.classifier.answer_doorbell()
    assert workplace.get(job_id).state is JobState.COMPLETED
    assert_nothing_is_held(workplace)


def test_a_damaged_suspect_fails_as_any_other(workplace: Workplace) -> None:
    (job_id,) = workplace.submit(CAT[: len(CAT) // 2])
    workplace.ledger.claim("gone", Answer("m", "1", "onnxruntime"))
    workplace.ledger.release("gone", DeathReason.WORKER_LOST)
    workplace.classifier.answer_doorbell()
    assert workplace.get(job_id).error["code"] == "truncated-image"


def test_a_costly_image_whose_upload_is_gone_fails_with_a_reason(workplace: Workplace) -> None:
    (job_id,) = workplace.submit(COSTLY)
    (payload_folder(workplace.settings) / job_id).unlink()
    workplace.classifier.answer_doorbell()
    assert workplace.get(job_id).error["code"] == "payload-lost"


class Interruption(MoodyEngine):
    """A real engine whose process is told to stop while it classifies the first image."""

    def predict(self, batch: object) -> None:
        raise SystemExit


def test_what_waits_for_its_decoder_goes_back_with_the_rest(
    settings: Settings, model: LoadedModel
) -> None:
    workplace = Workplace(settings, LoadedModel(model.manifest, Interruption(model)))
    ids = workplace.submit(SLOW, CAT, SLOW)
    with pytest.raises(SystemExit):
        workplace.classifier.answer_doorbell()
    jobs = [workplace.get(job_id) for job_id in ids]
    assert {job.state for job in jobs} == {JobState.PENDING}
    assert [note["reason"] for job in jobs for note in job.trail] == ["handed_back"] * 3
    assert_nothing_is_held(workplace)


def test_what_an_outage_left_behind_is_handed_back_first(workplace: Workplace) -> None:
    """The ledger moved a claim, and its answer was lost."""
    answer = Answer("m", "1", "onnxruntime")
    (job_id,) = workplace.submit(CAT)
    claims = workplace.ledger.claim("holder", answer).claims
    workplace.ledger.move("holder", guarded_holder_name("holder"), claims)
    # Whoever claims by its first name is not given it again.
    assert workplace.ledger.claim("holder", answer).claims == []
    workplace.ledger.hand_back(guarded_holder_name("holder"))
    workplace.classifier.answer_doorbell()
    assert (workplace.get(job_id).state, workplace.get(job_id).attempts) == ("completed", 2)


def test_where_there_is_no_guard_a_costly_image_is_refused(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classification, "CAN_GUARD", False)
    costly, cat = workplace.submit(COSTLY, CAT)
    workplace.classifier.answer_doorbell()
    assert workplace.get(costly).error["code"] == "image-too-costly"
    assert workplace.get(cat).state is JobState.COMPLETED


def test_where_there_is_no_guard_a_suspect_is_decoded_as_others_are(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classification, "CAN_GUARD", False)
    (job_id,) = workplace.submit(CAT)
    workplace.ledger.claim("holder", Answer("m", "1", "onnxruntime"))
    workplace.ledger.release("holder", DeathReason.WORKER_LOST)
    workplace.classifier.answer_doorbell()
    assert workplace.get(job_id).state is JobState.COMPLETED


def test_only_claims_that_are_held_are_moved(workplace: Workplace) -> None:
    (job_id,) = workplace.submit(CAT)
    claims = workplace.ledger.claim("holder", Answer("m", "1", "onnxruntime")).claims
    workplace.ledger.release("holder", DeathReason.WORKER_LOST)
    workplace.ledger.move("holder", "other", claims)
    assert not workplace.redis.exists(keys.holder("other"))
    assert workplace.get(job_id).state is JobState.PENDING


def test_an_image_that_promised_nothing_costs_its_worker_and_runs_again_under_guard(
    settings: Settings, model: LoadedModel, workplace: Workplace
) -> None:
    # Twelve million pixels take longer than a worker process has here.
    (job_id,) = workplace.submit(make_png(4_000, 3_000, bytes(4_000 * 9_003), colour=2))
    worker = settings.worker.model_copy(update={"decode_seconds": 0.02})
    child = os.fork()
    if not child:
        hurried = Workplace(settings.model_copy(update={"worker": worker}), model)
        hurried.classifier.answer_doorbell()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGPROF
    # As the worker's main process does.
    workplace.ledger.release("holder", DeathReason.WORKER_LOST)
    workplace.classifier.answer_doorbell()
    job = workplace.get(job_id)
    assert (job.state, job.attempts) == (JobState.COMPLETED, 2)
    assert [note["reason"] for note in job.trail] == ["worker_lost"]
