"""Cancelling and erasing: whatever a job is doing, it ends once, and nothing of it is left."""

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from app.core import keys
from app.core.errors import JobEndedError, JobErasedError, JobNotFoundError
from app.jobs.job import Claim, DeathReason, JobState, Outcome, Priority, Reception, Stage
from app.jobs.ledger import RedisLedger
from tests.ledger.ledger_under_test import (
    ANSWER,
    LONG_MS,
    RESULT_SECONDS,
    LedgerUnderTest,
    completed,
    failed,
    memory_limit_reached,
    retry,
    unprocessable,
)
from tests.live_listener import LiveListener

UNFINISHED = (JobState.PENDING, JobState.PROCESSING)


def assert_nothing_left(under_test: LedgerUnderTest, job_id: str) -> None:
    """No key but the history, the mark and perhaps its place in a queue knows the job."""
    for place in (keys.LEASES, keys.DELAYED, keys.DEADLINES, keys.DEAD):
        assert job_id not in under_test.members(place)
    assert under_test.redis.exists(keys.job(job_id), keys.payload(job_id)) == 0
    assert 0 < under_test.redis.ttl(keys.erased(job_id)) <= RESULT_SECONDS
    assert under_test.backlog_bytes() == 0
    assert under_test.claim("another") == []


# --- Jobs that wait -------------------------------------------------------------------------------


@pytest.mark.parametrize("priority", list(Priority))
def test_a_job_that_waits_is_cancelled_at_once(
    under_test: LedgerUnderTest, priority: Priority
) -> None:
    job_id = under_test.submit(priority=priority, patience_ms=LONG_MS)
    job = under_test.cancel(job_id)
    assert (job.state, job.error["code"]) == (JobState.CANCELLED, "job-cancelled")
    assert job == under_test.get(job_id)
    assert under_test.history(job_id) == ["pending", "cancelled"]
    assert under_test.backlog_bytes() == 0
    assert under_test.members(keys.DEADLINES) == []
    assert 0 < under_test.redis.ttl(keys.job(job_id)) <= RESULT_SECONDS
    assert under_test.claim() == []


def test_the_others_are_claimed_as_if_it_had_not_been_there(under_test: LedgerUnderTest) -> None:
    ids = under_test.submit_many(6)
    for job_id in ids[1:3]:
        under_test.cancel(job_id)
    assert [claim.job_id for claim in under_test.claim()] == [ids[0], *ids[3:]]


