"""What a worker process does when a doorbell rings: real ledger, real payloads, real model."""

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from numpy.typing import NDArray

from app.core import keys
from app.core.config import PayloadSettings, RetrySettings, Settings
from app.jobs.answer_options import AnswerOptions
from app.jobs.file_payloads import FilePayloads
from app.jobs.job import Answer, DeathReason, JobState
from app.jobs.payload_stores import payload_folder
from app.models.ml_models import ClassPrediction, LoadedModel
from tests.live_listener import LiveListener
from tests.workplace import HastyClock, MoodyEngine, OneByOne, Workplace, read_sample


@pytest.fixture(params=["files", "redis"])
def workplace(request: pytest.FixtureRequest, settings: Settings, model: LoadedModel) -> Workplace:
    store = PayloadSettings(store=request.param)
    return Workplace(settings.model_copy(update={"payload": store}), model)


def test_a_batch_of_images_is_classified(workplace: Workplace) -> None:
    cat, coffee = workplace.submit(read_sample("cat.jpg"), read_sample("coffee.jpg"))
    assert workplace.classifier.answer_doorbell() == 2
    assert "cat" in workplace.get(cat).predictions[0]["class_name"]
    assert workplace.get(coffee).predictions[0]["class_name"] in ("espresso", "cup", "coffee mug")


def test_predictions_are_five_and_ordered(workplace: Workplace) -> None:
    (job_id,) = workplace.submit(read_sample("cat.jpg"))
    workplace.classifier.answer_doorbell()
    confidences = [item["confidence"] for item in workplace.get(job_id).predictions]
    assert len(confidences) == 5
    assert confidences == sorted(confidences, reverse=True)
    assert 0 < sum(confidences) <= 1


@pytest.mark.parametrize(("top_k", "count"), [(1, 1), (7, 7), (100, 100)])
def test_a_sender_has_as_many_predictions_as_it_wants(
    workplace: Workplace, top_k: int, count: int
) -> None:
    image = read_sample("cat.jpg")
    (usual,) = workplace.submit(image)
    (chosen,) = workplace.submit(image, options=AnswerOptions(top_k=top_k))
    workplace.classifier.answer_doorbell()
    five, others = workplace.get(usual).predictions, workplace.get(chosen).predictions
    assert (len(five), len(others)) == (5, count)
    assert others[:5] == five[:count]


def test_a_sender_has_no_predictions_below_its_threshold(workplace: Workplace) -> None:
    image = read_sample("cat.jpg")
    (usual,) = workplace.submit(image)
    (some,) = workplace.submit(image, options=AnswerOptions(threshold=0.2))
    (none,) = workplace.submit(image, options=AnswerOptions(threshold=1.0))
    workplace.classifier.answer_doorbell()
    five = workplace.get(usual).predictions
    expected = [item for item in five if item["confidence"] >= 0.2]
    assert 0 < len(expected) < 5
    assert workplace.get(some).predictions == expected
    assert (workplace.get(none).state, workplace.get(none).predictions) == ("completed", [])


def test_a_job_that_names_the_workers_model_is_answered(
    workplace: Workplace, model: LoadedModel
) -> None:
    options = AnswerOptions(model=model.manifest.name)
    (job_id,) = workplace.submit(read_sample("cat.jpg"), options=options)
    workplace.classifier.answer_doorbell()
    assert workplace.get(job_id).state is JobState.COMPLETED


def test_a_job_that_names_another_model_waits_for_another_worker_and_then_fails(
    settings: Settings, model: LoadedModel
) -> None:
    retry = RetrySettings(limit=1)
    workplace = Workplace(settings.model_copy(update={"retry": retry}), model)
    (job_id,) = workplace.submit(read_sample("cat.jpg"), options=AnswerOptions(model="other"))
    workplace.classifier.answer_doorbell()
    assert workplace.get(job_id).state is JobState.PENDING
    workplace.redis.zadd(keys.DELAYED, {job_id: 1}, xx=True)
    workplace.ledger.sweep()
    workplace.classifier.answer_doorbell()
    job = workplace.get(job_id)
    assert (job.state, job.error["code"]) == (JobState.FAILED, "model-unavailable")
    assert [note["reason"] for note in job.trail] == ["other_model"] * 2


def test_the_record_names_model_and_engine(workplace: Workplace, model: LoadedModel) -> None:
    (job_id,) = workplace.submit(read_sample("cat.jpg"))
    workplace.classifier.answer_doorbell()
    job = workplace.get(job_id)
    assert (job.model, job.model_version) == (model.manifest.name, model.manifest.version)
    assert job.engine == "onnxruntime"


