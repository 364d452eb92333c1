"""Redis at its memory limit: nothing new is accepted, and what was accepted still ends."""

from collections.abc import Callable, Iterator

import pytest
import redis

from app.core import keys
from app.core.errors import ResultsFullError
from app.jobs.job import Claim, DeathReason, JobState, Outcome, Reception, Stage
from tests.ledger.ledger_under_test import (
    ANSWER,
    GONE,
    LedgerUnderTest,
    completed,
    failed,
    memory_limit_reached,
    retry,
    unprocessable,
)


@pytest.fixture(params=["files", "redis"])
def full(server_url: str, request: pytest.FixtureRequest) -> Iterator[LedgerUnderTest]:
    """A ledger whose Redis is full; jobs that the test needs are submitted by :func:`accept`."""
    under_test = LedgerUnderTest(server_url, store=request.param, max_attempts=2)
    with memory_limit_reached(under_test.redis):
        yield under_test


def accept(full: LedgerUnderTest, count: int, patience_ms: int = 0) -> list[str]:
    """Jobs from before Redis was full."""
    full.redis.config_set("maxmemory", 0)
    ids = [full.submit(patience_ms=patience_ms) for _ in range(count)]
    full.redis.config_set("maxmemory", 1)
    return ids


def test_such_a_redis_refuses_what_needs_memory(full: LedgerUnderTest) -> None:
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        full.redis.set("x", "y")


def test_a_new_job_is_refused_and_leaves_nothing(full: LedgerUnderTest) -> None:
    before = full.redis.keys()
    with pytest.raises(ResultsFullError):
        full.try_to_submit()
    assert full.redis.keys() == before


def test_a_job_that_was_accepted_is_accepted_again(full: LedgerUnderTest) -> None:
    (job_id,) = accept(full, 1)
    assert full.try_to_submit(job_id)[0]


@pytest.mark.parametrize(
    ("end", "state", "left"),
    [
        (completed, JobState.COMPLETED, None),
        (failed, JobState.FAILED, None),
        (unprocessable, JobState.FAILED, keys.DEAD),
        (retry, JobState.PENDING, keys.DELAYED),
    ],
)
def test_an_accepted_job_is_claimed_followed_and_finished(
    full: LedgerUnderTest, end: Callable[[Claim], Outcome], state: JobState, left: str | None
) -> None:
    accept(full, 1)
    (claim,) = full.claim()
    full.ledger.report_progress([claim], 50, Stage.CLASSIFYING)
    assert full.get(claim.job_id).progress == 50
    full.ledger.finish([end(claim)])
    assert full.get(claim.job_id).state is state
    assert left is None or full.members(left) == [claim.job_id]


@pytest.mark.parametrize("lost_before", [0, 1])
def test_what_a_dead_process_held_is_taken_back(full: LedgerUnderTest, lost_before: int) -> None:
    (job_id,) = accept(full, 1)
    for _ in range(lost_before + 1):
        full.claim()
        full.ledger.release("w", DeathReason.WORKER_LOST)
    # Two losses are the end.
    assert full.waiting() == ([] if lost_before else [job_id])
    assert full.members(keys.DEAD) == ([job_id] if lost_before else [])


def test_what_a_healthy_process_held_is_handed_back(full: LedgerUnderTest) -> None:
    ids = accept(full, 3)
    full.claim()
    full.ledger.hand_back("w")
    assert set(full.waiting()) == set(ids)


def test_leases_are_renewed(full: LedgerUnderTest) -> None:
    (job_id,) = accept(full, 1)
    full.with_lease(GONE).claim("w", ANSWER)
    full.ledger.renew(["w"])
    assert full.redis.zscore(keys.LEASES, job_id) > full.now_ms()


def test_the_sweeper_mends_everything(full: LedgerUnderTest) -> None:
    lost, delayed = accept(full, 2)
    claims = full.with_lease(GONE).claim("w", ANSWER).claims
    full.ledger.finish([retry(claims[1], delay_ms=1)])
    (late,) = accept(full, 1, patience_ms=1)
    full.redis.delete(keys.DOORBELLS)
    full.sweep_until(full.ledger, lambda: full.get(late).state is JobState.FAILED)
    full.sweep_until(full.ledger, lambda: {lost, delayed} <= set(full.waiting()))
    assert full.bells() == 1


def test_a_worker_says_that_it_lives(full: LedgerUnderTest) -> None:
    full.ledger.beat("worker", "{}", 60_000, "a-model")
    assert full.redis.get(keys.worker("worker")) == b"{}"
    assert full.members(keys.WORKERS) == ["worker"]


def test_a_dead_letter_is_purged(full: LedgerUnderTest) -> None:
    accept(full, 1)
    (claim,) = full.claim()
    full.ledger.finish([unprocessable(claim)])
    assert full.purge_dead(claim.job_id) == [claim.job_id]
    assert full.find(claim.job_id) is None


def test_a_whole_batch_ends(full: LedgerUnderTest) -> None:
    ids = accept(full, 8)
    while full.answer_bell():
        claims = full.claim()
        full.ledger.finish([completed(claim) for claim in claims])
    assert {full.get(job_id).state for job_id in ids} == {JobState.COMPLETED}
    assert full.backlog_bytes() == 0


def test_a_submit_whose_reply_was_lost_is_still_accepted(full: LedgerUnderTest) -> None:
    """Were it refused now, the API would erase the upload of an accepted job."""
    (job_id,) = accept(full, 1)
    full.redis.delete(keys.DOORBELLS)
    assert full.try_to_submit(job_id)[0] is Reception.ACCEPTED
