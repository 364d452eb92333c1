"""Claims that came to nothing: given back, taken back, swept; when a job is given up."""

from app.core import keys
from app.jobs.job import DeathReason, JobState
from app.jobs.ledger import RedisLedger
from tests.ledger.ledger_under_test import (
    ANSWER,
    DEAD_LETTER_SECONDS,
    GONE,
    RESULT_SECONDS,
    LedgerUnderTest,
    completed,
    retry,
)


def test_what_a_dead_process_held_goes_back_to_the_head(under_test: LedgerUnderTest) -> None:
    ids = under_test.submit_many(6)
    under_test.claim()
    failed = under_test.ledger.release("w", DeathReason.WORKER_LOST)
    assert set(under_test.waiting()[:4]) == set(ids[:4])
    assert under_test.waiting()[4:] == ids[4:]
    assert (under_test.bells(), failed) == (2, [])


def test_members_of_a_batch_that_died_are_claimed_singly(under_test: LedgerUnderTest) -> None:
    under_test.submit_many(3)
    under_test.claim()
    under_test.ledger.release("w", DeathReason.WORKER_LOST)
    sizes = [len(under_test.claim(f"w{n}")) for n in range(3)]
    assert sizes == [1, 1, 1]


def test_a_lease_that_ran_out_returns_the_job(under_test: LedgerUnderTest) -> None:
    ledger = under_test.with_lease(GONE)
    job_id = under_test.submit()
    ledger.claim("w", ANSWER)
    under_test.sweep_until(ledger, lambda: under_test.waiting() == [job_id])
    assert under_test.get(job_id).state is JobState.PENDING
    assert under_test.redis.exists(keys.holder("w"), keys.LEASES) == 0


def test_a_renewed_lease_is_left_alone(under_test: LedgerUnderTest) -> None:
    short, long = under_test.with_lease(GONE), under_test.ledger
    renewed = under_test.submit()
    short.claim("renewed", ANSWER)
    long.renew(["renewed"])
    expired = under_test.submit()
    short.claim("expired", ANSWER)
    under_test.sweep_until(long, lambda: under_test.waiting() == [expired])
    assert under_test.get(renewed).state is JobState.PROCESSING


def test_renewing_does_not_revive_a_finished_job(under_test: LedgerUnderTest) -> None:
    under_test.submit()
    claims = under_test.claim()
    under_test.ledger.finish([completed(claims[0])])
    under_test.ledger.renew(["w"])
    assert under_test.redis.exists(keys.LEASES) == 0


def test_a_holder_takes_nothing_from_another(under_test: LedgerUnderTest) -> None:
    ids = under_test.submit_many(8)
    under_test.claim("a")
    claims = under_test.claim("b")
    under_test.ledger.release("a", DeathReason.WORKER_LOST, claims)
    assert under_test.waiting() == []
    assert {under_test.get(job_id).state for job_id in ids} == {JobState.PROCESSING}


def test_some_claims_are_given_up_and_the_others_kept(under_test: LedgerUnderTest) -> None:
    under_test.submit_many(4)
    first, second, *others = under_test.claim()
    under_test.ledger.release("w", DeathReason.TIMED_OUT, [first])
    under_test.ledger.hand_back("w", [second])
    assert set(under_test.waiting()) == {first.job_id, second.job_id}
    ended = under_test.ledger.finish([completed(claim) for claim in (first, second, *others)])
    assert ended == [claim.job_id for claim in others]


def test_giving_back_twice_changes_nothing(under_test: LedgerUnderTest) -> None:
    (job_id,) = under_test.submit_many(1)
    under_test.claim()
    for _ in range(3):
        under_test.ledger.release("w", DeathReason.WORKER_LOST)
    assert under_test.waiting() == [job_id]
    assert len(under_test.get(job_id).trail) == 1


# --- handed back in good health -------------------------------------------------------------------