def test_a_job_that_waits_for_another_try_is_cancelled(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit()
    under_test.ledger.finish([retry(claim) for claim in under_test.claim()])
    assert under_test.cancel(job_id).state is JobState.CANCELLED
    assert under_test.delayed() == []


def test_a_job_that_waits_for_another_of_its_content_is_cancelled_alone(
    under_test: LedgerUnderTest,
) -> None:
    first, second, third = (under_test.submit(content="cat") for _ in range(3))
    assert under_test.cancel(second).state is JobState.CANCELLED
    under_test.ledger.finish([completed(claim) for claim in under_test.claim()])
    states = [under_test.get(job_id).state for job_id in (first, second, third)]
    assert states == [JobState.COMPLETED, JobState.CANCELLED, JobState.COMPLETED]


@pytest.mark.parametrize("withdraw", [LedgerUnderTest.cancel, LedgerUnderTest.erase])
def test_those_that_wait_for_it_take_their_turn(
    under_test: LedgerUnderTest, withdraw: Callable[[LedgerUnderTest, str], Any]
) -> None:
    first, second, third = (under_test.submit(content="cat") for _ in range(3))
    withdraw(under_test, first)
    assert [claim.job_id for claim in under_test.claim()] == [second, third]
    assert under_test.bells() >= 1


def test_watchers_hear_of_it(under_test: LedgerUnderTest) -> None:
    listener = LiveListener(under_test.redis)
    for withdraw, state in ((under_test.cancel, "cancelled"), (under_test.erase, None)):
        job_id = under_test.submit()
        listener.watch(job_id)
        withdraw(job_id)
        ((told, record),) = listener.next_message()
        assert (told, record.get("state")) == (job_id, state)


def test_the_upload_goes_with_the_job(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, store="redis")
    for withdraw in (under_test.cancel, under_test.erase):
        job_id = under_test.submit()
        under_test.redis.set(keys.payload(job_id), "the image")
        withdraw(job_id)
        assert under_test.redis.exists(keys.payload(job_id)) == 0


# --- Jobs that a worker has -----------------------------------------------------------------------


def test_a_worker_hears_with_its_next_report_that_a_job_is_not_wanted(
    under_test: LedgerUnderTest,
) -> None:
    wanted, unwanted = under_test.submit_many(2)
    claims = under_test.claim()
    assert under_test.cancel(unwanted).state is JobState.PROCESSING
    assert under_test.ledger.report_progress(claims, 20, Stage.DECODING) == {unwanted}
    assert under_test.get(wanted).progress == 20
    by_id = {claim.job_id: claim for claim in claims}
    assert under_test.ledger.finish([Outcome.cancelled(by_id[unwanted])]) == [unwanted]
    assert under_test.get(unwanted).state is JobState.CANCELLED
    assert under_test.history(unwanted) == ["pending", "processing", "cancelled"]


@pytest.mark.parametrize("verdict", [completed, failed, unprocessable])
def test_a_result_that_comes_first_counts(
    under_test: LedgerUnderTest, verdict: Callable[[Claim], Outcome]
) -> None:
    job_id = under_test.submit()
    (claim,) = under_test.claim()
    under_test.cancel(job_id)
    under_test.ledger.finish([verdict(claim)])
    assert under_test.get(job_id).state in (JobState.COMPLETED, JobState.FAILED)


def test_asking_twice_is_asking_once(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit()
    (claim,) = under_test.claim()
    assert [under_test.cancel(job_id).state for _ in range(2)] == [JobState.PROCESSING] * 2
    under_test.ledger.finish([Outcome.cancelled(claim)])
    assert under_test.history(job_id) == ["pending", "processing", "cancelled"]


def put_off(under_test: LedgerUnderTest, claim: Claim) -> list[str]:
    return under_test.ledger.finish([retry(claim)])


def hand_back(under_test: LedgerUnderTest, claim: Claim) -> list[str]:
    return under_test.ledger.hand_back("w")


def lose(under_test: LedgerUnderTest, claim: Claim) -> list[str]:
    return under_test.ledger.release("w", DeathReason.WORKER_LOST)


def fall_silent(under_test: LedgerUnderTest, claim: Claim) -> list[str]:
    under_test.let_lease_run_out(claim.job_id)
    return under_test.sweep_until(
        under_test.ledger, lambda: under_test.get(claim.job_id).has_ended()
    )


@pytest.mark.parametrize("come_to_nothing", [put_off, hand_back, lose, fall_silent])
@pytest.mark.parametrize("max_attempts", [1, 3])
def test_a_claim_that_comes_to_nothing_ends_it(
    server_url: str,
    come_to_nothing: Callable[[LedgerUnderTest, Claim], list[str]],
    max_attempts: int,
) -> None:
    under_test = LedgerUnderTest(server_url, max_attempts=max_attempts, retry_limit=0)
    job_id = under_test.submit()
    (claim,) = under_test.claim()
    under_test.cancel(job_id)
    assert come_to_nothing(under_test, claim) == [job_id]
    assert under_test.get(job_id).state is JobState.CANCELLED
    assert under_test.members(keys.DEAD) + under_test.delayed() + under_test.waiting() == []
    assert under_test.backlog_bytes() == 0


def test_a_dead_letter_that_is_retried_is_wanted_again(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit()
    (claim,) = under_test.claim()
    under_test.cancel(job_id)
    under_test.ledger.finish([unprocessable(claim)])
    under_test.retry_dead(job_id)
    (claim,) = under_test.claim()
    assert under_test.ledger.report_progress([claim], 50, Stage.CLASSIFYING) == frozenset()


def test_a_report_names_claims_that_are_out_of_date(under_test: LedgerUnderTest) -> None:
    lost, erased, held = under_test.submit_many(3)
    claims = under_test.claim()
    under_test.ledger.release("w", DeathReason.WORKER_LOST, claims[:1])
    under_test.erase(erased)
    assert under_test.ledger.report_progress(claims, 20, Stage.DECODING) == {lost, erased}
    assert under_test.get(held).progress == 20


# --- Jobs that have ended -------------------------------------------------------------------------


@pytest.mark.parametrize("end", [completed, failed, unprocessable, Outcome.cancelled])
def test_what_has_ended_can_not_be_cancelled(
    under_test: LedgerUnderTest, end: Callable[[Claim], Outcome]
) -> None:
    job_id = under_test.submit()
    under_test.ledger.finish([end(claim) for claim in under_test.claim()])
    before = under_test.get(job_id)
    with pytest.raises(JobEndedError) as caught:
        under_test.cancel(job_id)
    assert caught.value.job_id == job_id
    assert under_test.get(job_id) == before


def test_cancelling_twice_is_an_error_but_repeating_a_lost_request_is_not(
    under_test: LedgerUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As redis-py does when the connection breaks before the answer."""
    waiting, erased = under_test.submit_many(2)

    class SameToken:
        hex = "a-token"

    monkeypatch.setattr("app.jobs.withdrawals.uuid4", SameToken)
    assert [under_test.cancel(waiting).state for _ in range(2)] == [JobState.CANCELLED] * 2
    under_test.erase(erased)
    under_test.erase(erased)
    monkeypatch.undo()
    with pytest.raises(JobEndedError):
        under_test.cancel(waiting)
    with pytest.raises(JobErasedError):
        under_test.erase(erased)


# --- Erasing --------------------------------------------------------------------------------------


def wait(under_test: LedgerUnderTest) -> None:
    pass


def be_claimed(under_test: LedgerUnderTest) -> None:
    under_test.claim()


def end_with(verdict: Callable[[Claim], Outcome]) -> Callable[[LedgerUnderTest], None]:
    def end(under_test: LedgerUnderTest) -> None:
        under_test.ledger.finish([verdict(claim) for claim in under_test.claim()])

    return end


def be_to_be_cancelled(under_test: LedgerUnderTest) -> None:
    (claim,) = under_test.claim()
    under_test.cancel(claim.job_id)


@pytest.mark.parametrize("store", ["files", "redis"])
@pytest.mark.parametrize(
    "come_so_far",
    [
        wait,
        be_claimed,
        be_to_be_cancelled,
        *map(end_with, (completed, failed, retry, unprocessable, Outcome.cancelled)),
    ],
)
def test_nothing_is_left_of_an_erased_job(
    server_url: str, come_so_far: Callable[[LedgerUnderTest], None], store: Any
) -> None:
    under_test = LedgerUnderTest(server_url, store=store)
    job_id = under_test.submit(patience_ms=LONG_MS, content="cat")
    come_so_far(under_test)
    under_test.erase(job_id)
    assert_nothing_left(under_test, job_id)
    for withdraw in (under_test.cancel, under_test.erase):
        with pytest.raises(JobErasedError):
            withdraw(job_id)


@pytest.mark.parametrize("verdict", [completed, failed, retry, unprocessable, Outcome.cancelled])
def test_who_holds_an_erased_job_changes_nothing_and_erases_the_upload(
    under_test: LedgerUnderTest, verdict: Callable[[Claim], Outcome]
) -> None:
    job_id = under_test.submit()
    (claim,) = under_test.claim()
    under_test.erase(job_id)
    assert under_test.ledger.finish([verdict(claim)]) == [job_id]
    assert under_test.history(job_id) == ["pending", "processing", "cancelled"]
    assert_nothing_left(under_test, job_id)


def test_the_answer_of_an_erased_job_is_not_given_to_others(under_test: LedgerUnderTest) -> None:
    under_test.beat()
    job_id = under_test.submit(content="cat")
    under_test.ledger.finish([completed(claim) for claim in under_test.claim()])
    assert under_test.try_to_submit(content="cat")[0] is Reception.ANSWERED
    under_test.erase(job_id)
    assert under_test.try_to_submit(content="cat")[0] is Reception.ACCEPTED


def test_a_job_that_was_answered_with_another_is_erased_alone(under_test: LedgerUnderTest) -> None:
    under_test.beat()
    first = under_test.submit(content="cat")
    under_test.ledger.finish([completed(claim) for claim in under_test.claim()])
    second = under_test.submit(content="cat")
    under_test.erase(second)
    assert under_test.get(first).state is JobState.COMPLETED
    assert under_test.try_to_submit(content="cat")[0] is Reception.ANSWERED


# --- Whose job it is ------------------------------------------------------------------------------


def test_nobody_withdraws_the_job_of_another(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit(owner="ann")
    for withdraw in (under_test.cancel, under_test.erase):
        with pytest.raises(JobNotFoundError):
            withdraw(job_id, "bob")
    assert under_test.get(job_id).state is JobState.PENDING
    under_test.erase(job_id, "ann")
    for withdraw in (under_test.cancel, under_test.erase):
        with pytest.raises(JobNotFoundError):
            withdraw(job_id, "bob")


@pytest.mark.parametrize("withdraw", [LedgerUnderTest.cancel, LedgerUnderTest.erase])
def test_what_was_never_there_is_not_found(
    under_test: LedgerUnderTest, withdraw: Callable[[LedgerUnderTest, str], Any]
) -> None:
    with pytest.raises(JobNotFoundError):
        withdraw(under_test, "no-such-job")
    assert under_test.redis.keys() == []


def test_a_full_redis_takes_both(under_test: LedgerUnderTest) -> None:
    waiting, held, erased = under_test.submit_many(3)
    with memory_limit_reached(under_test.redis):
        under_test.erase(erased)
        assert under_test.cancel(waiting).state is JobState.CANCELLED
        (claim,) = under_test.claim()
        under_test.cancel(held)
        under_test.ledger.finish([Outcome.cancelled(claim)])
    assert under_test.get(held).state is JobState.CANCELLED


# --- At the same time -----------------------------------------------------------------------------


def test_of_an_end_and_a_withdrawal_at_once_exactly_one_comes_first(
    server_url: str,
) -> None:
    """Workers that claim, report and finish in threads of their own, while owners change their
    minds: each job has one end, and whoever asked was told the truth."""
    under_test = LedgerUnderTest(server_url, batch_size=3, history_length=100_000)
    ids = under_test.submit_many(90)
    chosen = random.Random(1).sample(ids, 60)
    erased = frozenset(chosen[::3])
    asked = threading.Event()
    told: dict[str, str] = {}

    def work(name: str) -> None:
        with redis.Redis.from_url(under_test.url) as connection:
            ledger = RedisLedger(connection, under_test.settings())
            asked.wait(10)
            while claims := ledger.claim(name, ANSWER).claims:
                unwanted = ledger.report_progress(claims, 50, Stage.CLASSIFYING)
                ledger.finish(
                    Outcome.cancelled(claim) if claim.job_id in unwanted else completed(claim)
                    for claim in claims
                )

    def withdraw(job_id: str) -> None:
        asked.set()
        if job_id in erased:
            under_test.erase(job_id)
            told[job_id] = "erased"
            return
        try:
            told[job_id] = under_test.cancel(job_id).state
        except JobEndedError:
            told[job_id] = "ended"

    with ThreadPoolExecutor(8) as pool:
        workers = [pool.submit(work, name) for name in ("a", "b", "c")]
        for wish in [pool.submit(withdraw, job_id) for job_id in chosen]:
            wish.result()
        for worker in workers:
            worker.result()
    for job_id in ids:
        ends = [state for state in under_test.history(job_id) if state not in UNFINISHED]
        assert len(ends) == 1, job_id
        if told.get(job_id) == "erased":
            assert under_test.find(job_id) is None
        else:
            assert under_test.get(job_id).state == ends[0]
        if told.get(job_id) == JobState.CANCELLED:
            assert ends == ["cancelled"]
        if job_id not in told:
            assert ends == ["completed"]
    assert under_test.backlog_bytes() == 0
    assert under_test.members(keys.LEASES) == []
