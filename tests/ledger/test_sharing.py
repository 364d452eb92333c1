"""Jobs of the same content: an answer is found again, and one job under way answers for others."""

import dataclasses
from typing import Any

import pytest

from app.core import keys
from app.jobs.job import DeathReason, JobState, Priority, Reception
from tests.ledger.ledger_under_test import (
    ANSWER,
    PREDICTIONS,
    LedgerUnderTest,
    completed,
    failed,
    retry,
    unprocessable,
)

OTHER = dataclasses.replace(ANSWER, identity="another-model")


@pytest.fixture
def under_test(under_test: LedgerUnderTest) -> LedgerUnderTest:
    under_test.beat()
    return under_test


def submit(
    under_test: LedgerUnderTest, content: str = "cat", **fields: Any
) -> tuple[str, Reception]:
    job_id = f"job-{under_test.redis.incr('test:ids')}"
    reception, _ = under_test.try_to_submit(job_id, content=content, **fields)
    return job_id, reception


def answer(under_test: LedgerUnderTest) -> list[str]:
    """Claim and complete; returns the ids whose uploads can go."""
    return under_test.ledger.finish([completed(claim) for claim in under_test.claim()])


# --- Answered before ------------------------------------------------------------------------------


def test_the_same_content_is_answered_at_once(under_test: LedgerUnderTest) -> None:
    first, _ = submit(under_test)
    answer(under_test)
    second, reception = submit(under_test)
    assert reception is Reception.ANSWERED
    job, original = under_test.get(second), under_test.get(first)
    assert (job.state, job.progress, job.predictions) == (JobState.COMPLETED, 100, PREDICTIONS)
    assert (job.model, job.model_version, job.engine) == ("a-model", "7", "torch")
    assert original.predictions_json == job.predictions_json
    assert under_test.history(second) == ["pending", "processing", "completed"]
    assert (under_test.waiting(), under_test.backlog_bytes()) == ([], 0)
    assert under_test.redis.ttl(keys.job(second)) > 0


@pytest.mark.parametrize("verdict", [failed, unprocessable, retry])
def test_only_success_is_found_again(under_test: LedgerUnderTest, verdict: Any) -> None:
    submit(under_test)
    under_test.ledger.finish([verdict(claim) for claim in under_test.claim()])
    _, reception = submit(under_test, is_fresh=True)
    assert reception is Reception.ACCEPTED
    assert under_test.redis.zcard(keys.CACHE_USE) == 0


def test_other_content_is_classified(under_test: LedgerUnderTest) -> None:
    submit(under_test, "cat")
    answer(under_test)
    assert submit(under_test, "dog")[1] is Reception.ACCEPTED
    assert submit(under_test, "")[1] is Reception.ACCEPTED


def test_another_model_answers_for_itself(under_test: LedgerUnderTest) -> None:
    submit(under_test)
    answer(under_test)
    under_test.beat(OTHER.identity)
    assert submit(under_test)[1] is Reception.ACCEPTED
    under_test.ledger.finish([completed(claim) for claim in under_test.claim(answer=OTHER)])
    assert submit(under_test)[1] is Reception.ANSWERED
    under_test.beat(ANSWER.identity)
    assert submit(under_test)[1] is Reception.ANSWERED


def test_an_answer_is_known_under_the_model_that_gave_it(under_test: LedgerUnderTest) -> None:
    """While a new model is rolled out, workers with both of them claim."""
    submit(under_test)
    under_test.ledger.finish([completed(claim) for claim in under_test.claim(answer=OTHER)])
    assert submit(under_test)[1] is Reception.ACCEPTED


def test_what_must_be_classified_anew_is(under_test: LedgerUnderTest) -> None:
    submit(under_test)
    answer(under_test)
    fresh, reception = submit(under_test, is_fresh=True)
    assert reception is Reception.ACCEPTED
    answer(under_test)
    # And is what the next one gets.
    under_test.redis.delete(keys.job("job-1"))
    assert submit(under_test)[1] is Reception.ANSWERED


def test_an_answer_expires(under_test: LedgerUnderTest) -> None:
    submit(under_test)
    answer(under_test)
    (key,) = under_test.redis.zrange(keys.CACHE_USE, 0, -1)
    assert 0 < under_test.redis.pttl(key) <= 3_600_000
    under_test.redis.delete(key)
    assert submit(under_test)[1] is Reception.ACCEPTED


def test_an_answer_whose_job_is_gone_is_not_given(under_test: LedgerUnderTest) -> None:
    job_id, _ = submit(under_test)
    answer(under_test)
    under_test.redis.delete(keys.job(job_id))
    assert submit(under_test)[1] is Reception.ACCEPTED


def test_the_answer_that_was_not_used_longest_makes_room(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, cache_entries=2)
    under_test.beat()
    for content in ("cat", "dog"):
        submit(under_test, content)
        answer(under_test)
    oldest, *_ = under_test.redis.zrange(keys.CACHE_USE, 0, -1)
    under_test.redis.zadd(keys.CACHE_USE, {oldest: 1})
    submit(under_test, "cat")
    submit(under_test, "cow")
    answer(under_test)
    assert submit(under_test, "cat")[1] is Reception.ANSWERED
    assert submit(under_test, "dog")[1] is Reception.ACCEPTED
    assert under_test.redis.zcard(keys.CACHE_USE) == 2
    assert len(under_test.redis.keys(keys.CACHE + "*")) == 2


def test_the_sweeper_forgets_answers_that_have_expired(under_test: LedgerUnderTest) -> None:
    submit(under_test)
    answer(under_test)
    (key,) = under_test.redis.zrange(keys.CACHE_USE, 0, -1)
    under_test.redis.zadd(keys.CACHE_USE, {key: 1})
    under_test.ledger.sweep()
    assert under_test.redis.zcard(keys.CACHE_USE) == 0


def test_a_submit_whose_reply_was_lost_is_answered_the_same(under_test: LedgerUnderTest) -> None:
    submit(under_test)
    answer(under_test)
    job_id, _ = submit(under_test)
    reception, _ = under_test.try_to_submit(job_id, content="cat")
    assert reception is Reception.ANSWERED


def test_uses_are_counted(under_test: LedgerUnderTest) -> None:
    submit(under_test)
    submit(under_test)
    answer(under_test)
    submit(under_test)
    submit(under_test)
    submit(under_test, "")
    counts = under_test.redis.hgetall(keys.CACHE_COUNTS)
    names = {name: str(int(name)).encode() for name in Reception}
    assert counts == {
        names[Reception.ACCEPTED]: b"1",
        names[Reception.JOINED]: b"1",
        names[Reception.ANSWERED]: b"2",
    }


# --- Under way ------------------------------------------------------------------------------------


def test_identical_jobs_under_way_are_classified_once(under_test: LedgerUnderTest) -> None:
    first, reception = submit(under_test)
    assert reception is Reception.ACCEPTED
    second, reception = submit(under_test)
    assert reception is Reception.JOINED
    claims = under_test.claim()
    assert [claim.job_id for claim in claims] == [first]
    third, reception = submit(under_test)
    assert reception is Reception.JOINED
    ended = under_test.ledger.finish([completed(claim) for claim in claims])
    assert sorted(ended) == sorted([first, second, third])
    for job_id in (first, second, third):
        assert under_test.get(job_id).predictions == PREDICTIONS
        assert under_test.history(job_id) == ["pending", "processing", "completed"]
    assert under_test.backlog_bytes() == 0
    assert under_test.redis.keys("*flights*") + under_test.redis.keys("*followers*") == []


def test_followers_count_as_work_until_they_end(under_test: LedgerUnderTest) -> None:
    submit(under_test, upload_bytes=300)
    submit(under_test, upload_bytes=200)
    assert under_test.backlog_bytes() == 500


@pytest.mark.parametrize("verdict", [failed, unprocessable])
def test_if_the_first_fails_the_others_take_their_turn(
    under_test: LedgerUnderTest, verdict: Any
) -> None:
    submit(under_test)
    second, _ = submit(under_test)
    third, _ = submit(under_test)
    under_test.ledger.finish([verdict(claim) for claim in under_test.claim()])
    assert under_test.waiting() == [second, third]
    assert under_test.bells() >= 1
    assert answer(under_test) == [second, third]


def test_a_first_that_is_tried_again_keeps_its_followers(under_test: LedgerUnderTest) -> None:
    first, _ = submit(under_test)
    second, _ = submit(under_test)
    under_test.ledger.finish([retry(claim) for claim in under_test.claim()])
    under_test.let_retry_become_due(first)
    under_test.sweep_until(under_test.ledger, lambda: under_test.waiting() == [first])
    under_test.claim()
    under_test.ledger.release("w", DeathReason.WORKER_LOST)
    answer(under_test)
    assert under_test.get(second).state is JobState.COMPLETED


def test_a_first_that_dies_for_good_lets_its_followers_go(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, max_attempts=1)
    under_test.beat()
    submit(under_test)
    second, _ = submit(under_test)
    under_test.claim()
    under_test.ledger.release("w", DeathReason.WORKER_LOST)
    assert under_test.waiting() == [second]


def test_a_first_whose_deadline_passes_lets_its_followers_go(under_test: LedgerUnderTest) -> None:
    first, _ = submit(under_test, patience_ms=60_000)
    second, _ = submit(under_test)
    under_test.let_deadline_pass(first)
    under_test.sweep_until(under_test.ledger, lambda: second in under_test.waiting())
    assert under_test.get(first).state is JobState.FAILED
    answer(under_test)
    assert under_test.get(second).state is JobState.COMPLETED


def test_a_follower_has_its_own_deadline(under_test: LedgerUnderTest) -> None:
    submit(under_test)
    second, _ = submit(under_test, patience_ms=60_000)
    under_test.let_deadline_pass(second)
    ended = under_test.sweep_until(
        under_test.ledger, lambda: under_test.get(second).state is JobState.FAILED
    )
    assert ended == [second]
    answer(under_test)
    assert under_test.get(second).error["code"] == "deadline-exceeded"


def test_an_interactive_job_does_not_wait_for_bulk(under_test: LedgerUnderTest) -> None:
    bulk, _ = submit(under_test, priority=Priority.BULK)
    urgent, reception = submit(under_test)
    assert reception is Reception.ACCEPTED
    assert submit(under_test)[1] is Reception.JOINED
    assert answer(under_test)[0] == urgent
    assert under_test.get(bulk).state is JobState.PENDING


def test_what_must_be_classified_anew_joins_nobody(under_test: LedgerUnderTest) -> None:
    submit(under_test)
    assert submit(under_test, is_fresh=True)[1] is Reception.ACCEPTED


def test_nobody_joins_a_job_that_has_vanished(under_test: LedgerUnderTest) -> None:
    job_id, _ = submit(under_test)
    under_test.redis.delete(keys.job(job_id))
    assert submit(under_test)[1] is Reception.ACCEPTED


def test_one_job_answers_for_so_many_and_no_more(under_test: LedgerUnderTest) -> None:
    """All of them end in one script, which holds Redis up."""
    first, _ = submit(under_test)
    for number in range(250):
        under_test.redis.rpush(keys.FOLLOWERS + first, f"follower-{number}")
    assert submit(under_test)[1] is Reception.ACCEPTED
    assert submit(under_test)[1] is Reception.JOINED


def test_followers_of_a_job_that_killed_its_workers_run_alone(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, max_attempts=1)
    under_test.beat()
    submit(under_test)
    second, _ = submit(under_test)
    third, _ = submit(under_test)
    under_test.claim()
    under_test.ledger.release("w", DeathReason.WORKER_LOST)
    assert answer(under_test) == [second]
    assert answer(under_test) == [third]


def test_nobody_joins_a_job_that_waits_for_another_try(under_test: LedgerUnderTest) -> None:
    submit(under_test)
    under_test.ledger.finish([retry(claim) for claim in under_test.claim()])
    assert submit(under_test)[1] is Reception.ACCEPTED
