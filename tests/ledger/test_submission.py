"""Accepting jobs: each once, while there is room."""

import time
from typing import Any

import pytest

from app.jobs.job import DeathReason, JobState
from tests.ledger.ledger_under_test import UPLOAD_BYTES, LedgerUnderTest, completed, retry


def test_a_submitted_job_is_pending_and_belongs_to_its_owner(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit(owner="anonymous")
    job = under_test.get(job_id)
    assert (job.state, job.owner, job.progress) == (JobState.PENDING, "anonymous", 0)
    assert abs(job.created_ms / 1000 - time.time()) < 60


def test_submitting_the_same_id_twice_queues_it_once(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit()
    under_test.submit(job_id)
    assert under_test.waiting() == [job_id]
    assert under_test.bells() == 1


def test_resubmitting_a_finished_job_does_not_revive_it(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit()
    claims = under_test.claim()
    under_test.ledger.finish([completed(claims[0])])
    under_test.submit(job_id)
    assert under_test.get(job_id).state is JobState.COMPLETED
    assert under_test.waiting() == []


# --- limits ---------------------------------------------------------------------------------------


def test_jobs_are_accepted_up_to_the_limit_and_not_beyond(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, max_jobs=3)
    verdicts = [under_test.try_to_submit()[0] for _ in range(5)]
    assert verdicts == [True, True, True, False, False]
    assert len(under_test.waiting()) == 3


def test_a_refused_job_leaves_no_trace(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, max_jobs=1)
    under_test.submit()
    before = under_test.redis.dbsize(), under_test.bells(), under_test.backlog_bytes()
    assert not under_test.try_to_submit("refused", patience_ms=1000)[0]
    assert under_test.find("refused") is None
    assert (under_test.redis.dbsize(), under_test.bells(), under_test.backlog_bytes()) == before


def test_a_claimed_job_makes_room_and_one_that_waits_for_a_retry_does_not(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, max_jobs=2)
    under_test.submit_many(2)
    claims = under_test.claim()
    under_test.submit_many(2)
    under_test.claim("other")
    under_test.ledger.finish([retry(claim) for claim in claims])
    assert not under_test.try_to_submit()[0]


def test_uploads_are_accepted_up_to_the_last_byte_of_the_limit(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, max_bytes=1000)
    under_test.submit(upload_bytes=700)
    assert not under_test.try_to_submit(upload_bytes=301)[0]
    accepted, backlog = under_test.try_to_submit(upload_bytes=300)
    assert (accepted, backlog.jobs, backlog.upload_bytes) == (True, 2, 1000)
    assert not under_test.try_to_submit(upload_bytes=1)[0]


def test_claimed_jobs_uploads_count_until_they_end(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, max_bytes=1000)
    under_test.submit(upload_bytes=1000)
    claims = under_test.claim()
    assert not under_test.try_to_submit()[0]
    under_test.ledger.finish([completed(claims[0])])
    assert under_test.try_to_submit()[0]


@pytest.mark.parametrize("limit", [{"max_jobs": 2}, {"max_bytes": 2 * UPLOAD_BYTES}])
def test_at_the_limit_a_job_that_was_accepted_is_accepted_again(
    server_url: str, limit: dict[str, Any]
) -> None:
    under_test = LedgerUnderTest(server_url, **limit)
    ids = under_test.submit_many(2)
    assert [under_test.try_to_submit(job_id)[0] for job_id in [*ids, "new"]] == [True, True, False]
    assert under_test.waiting() == ids
    assert under_test.backlog_bytes() == 2 * UPLOAD_BYTES


def test_what_goes_back_to_the_queue_may_exceed_the_limit(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, max_jobs=2)
    first = under_test.submit_many(2)
    under_test.claim()
    second = under_test.submit_many(2)
    under_test.ledger.release("w", DeathReason.WORKER_LOST)
    assert set(under_test.waiting()) == {*first, *second}


# --- the drain rate -------------------------------------------------------------------------------


def work_for(under_test: LedgerUnderTest, seconds: float) -> float:
    """Two jobs end every tenth of a second while others wait; returns how many per second."""
    started, ended = time.monotonic(), 0
    while (passed := time.monotonic() - started) < seconds:
        under_test.submit_many(2)
        claims = under_test.claim()
        ended += len(under_test.ledger.finish([completed(claim) for claim in claims]))
        time.sleep(0.1)
    return ended / passed


def test_the_drain_rate_is_how_many_jobs_end_while_others_wait(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, batch_size=2)
    under_test.submit_many(4)
    assert under_test.try_to_submit()[1].drain_rate is None
    rate = work_for(under_test, 2.5)
    measured = under_test.try_to_submit()[1].drain_rate
    assert measured is not None and measured == pytest.approx(rate, rel=0.25)


def test_without_anything_waiting_no_drain_rate_is_measured(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, batch_size=2)
    work_for(under_test, 2.5)
    assert under_test.try_to_submit()[1].drain_rate is None
