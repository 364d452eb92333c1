"""The doorbell rule: while jobs wait, the broker's list holds a message for each batch of them."""

import functools
import json
import random

import pytest

from app.celery_app import create_celery_app
from app.core import keys
from app.core.config import RedisSettings, Settings
from app.jobs.doorbell import TASK_NAME
from app.jobs.job import DeathReason, JobState
from tests.ledger.ledger_under_test import LONG, LedgerUnderTest, completed, retry, unprocessable


def test_one_doorbell_for_each_batch_that_waits(under_test: LedgerUnderTest) -> None:
    bells = []
    for _ in range(9):
        under_test.submit()
        bells.append(under_test.bells())
    assert bells == [1, 1, 1, 1, 2, 2, 2, 2, 3]


def pending(under_test: LedgerUnderTest) -> list[str]:
    """Those that wait and were not cancelled or erased."""
    jobs = [under_test.find(job_id) for job_id in under_test.waiting()]
    return [job.id for job in jobs if job and job.state is JobState.PENDING]


@pytest.mark.parametrize("seed", range(5))
def test_outstanding_doorbells_always_cover_the_queue(server_url: str, seed: int) -> None:
    """The rule itself, whatever the order of events."""
    chance = random.Random(seed)
    under_test = LedgerUnderTest(server_url, batch_size=3, max_attempts=100)
    holders = []
    for step in range(300):
        event = chance.choice(("submit", "submit", "claim", "die", "vanish", "cancel", "erase"))
        if event == "submit":
            under_test.submit()
        elif event == "claim" and under_test.answer_bell():
            holder = f"w{step}"
            claims = under_test.claim(holder)
            if chance.random() < 0.5:
                under_test.ledger.finish([completed(claim) for claim in claims])
            else:
                holders.append(holder)
        elif event == "die" and holders:
            under_test.ledger.release(holders.pop(), DeathReason.WORKER_LOST)
        elif event == "vanish" and under_test.waiting():
            under_test.redis.delete(keys.job(chance.choice(under_test.waiting())))
        elif event == "cancel" and pending(under_test):
            under_test.cancel(chance.choice(pending(under_test)))
        elif event == "erase" and pending(under_test):
            under_test.erase(chance.choice(pending(under_test)))
        assert under_test.bells() >= -(-len(under_test.waiting()) // 3), f"{event}, step {step}"


def test_a_bell_that_is_there_already_is_not_rung_again(under_test: LedgerUnderTest) -> None:
    """A process that goes on without a bell leaves its bell to the next jobs."""
    under_test.submit_many(2)
    under_test.claim()
    under_test.submit_many(2)
    assert under_test.bells() == 1


def test_a_long_queue_does_not_fill_the_broker(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, batch_size=1)
    under_test.submit_many(120)
    assert under_test.bells() == 100
    under_test.answer_bell()
    under_test.claim()
    assert under_test.bells() == 100


def test_a_doorbell_is_what_celery_would_send(under_test: LedgerUnderTest) -> None:
    """But for its ids, and for headers of features that a bell has no use of."""
    with create_celery_app(Settings(redis=RedisSettings(url=under_test.url))) as app:
        app.send_task(TASK_NAME)
    sent = json.loads(under_test.redis.rpop(keys.DOORBELLS))
    under_test.submit()
    rung = json.loads(under_test.redis.rpop(keys.DOORBELLS))
    for place in ((), ("headers",), ("properties",)):
        ours, celerys = (functools.reduce(dict.get, place, message) for message in (rung, sent))
        ids = {key for key, value in ours.items() if value == "bell-1"}
        rest = set(ours) - ids - {"headers", "properties"}
        assert ids <= set(celerys)
        assert {key: ours[key] for key in rest} == {key: celerys[key] for key in rest}
        assert set(celerys) - set(ours) <= {
            *("group_index", "ignore_result", "origin", "replaced_task_nesting", "reply_to"),
            *("shadow", "stamped_headers", "stamps"),
        }


def test_no_two_doorbells_are_alike(under_test: LedgerUnderTest) -> None:
    under_test.submit_many(9)
    bells = under_test.redis.lrange(keys.DOORBELLS, 0, -1)
    assert len({json.loads(bell)["properties"]["delivery_tag"] for bell in bells}) == 3


def test_the_sweeper_rings_for_jobs_whose_doorbell_was_lost(under_test: LedgerUnderTest) -> None:
    under_test.submit_many(9)
    under_test.redis.delete(keys.DOORBELLS)
    under_test.ledger.sweep()
    assert under_test.bells() == 3


def test_the_sweeper_counts_the_doorbells_that_are_there(under_test: LedgerUnderTest) -> None:
    under_test.submit_many(9)
    under_test.answer_bell()
    under_test.ledger.sweep()
    assert under_test.bells() == 3


def test_one_worker_sweeps_at_a_time(under_test: LedgerUnderTest) -> None:
    ledger = under_test.with_lease(LONG, sweep_seconds=60)
    under_test.submit()
    under_test.answer_bell()
    ledger.sweep()
    assert under_test.bells() == 1
    under_test.answer_bell()
    ledger.sweep()
    assert under_test.bells() == 0


def test_a_bell_rings_for_each_batch_that_comes_back(under_test: LedgerUnderTest) -> None:
    under_test.submit_many(8)
    for holder in ("a", "b"):
        under_test.answer_bell()
        under_test.claim(holder)
    assert under_test.bells() == 0
    under_test.ledger.hand_back("a")
    assert under_test.bells() == 1
    under_test.ledger.release("b", DeathReason.WORKER_LOST)
    assert under_test.bells() == 2


def test_a_bell_rings_for_a_job_whose_retry_is_due(under_test: LedgerUnderTest) -> None:
    under_test.submit()
    under_test.answer_bell()
    (claim,) = under_test.claim()
    under_test.ledger.finish([retry(claim)])
    assert under_test.bells() == 0
    under_test.let_retry_become_due(claim.job_id)
    under_test.sweep_until(under_test.ledger, lambda: under_test.bells() == 1)


def test_a_bell_rings_for_a_dead_letter_that_is_retried(under_test: LedgerUnderTest) -> None:
    under_test.submit()
    under_test.answer_bell()
    (claim,) = under_test.claim()
    under_test.ledger.finish([unprocessable(claim)])
    assert under_test.bells() == 0
    under_test.retry_dead(claim.job_id)
    assert under_test.bells() == 1
