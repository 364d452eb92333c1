"""Jobs that can't be done now: later, and not for ever. And those that never can."""

import pytest

from app.core import keys
from app.jobs.job import DeathReason, JobState, Outcome
from tests.ledger.ledger_under_test import (
    DEAD_LETTER_SECONDS,
    LONG_MS,
    LedgerUnderTest,
    completed,
    retry,
    unprocessable,
)


def try_once(under_test: LedgerUnderTest) -> None:
    """Claim the job that waits, say "not now", and let the time until its retry pass."""
    (claim,) = under_test.claim()
    under_test.ledger.finish([retry(claim)])
    under_test.let_retry_become_due(claim.job_id)
    under_test.sweep_until(under_test.ledger, lambda: under_test.delayed() == [])


def test_a_job_to_be_tried_again_waits_until_it_is_due(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit()
    (claim,) = under_test.claim()
    assert under_test.ledger.finish([retry(claim)]) == [], "its upload is still needed"
    assert under_test.get(job_id).state is JobState.PENDING
    under_test.ledger.sweep()
    assert under_test.claim() == []
    assert under_test.delayed() == [job_id]
    due = under_test.redis.zscore(keys.DELAYED, job_id)
    assert due == pytest.approx(under_test.now_ms() + LONG_MS, abs=LONG_MS / 10)


def test_it_is_claimed_once_it_is_due(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit()
    (claim,) = under_test.claim()
    under_test.ledger.finish([retry(claim, delay_ms=1)])
    under_test.sweep_until(under_test.ledger, lambda: under_test.waiting() == [job_id])
    (again,) = under_test.claim()
    assert (again.job_id, again.attempt) == (job_id, 2)
    assert under_test.delayed() == []
    assert under_test.ledger.finish([completed(again)]) == [job_id]


def test_a_job_that_waits_for_a_retry_holds_nothing(under_test: LedgerUnderTest) -> None:
    under_test.submit()
    (claim,) = under_test.claim()
    under_test.ledger.finish([retry(claim)])
    assert under_test.redis.exists(keys.LEASES, keys.holder("w"), keys.QUEUE) == 0


def test_it_may_share_a_batch(under_test: LedgerUnderTest) -> None:
    under_test.submit()
    try_once(under_test)
    under_test.submit()
    assert len(under_test.claim()) == 2


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_a_job_is_tried_again_so_often_and_then_is_a_dead_letter(
    server_url: str, limit: int
) -> None:
    under_test = LedgerUnderTest(server_url, retry_limit=limit)
    job_id = under_test.submit()
    for _ in range(limit):
        try_once(under_test)
        assert under_test.waiting() == [job_id]
    try_once(under_test)
    job = under_test.get(job_id)
    assert (job.state, job.death_reason) == (JobState.FAILED, DeathReason.RETRIES_EXHAUSTED)
    assert job.error == {"code": "attempts-exhausted", "detail": "gave up"}
    assert [note["reason"] for note in job.trail] == ["out_of_memory"] * (limit + 1)
    assert [note["attempt"] for note in job.trail] == list(range(1, limit + 2))
    assert under_test.members(keys.DEAD) == [job_id]


def test_retries_do_not_count_as_lost_workers(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, retry_limit=3, max_attempts=2)
    job_id = under_test.submit()
    for _ in range(3):
        try_once(under_test)
    under_test.claim()
    under_test.ledger.release("w", DeathReason.WORKER_LOST)
    assert under_test.waiting() == [job_id]


def test_what_can_never_be_done_is_a_dead_letter_at_once(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit()
    (claim,) = under_test.claim()
    assert under_test.ledger.finish([unprocessable(claim)]) == [], "its upload is kept"
    job = under_test.get(job_id)
    assert (job.state, job.death_reason) == (JobState.FAILED, DeathReason.UNPROCESSABLE)
    assert job.error["code"] == "classification-failed"
    assert [note["reason"] for note in job.trail] == ["ValueError: too dark"]
    assert under_test.members(keys.DEAD) == [job_id]
    assert under_test.redis.exists(keys.LEASES, keys.holder("w"), keys.QUEUE) == 0
    assert 0 < under_test.redis.ttl(keys.job(job_id)) <= DEAD_LETTER_SECONDS


def test_a_reason_may_hold_any_text(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit()
    (claim,) = under_test.claim()
    reason = 'a "quote", a \\, a ]] and a ü\n'
    under_test.ledger.finish([Outcome.unprocessable(claim, "x", reason, reason)])
    job = under_test.get(job_id)
    assert (job.trail[0]["reason"], job.error["detail"]) == (reason, reason)


def test_a_failure_that_is_the_senders_is_no_dead_letter(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit()
    (claim,) = under_test.claim()
    assert under_test.ledger.finish([Outcome.failed(claim, "truncated-image", "x")]) == [job_id]
    assert (under_test.get(job_id).death_reason, under_test.members(keys.DEAD)) == ("", [])
