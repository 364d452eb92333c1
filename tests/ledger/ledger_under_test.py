"""Both halves of the ledger on one Redis, for tests of their contract."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal
from uuid import uuid4

import redis
from redis.asyncio import Redis as AsyncRedis

from app.core import keys
from app.core.config import (
    DeadSettings,
    IdempotencySettings,
    PayloadSettings,
    QueueSettings,
    ResultSettings,
    RetrySettings,
    Settings,
)
from app.jobs.admission import AdmissionGate
from app.jobs.answer_options import DEFAULT_OPTIONS
from app.jobs.batch import Batch, BatchImage
from app.jobs.batches import Batches
from app.jobs.dead_letters import DeadLetters
from app.jobs.intake import RedisIntake
from app.jobs.job import Answer, Backlog, Claim, Job, Outcome, Reception, Submission
from app.jobs.ledger import RedisLedger
from app.jobs.live_batches import LiveBatches
from app.jobs.records import read_jobs
from app.jobs.redis_guard import RedisGuard
from app.jobs.redis_payloads import RedisPayloadIntake
from app.jobs.withdrawals import Withdrawals

ANSWER = Answer(model="a-model", version="7", engine="torch", identity="a-model-7")
PREDICTIONS = [{"class_name": "cat", "confidence": 0.9}]
LONG = 60.0
LONG_MS = 60_000
GONE = 0.001  # the least lease that int milliseconds can say
UPLOAD_BYTES = 100
RESULT_SECONDS = 50
DEAD_LETTER_SECONDS = 5000


class LedgerUnderTest:
    """Both halves on one Redis, emptied; ``rules`` are fields of :class:`QueueSettings`."""

    def __init__(
        self,
        url: str,
        *,
        retry_limit: int = 2,
        cache_entries: int = 100,
        max_records: int = 1000,
        max_keys: int = 1000,
        max_letters: int = 1000,
        max_letter_bytes: int = 1 << 20,
        store: Literal["files", "redis"] = "files",
        **rules: Any,
    ) -> None:
        self.url = url
        self._rules: dict[str, Any] = {"batch_size": 4, "history_length": 1000} | rules
        self._others: dict[str, Any] = {
            "result": ResultSettings(
                ttl=RESULT_SECONDS, cache_entries=cache_entries, max_records=max_records
            ),
            "idempotency": IdempotencySettings(max_keys=max_keys),
            "retry": RetrySettings(limit=retry_limit),
            "dead": DeadSettings(
                letter_ttl=DEAD_LETTER_SECONDS, max_letters=max_letters, max_bytes=max_letter_bytes
            ),
            "payload": PayloadSettings(store=store),
        }
        # Any: redis-py's types allow each answer to be nearly everything.
        self.redis: Any = redis.Redis.from_url(url)
        self.redis.flushall()
        self.ledger = self.with_lease(LONG)

    def with_lease(self, seconds: float, sweep_seconds: float = 0.001) -> RedisLedger:
        """The worker's half with a lease of its own; sweeps as often as it is asked."""
        return RedisLedger(self.redis, self.settings(seconds, sweep_seconds))

    def settings(self, lease_seconds: float = LONG, sweep_seconds: float = 0.001) -> Settings:
        times: dict[str, Any] = {"lease_seconds": lease_seconds, "sweep_seconds": sweep_seconds}
        # Unchecked: tests want shorter times and smaller limits than anybody may set.
        queue = QueueSettings.model_construct(**self._rules, **times)
        return Settings().model_copy(update={"queue": queue, **self._others})

    # --- The API's half ---------------------------------------------------------------------------

    def submit(self, job_id: str | None = None, **fields: Any) -> str:
        """Submit a job that is accepted; ``fields`` as in :class:`Submission`."""
        job_id = job_id or str(uuid4())
        reception, _ = self.try_to_submit(job_id, **fields)
        assert reception
        return job_id

    def try_to_submit(self, job_id: str | None = None, **fields: Any) -> tuple[Reception, Backlog]:
        """What becomes of a job, and what waits then."""
        words: dict[str, Any] = {"owner": "anonymous", "upload_bytes": UPLOAD_BYTES} | fields

        async def run() -> tuple[Reception, Backlog]:
            async with AsyncRedis.from_url(self.url) as client:
                intake = RedisIntake(client, self.settings(), RedisGuard())
                return await intake.submit(Submission(job_id or str(uuid4()), **words))

        return asyncio.run(run())

    def submit_many(self, count: int) -> list[str]:
        return [self.submit() for _ in range(count)]

    def with_dead_letters(self, ask: Callable[[DeadLetters], Any]) -> Any:
        """What an operator gets who asks for dead letters."""

        async def run() -> Any:
            async with AsyncRedis.from_url(self.url) as client:
                guard = RedisGuard()
                payloads = RedisPayloadIntake(client, guard)
                return await ask(DeadLetters(client, self.settings(), payloads, guard))

        return asyncio.run(run())

    def retry_dead(self, *job_ids: str) -> Any:
        return self.with_dead_letters(lambda letters: letters.retry(job_ids))

    def purge_dead(self, *job_ids: str) -> Any:
        return self.with_dead_letters(lambda letters: letters.purge(job_ids))

    def withdraw(self, ask: Callable[[Withdrawals], Any]) -> Any:
        """What an owner gets who asks for a job to be cancelled or erased."""

        async def run() -> Any:
            async with AsyncRedis.from_url(self.url) as client:
                guard = RedisGuard()
                payloads = RedisPayloadIntake(client, guard)
                return await ask(Withdrawals(client, self.settings(), payloads, guard))

        return asyncio.run(run())

    def cancel(self, job_id: str, owner: str = "anonymous") -> Job:
        job: Job = self.withdraw(lambda withdrawals: withdrawals.cancel(job_id, owner))
        return job

    def erase(self, job_id: str, owner: str = "anonymous") -> None:
        self.withdraw(lambda withdrawals: withdrawals.erase(job_id, owner))

    def with_batches(self, ask: Callable[[Batches], Any]) -> Any:
        """What a sender gets who asks something of batches."""

        async def run() -> Any:
            async with AsyncRedis.from_url(self.url) as client:
                guard, settings = RedisGuard(), self.settings()
                payloads = RedisPayloadIntake(client, guard)
                gate = AdmissionGate(RedisIntake(client, settings, guard), payloads, settings.queue)
                live = LiveBatches(client, settings, guard, "a-channel")
                return await ask(Batches(client, settings, payloads, guard, gate, live))

        return asyncio.run(run())

    def submit_batch(
        self,
        images: Sequence[BatchImage],
        batch_id: str | None = None,
        is_fresh: bool = False,
        owner: str = "anonymous",
        **key: str,
    ) -> str:
        """Submit a batch that is accepted; ``key``: its ``key_name`` and ``fingerprint``."""
        batch_id = batch_id or str(uuid4())
        self.with_batches(
            lambda batches: batches.submit(
                batch_id, owner, images, DEFAULT_OPTIONS, is_fresh, **key
            )
        )
        return batch_id

    def get_batch(self, batch_id: str) -> Batch:
        """A batch's record, which is there."""
        return Batch.from_record(batch_id, self.redis.hgetall(keys.batch(batch_id)))

    def ended_in_batch(self, batch_id: str) -> list[str]:
        """The jobs of a batch that have a line in its results."""
        return [word.decode() for word in self.redis.lrange(keys.batch_ended(batch_id), 0, -1)]

    # --- The worker's half ------------------------------------------------------------------------

    def claim(self, holder: str = "w", answer: Answer = ANSWER) -> list[Claim]:
        return self.ledger.claim(holder, answer).claims

    def beat(self, identity: str = ANSWER.identity) -> None:
        """A worker says which model it runs."""
        self.ledger.beat("worker", "{}", LONG_MS, identity)

    def answer_bell(self) -> bool:
        """What Celery does: take one doorbell, if there is one."""
        return self.redis.rpop(keys.DOORBELLS) is not None

    def sweep_until(self, ledger: RedisLedger, done: Callable[[], bool]) -> list[str]:
        """Sweep until ``done``; returns the ids of the jobs that ended so."""
        deadline = time.monotonic() + 5
        ended: list[str] = []
        while not done():
            assert time.monotonic() < deadline, "the sweeper never got there"
            ended += ledger.sweep()[1]
        return ended

    # --- What is in Redis -------------------------------------------------------------------------

    def bells(self) -> int:
        """Doorbells that nobody has answered."""
        return int(self.redis.llen(keys.DOORBELLS))

    def find(self, job_id: str) -> Job | None:
        return self._read([job_id])[0]

    def get(self, job_id: str) -> Job:
        job = self.find(job_id)
        assert job is not None
        return job

    def get_many(self, job_ids: Sequence[str]) -> list[Job]:
        """The records of jobs, all of them there."""
        jobs = [job for job in self._read(job_ids) if job is not None]
        assert len(jobs) == len(job_ids)
        return jobs

    def _read(self, job_ids: Sequence[str]) -> list[Job | None]:
        async def run() -> list[Job | None]:
            async with AsyncRedis.from_url(self.url) as client:
                return await read_jobs(client, RedisGuard(), job_ids)

        return asyncio.run(run())

    def waiting(self) -> list[str]:
        """Interactive jobs, then bulk jobs."""
        queues = (keys.QUEUE, keys.BULK_QUEUE)
        return [job_id.decode() for queue in queues for job_id in self.redis.lrange(queue, 0, -1)]

    def delayed(self) -> list[str]:
        return self.members(keys.DELAYED)

    def followers(self) -> list[str]:
        """The jobs that wait for another of their content."""
        lists = self.redis.keys(keys.FOLLOWERS + "*")
        return [job_id.decode() for key in lists for job_id in self.redis.lrange(key, 0, -1)]

    def members(self, key: str) -> list[str]:
        """The ids in a sorted set."""
        return [job_id.decode() for job_id in self.redis.zrange(key, 0, -1)]

    def backlog_bytes(self) -> int:
        return int(self.redis.get(keys.BACKLOG_BYTES) or 0)

    def history(self, job_id: str) -> list[str]:
        return [state for state, _ in self.history_with_attempts(job_id)]

    def history_with_attempts(self, job_id: str) -> list[tuple[str, int]]:
        return [
            (entry[b"state"].decode(), int(entry[b"attempt"]))
            for _, entry in self.redis.xrange(keys.HISTORY)
            if entry.get(b"job") == job_id.encode()
        ]

    def now_ms(self) -> int:
        """Redis's clock."""
        seconds, microseconds = self.redis.time()
        return int(seconds * 1000 + microseconds // 1000)

    # --- As if time had passed --------------------------------------------------------------------

    def let_retry_become_due(self, job_id: str) -> None:
        self.redis.zadd(keys.DELAYED, {job_id: 1}, xx=True)

    def let_lease_run_out(self, job_id: str) -> None:
        self.redis.zadd(keys.LEASES, {job_id: 1}, xx=True)

    def let_deadline_pass(self, job_id: str) -> None:
        self.redis.hset(keys.job(job_id), "deadline", 1)
        self.redis.zadd(keys.DEADLINES, {job_id: 1}, xx=True)

    def let_records_expire(self, *job_ids: str, owner: str = "anonymous") -> None:
        """The records go; their places in the owner's list stay until they are swept."""
        for job_id in job_ids:
            self.redis.delete(keys.job(job_id))
            self.redis.zadd(keys.jobs(owner), {job_id: 1}, xx=True)

    def let_dead_letter_grow_old(self, job_id: str) -> None:
        self.redis.zadd(keys.DEAD, {job_id: 1}, xx=True)


def make_images(count: int, content: str = "", error: str = "") -> list[BatchImage]:
    """Images of a batch that all have the same content, or the same error."""
    size = 0 if error else UPLOAD_BYTES
    return [BatchImage(str(uuid4()), size, content, "", "", error) for _ in range(count)]


@contextmanager
def memory_limit_reached(client: "redis.Redis") -> Iterator[None]:
    """Let Redis refuse what needs memory."""
    client.config_set("maxmemory", 1)
    try:
        yield
    finally:
        client.config_set("maxmemory", 0)


def completed(claim: Claim) -> Outcome:
    return Outcome.completed(claim, PREDICTIONS)


def retry(claim: Claim, delay_ms: int = LONG_MS) -> Outcome:
    return Outcome.retry(
        claim, "attempts-exhausted", "gave up", reason="out_of_memory", delay_ms=delay_ms
    )


def unprocessable(claim: Claim) -> Outcome:
    return Outcome.unprocessable(claim, "classification-failed", "no", "ValueError: too dark")


def failed(claim: Claim) -> Outcome:
    return Outcome.failed(claim, "undecodable-image", "broken")