def test_a_batch_that_is_handed_back_stays_together(under_test: LedgerUnderTest) -> None:
    ids = under_test.submit_many(4)
    under_test.claim()
    under_test.ledger.hand_back("w")
    assert {claim.job_id for claim in under_test.claim("other")} == set(ids)


def test_a_job_may_be_handed_back_as_often_as_it_likes(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, max_attempts=2)
    job_id = under_test.submit()
    for _ in range(5):
        under_test.claim()
        under_test.ledger.hand_back("w")
    under_test.claim()
    under_test.ledger.release("w", DeathReason.WORKER_LOST)
    assert under_test.waiting() == [job_id]
    assert under_test.get(job_id).attempts == 6


# --- given up -------------------------------------------------------------------------------------


def lose(ledger: RedisLedger, reason: DeathReason) -> list[str]:
    """Claim what waits and lose it again."""
    ledger.claim(f"lost-{reason}", ANSWER)
    return ledger.release(f"lost-{reason}", reason)


def test_a_job_that_loses_every_worker_is_a_dead_letter(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, max_attempts=2)
    job_id = under_test.submit()
    ended = [lose(under_test.ledger, DeathReason.WORKER_LOST) for _ in range(2)]
    job = under_test.get(job_id)
    assert (job.state, job.error["code"]) == (JobState.FAILED, "attempts-exhausted")
    assert job.death_reason == DeathReason.WORKER_LOST
    assert under_test.members(keys.DEAD) == [job_id]
    assert ended == [[], []], "a dead letter keeps its upload"
    assert under_test.redis.exists(keys.QUEUE, keys.LEASES) == 0
    assert RESULT_SECONDS < under_test.redis.ttl(keys.job(job_id)) <= DEAD_LETTER_SECONDS


def test_the_trail_tells_of_every_attempt(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, max_attempts=2)
    job_id = under_test.submit()
    (claim,) = under_test.claim("first")
    under_test.ledger.finish([retry(claim)])
    under_test.let_retry_become_due(job_id)
    under_test.sweep_until(under_test.ledger, lambda: under_test.waiting() == [job_id])
    for holder, reason in (("second", "handed_back"), ("third", "worker_lost")):
        under_test.claim(holder)
        if reason == "handed_back":
            under_test.ledger.hand_back(holder)
        else:
            under_test.ledger.release(holder, DeathReason.WORKER_LOST)
    under_test.claim("fourth")
    under_test.ledger.release("fourth", DeathReason.TIMED_OUT)
    job = under_test.get(job_id)
    assert [(note["attempt"], note["worker"], note["reason"]) for note in job.trail] == [
        (1, "first", "out_of_memory"),
        (2, "second", "handed_back"),
        (3, "third", "worker_lost"),
        (4, "fourth", "timed_out"),
    ]
    times = [note[key] for note in job.trail for key in ("started_ms", "ended_ms")]
    assert times == sorted(times) and times[0] >= job.created_ms
    assert job.death_reason == DeathReason.TIMED_OUT


def test_leases_that_run_out_count_as_losses(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, max_attempts=2)
    ledger = under_test.with_lease(GONE)
    job_id = under_test.submit()
    for _ in range(2):
        ledger.claim("silent", ANSWER)
        under_test.sweep_until(ledger, lambda: under_test.members(keys.LEASES) == [])
    assert under_test.get(job_id).death_reason == DeathReason.WORKER_LOST


def test_a_job_that_lost_a_worker_runs_alone_also_in_the_middle_of_the_queue(
    under_test: LedgerUnderTest,
) -> None:
    ids = under_test.submit_many(2)
    under_test.claim()
    under_test.ledger.release("w", DeathReason.TIMED_OUT)
    later = under_test.submit_many(5)
    batches = [{claim.job_id for claim in under_test.claim(f"w{n}")} for n in range(4)]
    assert [len(batch) for batch in batches] == [1, 1, 4, 1]
    assert batches[0] | batches[1] == set(ids)
    assert batches[2] | batches[3] == set(later)
