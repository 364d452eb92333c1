"""The history stream and the live channel: every change, once."""

import json

from app.core import keys
from app.jobs.job import DeathReason, Stage
from tests.ledger.ledger_under_test import (
    PREDICTIONS,
    LedgerUnderTest,
    completed,
    retry,
    unprocessable,
)
from tests.live_listener import LiveListener


def test_every_transition_is_in_the_history(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit()
    under_test.claim()
    under_test.ledger.release("w", DeathReason.WORKER_LOST)
    claims = under_test.claim()
    under_test.ledger.finish([completed(claims[0])])
    states = ["pending", "processing", "pending", "processing", "completed"]
    assert under_test.history(job_id) == states


def test_who_watches_a_job_gets_its_record_after_each_change(under_test: LedgerUnderTest) -> None:
    listener = LiveListener(under_test.redis)
    job_id = under_test.submit()
    listener.watch(job_id)
    claims = under_test.claim()
    under_test.ledger.report_progress(claims, 20, Stage.DECODING)
    under_test.ledger.finish([completed(claims[0])])
    seen = []
    while message := listener.next_message():
        ((told, record),) = message
        assert told == job_id
        seen.append((record["state"], record["progress"], record["stage"]))
    assert seen == [
        ("processing", "0", ""),
        ("processing", "20", "decoding"),
        ("completed", "100", ""),
    ]
    assert json.loads(record["result"]) == PREDICTIONS


def test_who_waits_for_the_end_hears_of_nothing_else(under_test: LedgerUnderTest) -> None:
    listener = LiveListener(under_test.redis)
    job_id = under_test.submit()
    listener.watch(job_id, end_only=True)
    claims = under_test.claim()
    under_test.ledger.report_progress(claims, 20, Stage.DECODING)
    under_test.ledger.finish([completed(claims[0])])
    assert [record["state"] for _, record in listener.next_message()] == ["completed"]
    assert not listener.next_message()


def test_a_batch_is_one_message(under_test: LedgerUnderTest) -> None:
    listener = LiveListener(under_test.redis)
    ids = under_test.submit_many(3)
    for job_id in ids:
        listener.watch(job_id)
    under_test.claim()
    assert [job_id for job_id, _ in listener.next_message()] == ids
    assert not listener.next_message()


def test_nothing_is_said_of_a_job_that_nobody_watches(under_test: LedgerUnderTest) -> None:
    listener = LiveListener(under_test.redis)
    under_test.submit()
    under_test.ledger.finish([completed(claim) for claim in under_test.claim()])
    assert not listener.next_message()


def test_the_history_says_under_which_claim_each_change_happened(
    under_test: LedgerUnderTest,
) -> None:
    job_id = under_test.submit()
    under_test.claim()
    under_test.ledger.release("w", DeathReason.WORKER_LOST)
    (claim,) = under_test.claim()
    under_test.ledger.finish([retry(claim)])
    under_test.let_retry_become_due(job_id)
    under_test.sweep_until(under_test.ledger, lambda: under_test.waiting() == [job_id])
    (claim,) = under_test.claim()
    under_test.ledger.finish([unprocessable(claim)])
    under_test.retry_dead(job_id)
    (claim,) = under_test.claim()
    under_test.ledger.finish([completed(claim)])
    assert under_test.history_with_attempts(job_id) == [
        ("pending", 0),
        ("processing", 1),
        ("pending", 1),
        ("processing", 2),
        ("pending", 2),
        ("processing", 3),
        ("failed", 3),
        ("pending", 3),
        ("processing", 4),
        ("completed", 4),
    ]


def test_without_a_history_everything_else_goes_on(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, history_length=0)
    job_id = under_test.submit()
    under_test.ledger.finish([completed(claim) for claim in under_test.claim()])
    assert under_test.get(job_id).state == "completed"
    assert under_test.redis.exists(keys.HISTORY) == 0
