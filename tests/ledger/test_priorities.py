"""Interactive before bulk, by one batch at most, and bulk goes on."""

import pytest

from app.core import keys
from app.jobs.job import DeathReason, Priority
from tests.ledger.ledger_under_test import LedgerUnderTest, completed, retry, unprocessable

BATCH = 4


def submit_bulk(under_test: LedgerUnderTest, count: int = 1) -> list[str]:
    return [under_test.submit(priority=Priority.BULK) for _ in range(count)]


def claim(under_test: LedgerUnderTest) -> list[str]:
    """The ids of a batch, which is done at once."""
    claims = under_test.claim()
    under_test.ledger.finish([completed(claim) for claim in claims])
    return [claim.job_id for claim in claims]


def bulk_queue(under_test: LedgerUnderTest) -> list[str]:
    return [job_id.decode() for job_id in under_test.redis.lrange(keys.BULK_QUEUE, 0, -1)]


def test_an_interactive_job_overtakes_all_bulk_jobs(under_test: LedgerUnderTest) -> None:
    bulk = submit_bulk(under_test, 50)
    urgent = under_test.submit()
    assert claim(under_test) == [urgent]
    assert claim(under_test) == bulk[:BATCH]


def test_the_two_never_share_a_batch(under_test: LedgerUnderTest) -> None:
    """A batch reports when all of it is done."""
    submit_bulk(under_test, 3)
    urgent = under_test.submit()
    assert claim(under_test) == [urgent]


def test_bulk_goes_on_however_much_else_waits(under_test: LedgerUnderTest) -> None:
    bulk = submit_bulk(under_test, 8)
    turns = []
    for _ in range(16):
        under_test.submit_many(BATCH)
        turns.append(set(claim(under_test)) <= set(bulk))
    assert turns == ([False] * 7 + [True]) * 2


def test_an_interactive_job_waits_for_one_batch_of_bulk_at_most(
    under_test: LedgerUnderTest,
) -> None:
    submit_bulk(under_test, 200)
    for _ in range(30):
        urgent = under_test.submit()
        waited = 0
        while urgent not in claim(under_test):
            waited += 1
        assert waited <= 1


def test_bells_ring_for_bulk_too(under_test: LedgerUnderTest) -> None:
    submit_bulk(under_test, 3)
    under_test.submit_many(3)
    assert under_test.bells() == 2
    under_test.redis.delete(keys.DOORBELLS)
    under_test.ledger.sweep()
    assert under_test.bells() == 2


@pytest.mark.parametrize("way", ["lost", "handed back", "retried", "revived"])
def test_a_bulk_job_that_comes_back_is_still_bulk(under_test: LedgerUnderTest, way: str) -> None:
    (job_id,) = submit_bulk(under_test)
    claims = under_test.claim()
    if way == "lost":
        under_test.ledger.release("w", DeathReason.WORKER_LOST)
    elif way == "handed back":
        under_test.ledger.hand_back("w")
    elif way == "retried":
        under_test.ledger.finish([retry(claims[0])])
        under_test.let_retry_become_due(job_id)
        under_test.sweep_until(under_test.ledger, lambda: bool(bulk_queue(under_test)))
    else:
        under_test.ledger.finish([unprocessable(claims[0])])
        under_test.retry_dead(job_id)
    assert bulk_queue(under_test) == [job_id]
