"""Batches in the ledger: all or none, counted where jobs end, kept until all can be read."""

from typing import Any

import pytest

from app.core import keys
from app.core.errors import BatchNotFoundError, QueueFullError, ResultsFullError
from app.jobs.batch import BatchState
from app.jobs.job import JobState, Priority, render_error
from tests.ledger.ledger_under_test import (
    DEAD_LETTER_SECONDS,
    RESULT_SECONDS,
    UPLOAD_BYTES,
    LedgerUnderTest,
    completed,
    make_images,
    memory_limit_reached,
    retry,
    unprocessable,
)

REFUSED = render_error("empty-file", "The file is empty.")


def complete_all(under_test: LedgerUnderTest) -> None:
    while claims := under_test.claim():
        under_test.ledger.finish([completed(claim) for claim in claims])


def test_the_jobs_of_a_batch_wait_in_its_order_behind_interactive_ones(
    under_test: LedgerUnderTest,
) -> None:
    images = make_images(3)
    under_test.submit_batch(images)
    first = under_test.submit(priority=Priority.INTERACTIVE)
    assert under_test.waiting() == [first, *(image.job_id for image in images)]
    assert under_test.backlog_bytes() == 4 * UPLOAD_BYTES


def test_a_batch_that_is_sent_twice_is_there_once(under_test: LedgerUnderTest) -> None:
    """The client repeats a call whose answer was lost."""
    images = make_images(3)
    batch_id = under_test.submit_batch(images)
    under_test.submit_batch(images, batch_id)
    assert (under_test.get_batch(batch_id).total, len(under_test.waiting())) == (3, 3)
    assert under_test.backlog_bytes() == 3 * UPLOAD_BYTES


@pytest.mark.parametrize("rules", [{"max_jobs": 4}, {"max_bytes": 5 * UPLOAD_BYTES - 1}])
def test_a_batch_is_accepted_whole_or_not_at_all(server_url: str, rules: dict[str, Any]) -> None:
    under_test = LedgerUnderTest(server_url, **rules)
    under_test.submit_many(2)
    before = sorted(under_test.redis.keys())
    with pytest.raises(QueueFullError):
        under_test.submit_batch(make_images(3))
    assert sorted(under_test.redis.keys()) == before
    under_test.submit_batch(make_images(2))


def test_images_that_were_refused_need_no_room(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, max_jobs=2)
    batch_id = under_test.submit_batch(make_images(2) + make_images(5, error=REFUSED))
    assert under_test.get_batch(batch_id).counts[JobState.FAILED] == 5
    assert under_test.backlog_bytes() == 2 * UPLOAD_BYTES


def test_a_job_that_was_refused_has_a_history_of_its_own(under_test: LedgerUnderTest) -> None:
    (image,) = make_images(1, error=REFUSED)
    under_test.submit_batch([image])
    job = under_test.get(image.job_id)
    assert (job.state, job.error["code"]) == (JobState.FAILED, "empty-file")
    assert under_test.history(image.job_id) == ["pending", "failed"]
    assert under_test.redis.ttl(keys.job(image.job_id)) == RESULT_SECONDS


def test_a_full_redis_accepts_none(under_test: LedgerUnderTest) -> None:
    with memory_limit_reached(under_test.redis), pytest.raises(ResultsFullError):
        under_test.submit_batch(make_images(2))
    assert under_test.redis.keys(keys.BATCH + "*") == under_test.waiting() == []


def test_what_was_accepted_ends_though_redis_is_full(under_test: LedgerUnderTest) -> None:
    batch_id = under_test.submit_batch(make_images(2))
    with memory_limit_reached(under_test.redis):
        complete_all(under_test)
    assert under_test.get_batch(batch_id).state is BatchState.COMPLETED


def test_identical_images_end_together(under_test: LedgerUnderTest) -> None:
    under_test.beat()
    images = make_images(3, content="cat")
    batch_id = under_test.submit_batch(images)
    assert len(under_test.waiting()) == 1
    complete_all(under_test)
    assert set(under_test.ended_in_batch(batch_id)) == {image.job_id for image in images}
    again = under_test.submit_batch(make_images(2, content="cat"))
    assert under_test.get_batch(again).has_ended()
    fresh = under_test.submit_batch(make_images(2, content="cat"), is_fresh=True)
    assert under_test.get_batch(fresh).counts[JobState.PENDING] == 2


