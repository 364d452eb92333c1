"""Claiming jobs, reporting on them, ending them: only under a claim that is current."""

from collections.abc import Callable

import pytest

from app.core import keys
from app.jobs.job import Claim, DeathReason, JobState, Outcome, Stage
from tests.ledger.ledger_under_test import (
    PREDICTIONS,
    RESULT_SECONDS,
    LedgerUnderTest,
    completed,
    failed,
    retry,
    unprocessable,
)


def test_a_claim_takes_the_oldest_jobs_up_to_a_batch(under_test: LedgerUnderTest) -> None:
    ids = under_test.submit_many(6)
    claims = under_test.claim()
    assert [claim.job_id for claim in claims] == ids[:4]
    assert under_test.waiting() == ids[4:]


def test_a_claimed_job_names_its_model_and_its_attempt(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit()
    claims = under_test.claim()
    job = under_test.get(job_id)
    assert claims == [Claim(job_id, 1)]
    assert job.state is JobState.PROCESSING
    assert (job.model, job.model_version, job.engine, job.attempts) == ("a-model", "7", "torch", 1)


def test_no_job_is_claimed_twice(under_test: LedgerUnderTest) -> None:
    ids = under_test.submit_many(10)
    taken = []
    for number in range(5):
        claims = under_test.claim(f"w{number}")
        taken += [claim.job_id for claim in claims]
    assert taken == ids


def test_a_doorbell_that_finds_nothing_does_nothing(under_test: LedgerUnderTest) -> None:
    assert under_test.claim() == []
    assert under_test.bells() == 0


def test_a_claim_whose_answer_was_lost_is_given_again(under_test: LedgerUnderTest) -> None:
    under_test.submit_many(6)
    lost = under_test.claim()
    again = under_test.claim()
    assert {c.job_id for c in again} == {c.job_id for c in lost}
    assert len(under_test.ledger.finish([completed(claim) for claim in again])) == 4


def test_ids_whose_jobs_are_gone_are_skipped(under_test: LedgerUnderTest) -> None:
    ids = under_test.submit_many(6)
    for job_id in ids[:3]:
        under_test.redis.delete(keys.job(job_id))
    claims = under_test.claim()
    assert [claim.job_id for claim in claims] == ids[3:]


# --- progress -------------------------------------------------------------------------------------


def test_progress_moves_forward_only(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit()
    claims = under_test.claim()
    under_test.ledger.report_progress(claims, 50, Stage.CLASSIFYING)
    under_test.ledger.report_progress(claims, 20, Stage.DECODING)
    job = under_test.get(job_id)
    assert (job.progress, job.stage) == (50, "classifying")


def test_an_outdated_claim_reports_no_progress(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit()
    old = under_test.claim("old")
    under_test.ledger.release("old", DeathReason.WORKER_LOST)
    under_test.claim("new")
    under_test.ledger.report_progress(old, 90, Stage.CLASSIFYING)
    assert under_test.get(job_id).progress == 0


# --- finish ---------------------------------------------------------------------------------------


def test_a_finished_job_keeps_its_predictions_for_the_ttl(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit()
    claims = under_test.claim()
    assert under_test.ledger.finish([completed(claims[0])]) == [job_id]
    job = under_test.get(job_id)
    assert (job.state, job.progress, job.predictions) == (JobState.COMPLETED, 100, PREDICTIONS)
    assert job.created_ms <= job.claimed_ms <= job.finished_ms
    assert 0 < under_test.redis.ttl(keys.job(job_id)) <= RESULT_SECONDS


def test_a_batch_ends_each_job_in_its_own_way(under_test: LedgerUnderTest) -> None:
    good, bad = under_test.submit_many(2)
    claims = under_test.claim()
    under_test.ledger.finish(
        [completed(claims[0]), Outcome.failed(claims[1], "undecodable-image", "broken")]
    )
    assert under_test.get(good).state is JobState.COMPLETED
    assert under_test.get(bad).error == {"code": "undecodable-image", "detail": "broken"}


def test_a_job_that_ended_leaves_no_lease_and_no_holder(under_test: LedgerUnderTest) -> None:
    under_test.submit_many(3)
    claims = under_test.claim()
    under_test.ledger.finish([completed(claim) for claim in claims])
    assert under_test.redis.exists(keys.LEASES, keys.holder("w"), keys.QUEUE) == 0


def test_the_first_end_stands(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit()
    claims = under_test.claim()
    under_test.ledger.finish([completed(claims[0])])
    assert under_test.ledger.finish([Outcome.failed(claims[0], "x", "y")]) == [job_id]
    assert under_test.get(job_id).state is JobState.COMPLETED
    assert under_test.history(job_id) == ["pending", "processing", "completed"]


def test_a_worker_thought_dead_cannot_finish_what_its_successor_holds(
    under_test: LedgerUnderTest,
) -> None:
    job_id = under_test.submit()
    zombie = under_test.claim("zombie")
    under_test.ledger.release("zombie", DeathReason.WORKER_LOST)
    successor = under_test.claim("successor")
    assert under_test.ledger.finish([Outcome.failed(zombie[0], "x", "y")]) == []
    assert under_test.ledger.finish([completed(successor[0])]) == [job_id]
    assert under_test.get(job_id).state is JobState.COMPLETED


@pytest.mark.parametrize("end", [completed, failed, retry, unprocessable])
def test_no_verdict_of_an_outdated_claim_counts(
    under_test: LedgerUnderTest, end: Callable[[Claim], Outcome]
) -> None:
    under_test.submit()
    (zombie,) = under_test.claim("zombie")
    under_test.ledger.release("zombie", DeathReason.WORKER_LOST)
    under_test.claim("successor")
    before = under_test.redis.hgetall(keys.job(zombie.job_id))
    assert under_test.ledger.finish([end(zombie)]) == []
    assert under_test.redis.hgetall(keys.job(zombie.job_id)) == before
    assert under_test.redis.exists(keys.DELAYED, keys.DEAD) == 0


@pytest.mark.parametrize("end", [completed, failed, retry, unprocessable])
def test_no_verdict_counts_once_the_job_was_handed_back(
    under_test: LedgerUnderTest, end: Callable[[Claim], Outcome]
) -> None:
    under_test.submit()
    (claim,) = under_test.claim()
    under_test.ledger.hand_back("w")
    assert under_test.ledger.finish([end(claim)]) == []
    assert under_test.get(claim.job_id).state is JobState.PENDING
    assert under_test.waiting() == [claim.job_id]


@pytest.mark.parametrize("end", [completed, failed])
def test_an_end_whose_answer_was_lost_is_told_again(
    under_test: LedgerUnderTest, end: Callable[[Claim], Outcome]
) -> None:
    under_test.submit()
    (claim,) = under_test.claim()
    answers = [under_test.ledger.finish([end(claim)]) for _ in range(3)]
    assert answers == [[claim.job_id]] * 3
    assert len(under_test.history(claim.job_id)) == 3
    assert under_test.backlog_bytes() == 0


@pytest.mark.parametrize("end", [retry, unprocessable])
def test_a_verdict_that_keeps_the_upload_changes_nothing_when_repeated(
    under_test: LedgerUnderTest, end: Callable[[Claim], Outcome]
) -> None:
    under_test.submit()
    (claim,) = under_test.claim()
    under_test.ledger.finish([end(claim)])
    before = under_test.redis.hgetall(keys.job(claim.job_id)), under_test.backlog_bytes()
    assert under_test.ledger.finish([end(claim)]) == []
    after = under_test.redis.hgetall(keys.job(claim.job_id)), under_test.backlog_bytes()
    assert after == before


def test_the_upload_of_a_job_whose_record_has_expired_can_go(under_test: LedgerUnderTest) -> None:
    under_test.submit()
    (claim,) = under_test.claim()
    under_test.redis.delete(keys.job(claim.job_id))
    assert under_test.ledger.finish([completed(claim)]) == [claim.job_id]
