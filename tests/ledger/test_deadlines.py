"""Deadlines: a job whose time is up is never run."""

import pytest

from app.core import keys
from app.jobs.job import DeathReason, JobState
from tests.ledger.ledger_under_test import (
    ANSWER,
    LONG_MS,
    RESULT_SECONDS,
    LedgerUnderTest,
    completed,
    retry,
)
from tests.service import wait_until


def submit_late(under_test: LedgerUnderTest) -> str:
    """A job whose deadline has passed while it waited."""
    job_id = under_test.submit(patience_ms=1)
    deadline_ms = under_test.redis.zscore(keys.DEADLINES, job_id)
    wait_until(lambda: under_test.now_ms() > deadline_ms)
    return job_id


def assert_expired(under_test: LedgerUnderTest, job_id: str) -> None:
    job = under_test.get(job_id)
    assert (job.state, job.error["code"]) == (JobState.FAILED, "deadline-exceeded")
    assert (job.death_reason, under_test.members(keys.DEAD)) == ("", [])
    assert under_test.redis.exists(keys.DEADLINES, keys.DELAYED, keys.LEASES) == 0
    assert 0 < under_test.redis.ttl(keys.job(job_id)) <= RESULT_SECONDS
    assert under_test.backlog_bytes() == 0


def test_a_job_whose_time_is_up_is_not_claimed(under_test: LedgerUnderTest) -> None:
    job_id = submit_late(under_test)
    turn = under_test.ledger.claim("w", ANSWER)
    assert (turn.claims, turn.ended) == ([], [job_id])
    assert_expired(under_test, job_id)
    assert under_test.get(job_id).attempts == 0


def test_those_behind_it_are_claimed(under_test: LedgerUnderTest) -> None:
    late = [submit_late(under_test) for _ in range(3)]
    ids = under_test.submit_many(4)
    turn = under_test.ledger.claim("w", ANSWER)
    assert [claim.job_id for claim in turn.claims] == ids
    assert turn.ended == late


def test_the_sweeper_ends_jobs_whose_time_is_up(under_test: LedgerUnderTest) -> None:
    job_id = submit_late(under_test)
    assert under_test.ledger.sweep()[1] == [job_id]
    assert_expired(under_test, job_id)
    assert under_test.ledger.claim("w", ANSWER) == ([], [])


def test_also_while_they_wait_for_a_retry(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit(patience_ms=LONG_MS)
    (claim,) = under_test.claim()
    under_test.ledger.finish([retry(claim)])
    under_test.let_deadline_pass(job_id)
    assert under_test.ledger.sweep()[1] == [job_id]
    assert_expired(under_test, job_id)


def test_a_job_that_has_time_left_is_left_alone(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit(patience_ms=LONG_MS)
    under_test.ledger.sweep()
    (claim,) = under_test.claim()
    assert claim.job_id == job_id
    assert claim.patience_ms == pytest.approx(LONG_MS, abs=LONG_MS / 10)


def test_a_job_that_runs_may_end_after_its_deadline(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit(patience_ms=LONG_MS)
    (claim,) = under_test.claim()
    under_test.let_deadline_pass(job_id)
    assert under_test.ledger.sweep()[1] == []
    assert under_test.get(job_id).state is JobState.PROCESSING
    assert under_test.ledger.finish([completed(claim)]) == [job_id]
    assert under_test.get(job_id).state is JobState.COMPLETED
    assert under_test.redis.exists(keys.DEADLINES) == 0


@pytest.mark.parametrize("swept_before", [True, False])
@pytest.mark.parametrize("healthy", [True, False])
def test_a_job_that_is_taken_back_after_its_deadline_has_ended(
    under_test: LedgerUnderTest, healthy: bool, swept_before: bool
) -> None:
    job_id = under_test.submit(patience_ms=LONG_MS)
    under_test.claim()
    under_test.let_deadline_pass(job_id)
    if swept_before:
        under_test.ledger.sweep()
    if healthy:
        ended = under_test.ledger.hand_back("w")
    else:
        ended = under_test.ledger.release("w", DeathReason.WORKER_LOST)
    assert ended == [job_id]
    assert under_test.waiting() == []
    assert_expired(under_test, job_id)


def test_a_lease_that_runs_out_after_the_deadline_ends_the_job(
    under_test: LedgerUnderTest,
) -> None:
    job_id = under_test.submit(patience_ms=LONG_MS)
    under_test.claim()
    under_test.let_deadline_pass(job_id)
    under_test.let_lease_run_out(job_id)
    assert under_test.ledger.sweep() == (1, [job_id])
    assert_expired(under_test, job_id)


def test_a_job_to_be_tried_again_after_its_deadline_has_ended_by_the_next_sweep(
    under_test: LedgerUnderTest,
) -> None:
    job_id = under_test.submit(patience_ms=LONG_MS)
    (claim,) = under_test.claim()
    under_test.let_deadline_pass(job_id)
    under_test.ledger.sweep()
    under_test.ledger.finish([retry(claim)])
    under_test.sweep_until(
        under_test.ledger, lambda: under_test.get(job_id).state is not JobState.PENDING
    )
    assert_expired(under_test, job_id)


def test_a_claim_that_is_given_again_says_what_time_is_left(under_test: LedgerUnderTest) -> None:
    under_test.submit(patience_ms=LONG_MS)
    under_test.claim()
    (again,) = under_test.claim()
    assert again.patience_ms == pytest.approx(LONG_MS, abs=LONG_MS / 10)


def test_a_claim_that_is_given_again_after_the_deadline_says_so(
    under_test: LedgerUnderTest,
) -> None:
    job_id = under_test.submit(patience_ms=LONG_MS)
    under_test.claim()
    under_test.let_deadline_pass(job_id)
    (again,) = under_test.claim()
    assert (again.job_id, again.patience_ms) == (job_id, 0)


def test_jobs_that_ended_in_the_queue_no_longer_count_as_waiting(
    under_test: LedgerUnderTest,
) -> None:
    for _ in range(3):
        submit_late(under_test)
    under_test.ledger.sweep()
    _, backlog = under_test.try_to_submit()
    assert backlog.jobs == 1
