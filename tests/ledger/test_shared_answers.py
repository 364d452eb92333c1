"""An answer that many jobs are given takes room once."""

from typing import Any

import pytest

from app.core import keys
from app.jobs.batch import BatchImage
from app.jobs.job import JobState, Outcome, Reception
from tests.ledger.ledger_under_test import (
    PREDICTIONS,
    RESULT_SECONDS,
    LedgerUnderTest,
    completed,
    make_images,
)

LONG_ANSWER = [{"class_name": f"class {number}", "confidence": 0.01} for number in range(100)]


@pytest.fixture
def under_test(under_test: LedgerUnderTest) -> LedgerUnderTest:
    under_test.beat()
    return under_test


def classify(under_test: LedgerUnderTest, predictions: Any = PREDICTIONS) -> str:
    """A job of the content that the others have, classified."""
    job_id = under_test.submit(content="cat")
    claims = under_test.claim()
    under_test.ledger.finish([Outcome.completed(claim, predictions) for claim in claims])
    return job_id


def repeat(under_test: LedgerUnderTest) -> str:
    """A job of the same content, answered at once."""
    job_id = under_test.submit(content="cat")
    assert under_test.get(job_id).state is JobState.COMPLETED
    return job_id


def shelves(under_test: LedgerUnderTest) -> list[bytes]:
    keys_found: list[bytes] = under_test.redis.keys(keys.ANSWERS + "*")
    return keys_found


def test_a_repeated_image_takes_no_room_for_its_answer(under_test: LedgerUnderTest) -> None:
    classify(under_test, LONG_ANSWER)
    repeat(under_test)
    job_id = repeat(under_test)
    assert under_test.get(job_id).predictions == LONG_ANSWER
    assert under_test.redis.memory_usage(keys.job(job_id)) < 700


def test_followers_share_one_copy(under_test: LedgerUnderTest) -> None:
    first, *others = (under_test.submit(content="cat") for _ in range(4))
    under_test.ledger.finish([completed(claim) for claim in under_test.claim()])
    assert [job.predictions for job in under_test.get_many(others)] == [PREDICTIONS] * 3
    assert shelves(under_test) == [keys.answers(first).encode()]


def test_the_copy_outlives_the_job_that_was_classified(under_test: LedgerUnderTest) -> None:
    first = classify(under_test)
    second = repeat(under_test)
    under_test.redis.delete(keys.job(first))
    assert under_test.get(second).predictions == PREDICTIONS


def test_the_copy_is_kept_as_long_as_the_last_job_that_has_it(
    under_test: LedgerUnderTest,
) -> None:
    first = classify(under_test)
    repeat(under_test)
    under_test.redis.pexpire(keys.answers(first), 1000)
    second = repeat(under_test)
    kept_ms = under_test.redis.pttl(keys.answers(first))
    assert under_test.redis.pttl(keys.job(second)) <= kept_ms + 10 <= RESULT_SECONDS * 1000 + 10


def test_an_erased_job_leaves_the_others_their_answer(under_test: LedgerUnderTest) -> None:
    classify(under_test)
    second, third = repeat(under_test), repeat(under_test)
    under_test.erase(second)
    assert under_test.get(third).predictions == PREDICTIONS


def test_the_copy_is_erased_with_the_last_job_that_has_it(under_test: LedgerUnderTest) -> None:
    first = classify(under_test)
    second, third = repeat(under_test), repeat(under_test)
    for job_id in (first, second, third):
        under_test.erase(job_id)
    assert shelves(under_test) == []


def test_a_job_whose_answer_has_expired_has_expired(under_test: LedgerUnderTest) -> None:
    first = classify(under_test)
    second = repeat(under_test)
    under_test.redis.delete(keys.answers(first))
    assert under_test.find(second) is None


# --- Batches --------------------------------------------------------------------------------------


def submit_cats(under_test: LedgerUnderTest, *more: BatchImage) -> tuple[str, list[str]]:
    """A batch of two images that are answered at once, and ``more``."""
    images = [*make_images(2, content="cat"), *more]
    batch_id = under_test.submit_batch(images)
    return batch_id, [image.job_id for image in images]


def test_the_answers_of_a_batch_are_kept_until_it_can_be_read(under_test: LedgerUnderTest) -> None:
    classify(under_test)
    batch_id, (first, second, _) = submit_cats(under_test, *make_images(1))
    assert under_test.redis.pttl(keys.answers(batch_id)) == -1
    assert [job.predictions for job in under_test.get_many([first, second])] == [PREDICTIONS] * 2
    under_test.ledger.finish([completed(claim) for claim in under_test.claim()])
    kept_ms = under_test.redis.pttl(keys.answers(batch_id))
    assert under_test.redis.pttl(keys.job(first)) <= kept_ms + 10


def test_the_answers_of_a_batch_are_erased_with_it(under_test: LedgerUnderTest) -> None:
    classify(under_test)
    batch_id, _ = submit_cats(under_test)
    under_test.with_batches(lambda batches: batches.erase(batch_id, "anonymous"))
    assert shelves(under_test) == []


def test_the_answers_of_a_batch_are_erased_with_its_last_job(under_test: LedgerUnderTest) -> None:
    classify(under_test)
    _, (first, second, _) = submit_cats(under_test, *make_images(1))
    under_test.erase(first)
    assert under_test.get(second).predictions == PREDICTIONS
    under_test.erase(second)
    assert shelves(under_test) == []


def test_a_batch_reads_shared_answers(under_test: LedgerUnderTest) -> None:
    classify(under_test)
    batch_id, ids = submit_cats(under_test)
    lines = under_test.with_batches(lambda batches: batches.read_ended(batch_id, 0, 10))
    assert [(job_id, job.predictions) for job_id, job in lines] == [
        (job_id, PREDICTIONS) for job_id in ids
    ]


def test_the_first_copy_comes_with_the_first_repetition(under_test: LedgerUnderTest) -> None:
    classify(under_test)
    assert shelves(under_test) == []
    reception, _ = under_test.try_to_submit(content="cat")
    assert reception is Reception.ANSWERED
    assert len(shelves(under_test)) == 1
