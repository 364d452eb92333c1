"""The history stream and the live channel: every change, once."""

import json

from app.core import keys
from app.jobs.job import DeathReason, Stage
from tests.ledger.ledger_under_test import LedgerUnderTest, completed, retry, unprocessable


def test_every_transition_is_in_the_history(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit()
    under_test.claim()
    under_test.ledger.release("w", DeathReason.WORKER_LOST)
    claims = under_test.claim()
    under_test.ledger.finish([completed(claims[0])])
    states = ["pending", "processing", "pending", "processing", "completed"]
    assert under_test.history(job_id) == states


def test_every_change_is_published_once(under_test: LedgerUnderTest) -> None:
    listener = under_test.redis.pubsub(ignore_subscribe_messages=True)
    listener.subscribe(keys.EVENTS)
    listener.get_message(timeout=5)
    job_id = under_test.submit()
    claims = under_test.claim()
    under_test.ledger.report_progress(claims, 20, Stage.DECODING)
    under_test.ledger.finish([completed(claims[0])])
    seen: list[tuple[str, int]] = []
    while len(seen) < 4 and (message := listener.get_message(timeout=5)):
        event = json.loads(message["data"])
        assert event["job_id"] == job_id
        seen.append((event["status"], event["progress"]))
    assert seen == [("pending", 0), ("processing", 0), ("processing", 20), ("completed", 100)]
    assert listener.get_message(timeout=0) is None


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