def test_the_upload_is_erased_when_its_job_ends(workplace: Workplace) -> None:
    ids = workplace.submit(read_sample("cat.jpg"), b"\xff\xd8\xff damaged")
    workplace.classifier.answer_doorbell()
    assert workplace.payloads.read_many(ids) == [None, None]


def test_a_damaged_image_fails_alone(workplace: Workplace) -> None:
    image = read_sample("cat.jpg")
    before, damaged, after = workplace.submit(image, image[: len(image) // 2], image)
    workplace.classifier.answer_doorbell()
    assert workplace.get(before).state is JobState.COMPLETED
    assert workplace.get(after).state is JobState.COMPLETED
    job = workplace.get(damaged)
    assert (job.state, job.error["code"]) == (JobState.FAILED, "truncated-image")


def test_a_job_whose_upload_is_gone_fails_with_a_reason(workplace: Workplace) -> None:
    (job_id,) = workplace.submit(read_sample("cat.jpg"))
    workplace.redis.delete(keys.payload(job_id))
    (payload_folder(workplace.settings) / job_id).unlink(missing_ok=True)
    workplace.classifier.answer_doorbell()
    assert workplace.get(job_id).error["code"] == "payload-lost"


def test_a_large_upload_arrives_whole(workplace: Workplace) -> None:
    """Larger than one piece, so that it is written in several."""
    data = bytes(range(256)) * 12_000
    (job_id,) = workplace.submit(data)
    assert workplace.payloads.read_many([job_id]) == [data]


def test_a_doorbell_too_many_does_nothing(workplace: Workplace) -> None:
    assert workplace.classifier.answer_doorbell() == 0
    assert workplace.redis.exists(keys.DOORBELLS) == 0


def black_png() -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (300, 300)).save(file, "PNG")
    return file.getvalue()


def test_an_image_that_upsets_the_engine_takes_nobody_with_it(
    settings: Settings, model: LoadedModel
) -> None:
    workplace = Workplace(settings, LoadedModel(model.manifest, MoodyEngine(model)))
    good, dark, fine = workplace.submit(
        read_sample("cat.jpg"), black_png(), read_sample("coffee.jpg")
    )
    workplace.classifier.answer_doorbell()
    states = [workplace.get(job_id).state for job_id in (good, dark, fine)]
    assert states == [JobState.COMPLETED, JobState.FAILED, JobState.COMPLETED]
    assert workplace.get(dark).error["code"] == "classification-failed"


def test_numbers_that_are_no_probabilities_fail_the_job(
    settings: Settings, model: LoadedModel
) -> None:
    class BrokenEngine(MoodyEngine):
        def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
            return np.full((len(batch), 1000), np.nan, dtype=np.float32)

    workplace = Workplace(settings, LoadedModel(model.manifest, BrokenEngine(model)))
    (job_id,) = workplace.submit(read_sample("cat.jpg"))
    workplace.classifier.answer_doorbell()
    assert workplace.get(job_id).error["code"] == "classification-failed"


class InterruptedModel(LoadedModel):
    """A model whose process is told to stop in the middle."""

    def classify(self, *_: object) -> list[list[ClassPrediction]]:
        raise SystemExit


def test_an_interrupted_batch_goes_back_to_the_queue(
    settings: Settings, model: LoadedModel
) -> None:
    workplace = Workplace(settings, InterruptedModel(model.manifest, model.engine))
    ids = workplace.submit(read_sample("cat.jpg"), read_sample("coffee.jpg"))
    with pytest.raises(SystemExit):
        workplace.classifier.answer_doorbell()
    assert {workplace.get(job_id).state for job_id in ids} == {JobState.PENDING}
    # Each will run alone; whoever answers the bell goes on with the second.
    assert workplace.redis.llen(keys.DOORBELLS) == 1
    assert None not in workplace.payloads.read_many(ids)


def test_one_doorbell_is_enough_for_all_that_waits(workplace: Workplace) -> None:
    many = 2 * workplace.settings.queue.batch_size + 1
    ids = workplace.submit(*[read_sample("cat.jpg")] * many)
    assert workplace.classifier.answer_doorbell() == many
    assert {workplace.get(job_id).state for job_id in ids} == {JobState.COMPLETED}


def test_after_a_while_the_rest_is_left_to_the_next_doorbell(
    settings: Settings, model: LoadedModel
) -> None:
    """Time limits are counted from the doorbell, so nobody goes on from one for ever."""
    workplace = Workplace(settings, model, HastyClock())
    batch = settings.queue.batch_size
    workplace.submit(*[read_sample("cat.jpg")] * (2 * batch + 1))
    assert workplace.classifier.answer_doorbell() < 2 * batch + 1
    assert workplace.redis.llen(keys.QUEUE) > 0
    assert workplace.redis.llen(keys.DOORBELLS) > 0


class LateJob(FilePayloads):
    """Submits a job as soon as the first one has ended and nothing else was found to do."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(payload_folder(settings))
        self.submit: Callable[[], object] = lambda: None

    def delete_many(self, job_ids: Iterable[str]) -> None:
        super().delete_many(job_ids)
        submit, self.submit = self.submit, lambda: None
        submit()


def test_a_process_hears_itself_of_a_job_that_comes_soon_after(
    settings: Settings, model: LoadedModel
) -> None:
    payloads = LateJob(settings)
    workplace = Workplace(settings, model, payloads=payloads)
    payloads.submit = lambda: workplace.submit(read_sample("coffee.jpg"))
    workplace.submit(read_sample("cat.jpg"))
    assert workplace.classifier.answer_doorbell() == 2
    assert workplace.redis.llen(keys.DOORBELLS) == 0


class Pacemaker(MoodyEngine):
    """A real engine that takes so many seconds an image, on a clock of its own."""

    portion = 2

    def __init__(self, model: LoadedModel) -> None:
        super().__init__(model)
        self.now = 0.0
        self.seconds = 0.0

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.now += self.seconds * len(batch)
        return super().predict(batch)


def test_a_process_claims_what_it_can_do_before_the_next_report(
    settings: Settings, model: LoadedModel
) -> None:
    """Fifty milliseconds: more would keep the first waiting for the last, and cost a round trip."""
    engine = Pacemaker(model)
    workplace = Workplace(settings, LoadedModel(model.manifest, engine), lambda: engine.now)
    image = read_sample("cat.jpg")

    def largest_batch(seconds: float) -> int:
        engine.seconds = seconds
        workplace.redis.delete(keys.HISTORY)
        workplace.submit(*[image] * 40)
        while workplace.classifier.answer_doorbell():
            pass
        states = [entry[b"state"] for _, entry in workplace.redis.xrange(keys.HISTORY)]
        runs = itertools.groupby(states[-60:])
        return max(len(list(run)) for state, run in runs if state == b"processing")

    assert largest_batch(0.012) == 4
    assert largest_batch(1.0) == 2
    assert largest_batch(0.001) == settings.queue.batch_size


def test_a_slow_batch_shows_real_stages_and_ends_jobs_one_by_one(
    settings: Settings, model: LoadedModel
) -> None:
    workplace = Workplace(settings, LoadedModel(model.manifest, OneByOne(model)), HastyClock())
    listener = LiveListener(workplace.redis)
    first, second = workplace.submit(read_sample("cat.jpg"), read_sample("cat.jpg"))
    listener.watch(first)
    listener.watch(second)
    workplace.classifier.answer_doorbell()
    events = []
    while message := listener.next_message():
        for job_id, record in message:
            if job_id == second:
                events.append((record["state"], int(record["progress"]), record["stage"]))
            elif record["state"] == "completed":
                events.append(("the first is completed",))
    assert events == [
        ("processing", 0, ""),
        ("processing", 10, "loading"),
        ("the first is completed",),
        ("processing", 20, "decoding"),
        ("processing", 50, "classifying"),
        ("completed", 100, ""),
    ]


def test_only_the_holder_of_the_latest_attempt_ends_a_job(workplace: Workplace) -> None:
    (job_id,) = workplace.submit(read_sample("cat.jpg"))
    workplace.ledger.claim("gone", Answer("m", "1", "torch"))
    workplace.ledger.release("gone", DeathReason.WORKER_LOST)
    workplace.classifier.answer_doorbell()
    assert (workplace.get(job_id).state, workplace.get(job_id).attempts) == ("completed", 2)


def test_the_web_application_imports_neither_model_libraries_nor_celery() -> None:
    program = (
        "import sys, app.main; "
        "names = 'torch', 'onnxruntime', 'openvino', 'PIL', 'numpy', 'celery', 'kombu'; "
        "print([name for name in names if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr
