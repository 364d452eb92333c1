"""Dead letters: kept, looked at, retried, purged, let go when they are old."""

from functools import partial

import pytest

from app.core import keys
from app.core.errors import DeadLetterNotFoundError
from app.jobs.dead_letters import DeadLetters
from app.jobs.job import DeathReason, JobState
from tests.ledger.ledger_under_test import (
    ANSWER,
    DEAD_LETTER_SECONDS,
    LONG_MS,
    RESULT_SECONDS,
    UPLOAD_BYTES,
    LedgerUnderTest,
    completed,
    make_images,
    memory_limit_reached,
    retry,
    unprocessable,
)


def submit_dead(under_test: LedgerUnderTest, patience_ms: int = 0, holder: str = "w") -> str:
    """A job that the engine refuses."""
    job_id = under_test.submit(patience_ms=patience_ms)
    (claim,) = under_test.claim(holder)
    under_test.ledger.finish([unprocessable(claim)])
    return job_id


def test_dead_letters_are_counted_and_listed_the_latest_first(under_test: LedgerUnderTest) -> None:
    ids = [submit_dead(under_test) for _ in range(3)]
    for number, job_id in enumerate(ids):
        under_test.redis.zadd(keys.DEAD, {job_id: under_test.now_ms() + number})
    assert under_test.with_dead_letters(lambda letters: letters.count()) == 3
    listed = under_test.with_dead_letters(lambda letters: letters.list_newest(0, 2))
    assert [job.id for job in listed] == [ids[2], ids[1]]
    rest = under_test.with_dead_letters(lambda letters: letters.list_newest(2, 2))
    assert [job.id for job in rest] == [ids[0]]
    assert under_test.with_dead_letters(lambda letters: letters.list_newest(3, 2)) == []


def test_a_dead_letter_is_shown_and_no_other_job(under_test: LedgerUnderTest) -> None:
    dead = submit_dead(under_test)
    alive = under_test.submit()
    shown = under_test.with_dead_letters(lambda letters: letters.get(dead))
    assert (shown.id, shown.death_reason) == (dead, DeathReason.UNPROCESSABLE)
    for job_id in (alive, "unknown"):
        with pytest.raises(DeadLetterNotFoundError):
            under_test.with_dead_letters(partial(DeadLetters.get, job_id=job_id))


def test_a_retried_dead_letter_waits_under_its_id_for_good(under_test: LedgerUnderTest) -> None:
    job_id = submit_dead(under_test)
    assert under_test.retry_dead(job_id) == [job_id]
    job = under_test.get(job_id)
    assert (job.state, job.error, job.death_reason) == (JobState.PENDING, {}, "")
    assert under_test.waiting() == [job_id]
    assert under_test.members(keys.DEAD) == []
    assert under_test.redis.ttl(keys.job(job_id)) == -1, "it must not expire while it waits"
    assert under_test.backlog_bytes() == UPLOAD_BYTES


def test_it_runs_alone_and_may_complete(under_test: LedgerUnderTest) -> None:
    job_id = submit_dead(under_test)
    under_test.retry_dead(job_id)
    under_test.submit_many(2)
    (claim,) = under_test.claim()
    assert (claim.job_id, claim.attempt) == (job_id, 2)
    assert under_test.ledger.finish([completed(claim)]) == [job_id]
    assert under_test.get(job_id).state is JobState.COMPLETED


def test_its_failures_are_forgotten(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, max_attempts=2, retry_limit=0)
    job_id = under_test.submit()
    for _ in range(2):
        under_test.claim()
        under_test.ledger.release("w", DeathReason.WORKER_LOST)
    under_test.retry_dead(job_id)
    under_test.claim()
    under_test.ledger.release("w", DeathReason.WORKER_LOST)
    assert under_test.waiting() == [job_id]
    (claim,) = under_test.claim()
    under_test.ledger.finish([retry(claim)])
    assert under_test.get(job_id).death_reason == DeathReason.RETRIES_EXHAUSTED
    assert len(under_test.get(job_id).trail) == 4, "the trail is kept"


def test_its_deadline_is_forgotten(under_test: LedgerUnderTest) -> None:
    job_id = submit_dead(under_test, patience_ms=LONG_MS)
    under_test.retry_dead(job_id)
    under_test.ledger.sweep()
    (claim,) = under_test.claim()
    assert (claim.job_id, claim.patience_ms) == (job_id, None)


@pytest.mark.parametrize("what", ["pending", "processing", "completed", "retried", "unknown"])
def test_only_dead_letters_are_retried_or_purged(under_test: LedgerUnderTest, what: str) -> None:
    job_id = submit_dead(under_test) if what == "retried" else under_test.submit()
    if what == "retried":
        under_test.retry_dead(job_id)
    if what in ("processing", "completed"):
        (claim,) = under_test.claim()
    if what == "completed":
        under_test.ledger.finish([completed(claim)])
    if what == "unknown":
        job_id = "unknown"
    before = under_test.redis.hgetall(keys.job(job_id)), under_test.waiting()
    assert under_test.retry_dead(job_id) == under_test.purge_dead(job_id) == []
    assert (under_test.redis.hgetall(keys.job(job_id)), under_test.waiting()) == before


def test_a_purged_dead_letter_is_gone(under_test: LedgerUnderTest) -> None:
    job_id, other = submit_dead(under_test), submit_dead(under_test)
    assert under_test.purge_dead(job_id, "unknown") == [job_id]
    assert under_test.find(job_id) is None
    assert under_test.members(keys.DEAD) == [other]
    assert under_test.backlog_bytes() == 0


def test_many_are_retried_and_purged_in_one_call(under_test: LedgerUnderTest) -> None:
    ids = under_test.submit_many(12)
    while claims := under_test.claim():
        under_test.ledger.finish([unprocessable(claim) for claim in claims])
    assert set(under_test.purge_dead(*ids[:5])) == set(ids[:5])
    assert under_test.retry_dead(*ids) == ids[5:]
    assert under_test.waiting() == ids[5:]


def test_an_old_dead_letter_is_let_go_with_its_upload(under_test: LedgerUnderTest) -> None:
    old, young = submit_dead(under_test), submit_dead(under_test)
    under_test.let_dead_letter_grow_old(old)
    assert under_test.ledger.sweep()[1] == [old]
    assert under_test.members(keys.DEAD) == [young]


def test_an_upload_in_redis_lives_as_long_as_it_is_wanted(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, store="redis")
    job_id = "a-job"
    upload = keys.payload(job_id)
    under_test.redis.set(upload, b"image", ex=5)
    under_test.submit(job_id)
    assert under_test.redis.ttl(upload) == -1
    (claim,) = under_test.claim()
    under_test.ledger.finish([unprocessable(claim)])
    assert 5 < under_test.redis.ttl(upload) <= DEAD_LETTER_SECONDS
    under_test.retry_dead(job_id)
    assert under_test.redis.ttl(upload) == -1
    (claim,) = under_test.ledger.claim("w", ANSWER).claims
    under_test.ledger.finish([completed(claim)])
    assert under_test.redis.exists(upload) == 0


def test_a_purged_upload_in_redis_is_gone(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, store="redis")
    under_test.redis.set(keys.payload("a-job"), b"image")
    under_test.submit("a-job")
    (claim,) = under_test.claim()
    under_test.ledger.finish([unprocessable(claim)])
    under_test.purge_dead("a-job")
    assert under_test.redis.exists(keys.payload("a-job")) == 0


# --- How many are kept ----------------------------------------------------------------------------


def submit_dead_at(under_test: LedgerUnderTest, moment: int) -> str:
    """The same as if it had died at that moment, in ms."""
    job_id = submit_dead(under_test)
    under_test.redis.zadd(keys.DEAD, {job_id: moment}, xx=True)
    return job_id


@pytest.mark.parametrize("limit", [{"max_letters": 2}, {"max_letter_bytes": 2 * UPLOAD_BYTES}])
def test_the_latest_are_kept(server_url: str, limit: dict[str, int]) -> None:
    under_test = LedgerUnderTest(server_url, **limit)
    oldest, older, latest = (submit_dead_at(under_test, moment) for moment in (1, 2, 3))
    assert under_test.members(keys.DEAD) == [older, latest]
    job = under_test.get(oldest)
    assert (job.state, job.death_reason) == (JobState.FAILED, "")
    assert 0 < under_test.redis.ttl(keys.job(oldest)) <= RESULT_SECONDS


@pytest.mark.parametrize("death", ["unprocessable", "released", "swept"])
def test_the_upload_of_one_that_is_not_kept_can_go(server_url: str, death: str) -> None:
    under_test = LedgerUnderTest(server_url, max_letters=1, max_attempts=1)
    oldest = submit_dead_at(under_test, under_test.now_ms() - 1000)
    job_id = under_test.submit()
    (claim,) = under_test.claim()
    if death == "unprocessable":
        freed = under_test.ledger.finish([unprocessable(claim)])
    elif death == "released":
        freed = under_test.ledger.release("w", DeathReason.WORKER_LOST)
    else:
        under_test.let_lease_run_out(job_id)
        freed = under_test.sweep_until(
            under_test.ledger, lambda: under_test.members(keys.DEAD) == [job_id]
        )
    assert freed == [oldest]
    assert under_test.ledger.find_ended([oldest, job_id]) == [oldest]


def test_an_upload_in_redis_goes_with_its_dead_letter(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, max_letters=1, store="redis")
    oldest = under_test.submit()
    under_test.redis.set(keys.payload(oldest), b"image")
    under_test.ledger.finish([unprocessable(claim) for claim in under_test.claim()])
    under_test.redis.zadd(keys.DEAD, {oldest: 1}, xx=True)
    submit_dead(under_test)
    assert under_test.redis.exists(keys.payload(oldest)) == 0


def test_one_that_is_let_go_stays_readable_while_its_batch_runs(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, max_letters=1)
    images = make_images(2)
    under_test.submit_batch(images)
    first, second = under_test.claim()
    under_test.ledger.finish([unprocessable(first)])
    under_test.redis.zadd(keys.DEAD, {first.job_id: 1}, xx=True)
    submit_dead(under_test, holder="another")
    assert under_test.redis.ttl(keys.job(first.job_id)) == -1
    under_test.ledger.finish([completed(second)])
    assert 0 < under_test.redis.ttl(keys.job(first.job_id)) <= RESULT_SECONDS


def test_dead_letters_in_redis_leave_its_memory_to_others(server_url: str) -> None:
    """An eighth is theirs; the latest is kept in any case."""
    under_test = LedgerUnderTest(server_url, store="redis")
    submit_dead_at(under_test, 1)
    latest = under_test.submit()
    claims = under_test.claim()
    with memory_limit_reached(under_test.redis):
        under_test.ledger.finish([unprocessable(claim) for claim in claims])
    assert under_test.members(keys.DEAD) == [latest]