def test_results_are_kept_until_the_whole_batch_was_there_for_their_time(
    under_test: LedgerUnderTest,
) -> None:
    images = make_images(5)
    batch_id = under_test.submit_batch(images)
    claims = under_test.claim()
    under_test.ledger.finish([completed(claim) for claim in claims])
    names = [keys.job(image.job_id) for image in images]
    names += [keys.batch(batch_id), keys.batch_ended(batch_id), keys.batch_jobs(batch_id)]
    assert {under_test.redis.ttl(name) for name in names} == {-1}
    complete_all(under_test)
    assert {under_test.redis.ttl(name) for name in names} == {RESULT_SECONDS}


def test_a_dead_letter_ends_its_job_and_keeps_its_own_time(under_test: LedgerUnderTest) -> None:
    (image,) = make_images(1)
    batch_id = under_test.submit_batch([image])
    under_test.ledger.finish([unprocessable(claim) for claim in under_test.claim()])
    assert under_test.get_batch(batch_id).counts[JobState.FAILED] == 1
    assert under_test.get_batch(batch_id).has_ended()
    assert under_test.redis.ttl(keys.job(image.job_id)) == DEAD_LETTER_SECONDS


def test_a_dead_letter_that_is_retried_lets_its_batch_run_again(
    under_test: LedgerUnderTest,
) -> None:
    (image,) = make_images(1)
    batch_id = under_test.submit_batch([image])
    under_test.ledger.finish([unprocessable(claim) for claim in under_test.claim()])
    under_test.retry_dead(image.job_id)
    assert under_test.get_batch(batch_id).state is BatchState.PROCESSING
    assert under_test.redis.ttl(keys.batch(batch_id)) == -1
    complete_all(under_test)
    batch = under_test.get_batch(batch_id)
    assert (batch.state, batch.counts[JobState.COMPLETED]) == (BatchState.COMPLETED, 1)
    assert under_test.ended_in_batch(batch_id) == [image.job_id]
    names = (keys.batch(batch_id), keys.job(image.job_id))
    assert {under_test.redis.ttl(name) for name in names} == {RESULT_SECONDS}


def test_a_dead_letter_that_is_retried_outlives_its_batch(under_test: LedgerUnderTest) -> None:
    (image,) = make_images(1)
    batch_id = under_test.submit_batch([image])
    under_test.ledger.finish([unprocessable(claim) for claim in under_test.claim()])
    under_test.redis.delete(keys.batch(batch_id))
    under_test.retry_dead(image.job_id)
    complete_all(under_test)
    assert under_test.redis.ttl(keys.job(image.job_id)) == RESULT_SECONDS
    assert not under_test.redis.exists(keys.batch(batch_id))


def test_a_job_that_waits_for_a_retry_is_pending(under_test: LedgerUnderTest) -> None:
    batch_id = under_test.submit_batch(make_images(1))
    under_test.ledger.finish([retry(claim) for claim in under_test.claim()])
    assert under_test.get_batch(batch_id).counts[JobState.PENDING] == 1


def test_cancelling_reaches_what_waits_for_a_retry_or_for_its_like(
    under_test: LedgerUnderTest,
) -> None:
    delayed = make_images(1)
    batch_id = under_test.submit_batch(delayed + make_images(3, content="cat"))
    claims = under_test.claim()
    under_test.ledger.finish([retry(claims[0])])
    under_test.ledger.hand_back("w")
    under_test.with_batches(lambda batches: batches.cancel(batch_id, "anonymous"))
    batch = under_test.get_batch(batch_id)
    assert (batch.state, batch.counts[JobState.CANCELLED]) == (BatchState.CANCELLED, 4)
    assert (under_test.delayed(), under_test.followers(), under_test.claim()) == ([], [], [])
    assert under_test.backlog_bytes() == 0


def test_somebody_else_has_no_such_batch(under_test: LedgerUnderTest) -> None:
    batch_id = under_test.submit_batch(make_images(1), owner="ann")
    for name in ("get", "cancel", "erase"):
        with pytest.raises(BatchNotFoundError):
            under_test.with_batches(lambda batches: getattr(batches, name)(batch_id, "bob"))
    assert under_test.get_batch(batch_id).counts[JobState.PENDING] == 1


def test_a_thousand_images_ring_a_hundred_bells_at_most(under_test: LedgerUnderTest) -> None:
    under_test.submit_batch(make_images(1000))
    assert (len(under_test.waiting()), under_test.bells()) == (1000, 100)
