"""What must hold after any history: nothing is lost, nothing counted twice, an end is the end."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from app.core import keys
from app.core.errors import BatchEndedError, JobEndedError
from app.jobs.job import (
    Claim,
    DeathReason,
    Job,
    JobState,
    Outcome,
    Priority,
    Stage,
    render_error,
)
from tests.ledger.ledger_under_test import (
    LONG_MS,
    LedgerUnderTest,
    completed,
    failed,
    make_images,
    retry,
    unprocessable,
)

BATCH_SIZE = 3
STEPS = 300
OWNER = "anonymous"
REFUSED = render_error("empty-file", "The file is empty.")
UNFINISHED = (JobState.PENDING, JobState.PROCESSING)


class Chance:
    """Does one random thing after another to a ledger, as many workers and operators would."""

    def __init__(self, under_test: LedgerUnderTest, seed: int) -> None:
        self._under_test = under_test
        self._random = random.Random(seed)
        self._claims: list[Claim] = []
        self._ended: dict[str, str] = {}
        self._unwanted: frozenset[str] = frozenset()
        self.submitted: list[str] = []
        self.erased: list[str] = []
        self.batches: dict[str, list[str]] = {}
        self._retried: set[str] = set()
        self.verdicts: Counter[str] = Counter()
        self._events: list[Callable[[], None]] = [
            *[self._submit] * 4,
            *[self._claim] * 3,
            *[self._finish] * 3,
            self._give_back,
            self._sweep,
            self._pass_time,
            self._pass_time,
            self._retry_or_purge,
            self._report_progress,
            *[self._cancel] * 2,
            self._erase,
            self._submit_batch,
            self._cancel_batch,
            self._erase_batch,
        ]

    def step(self) -> str:
        """One event; returns its name."""
        event = self._random.choice(self._events)
        event()
        return event.__name__

    def _make_id(self, kind: str) -> str:
        return f"{kind}-{self._random.randbytes(8).hex()}"

    def _submit(self) -> None:
        patience_ms = self._random.choice((0, LONG_MS))
        size = self._random.randrange(1, 1000)
        job_id = self._make_id("job")
        known = self.submitted and self._random.random() < 0.1
        if known:
            job_id = self._random.choice(self.submitted)
        accepted, _ = self._under_test.try_to_submit(
            job_id,
            upload_bytes=size,
            patience_ms=patience_ms,
            priority=self._random.choice(list(Priority)),
            content=self._random.choice(("", "cat", "dog")),
            is_fresh=self._random.random() < 0.5,
        )
        if accepted and not known:
            self.submitted.append(job_id)

    def _submit_batch(self) -> None:
        images = make_images(2, content=self._random.choice(("", "cat", "cow")))
        images += make_images(self._random.randrange(2), error=REFUSED)
        images += make_images(self._random.randrange(3))
        # Ids of our own: the same seed shall make the same history.
        images = [replace(image, job_id=self._make_id("job")) for image in images]
        batch_id = self._under_test.submit_batch(images, self._make_id("batch"))
        self.batches[batch_id] = [image.job_id for image in images]
        self.submitted += self.batches[batch_id]

    def _cancel_batch(self) -> None:
        if self.batches:
            batch_id = self._random.choice(list(self.batches))
            has_ended = self._under_test.get_batch(batch_id).has_ended()
            try:
                self._under_test.with_batches(lambda batches: batches.cancel(batch_id, OWNER))
            except BatchEndedError:
                assert has_ended
            else:
                assert not has_ended
                assert not self._under_test.get_batch(batch_id).counts[JobState.PENDING]

    def _erase_batch(self) -> None:
        if self.batches and self._random.random() < 0.3:
            batch_id = self._random.choice(list(self.batches))
            self._under_test.with_batches(lambda batches: batches.erase(batch_id, OWNER))
            for job_id in self.batches.pop(batch_id):
                assert self._under_test.find(job_id) is None
                if job_id in self.submitted:
                    self._forget(job_id)
                    self.erased.append(job_id)

    def _claim(self) -> None:
        self._claims += self._under_test.claim(f"w{self._random.randrange(4)}")

    def _finish(self) -> None:
        # Current claims and outdated ones alike.
        claims = self._random.sample(self._claims, min(len(self._claims), 3))
        outcomes = [self._judge(claim) for claim in claims]
        if outcomes:
            self._under_test.ledger.finish(outcomes)

    def _judge(self, claim: Claim) -> Outcome:
        if claim.job_id in self._unwanted:
            return Outcome.cancelled(claim)
        return self._random.choice((completed, completed, failed, retry, unprocessable))(claim)

    def _report_progress(self) -> None:
        claims = self._random.sample(self._claims, min(len(self._claims), 3))
        self._unwanted |= self._under_test.ledger.report_progress(claims, 50, Stage.DECODING)

    def _cancel(self) -> None:
        if self.submitted:
            job_id = self._random.choice(self.submitted)
            before = self._under_test.get(job_id).state
            try:
                now = self._under_test.cancel(job_id).state
            except JobEndedError:
                assert before not in UNFINISHED
            else:
                ends = {JobState.PENDING: JobState.CANCELLED}
                assert now is ends.get(before, JobState.PROCESSING)

    def _erase(self) -> None:
        if self.submitted:
            job_id = self._random.choice(self.submitted)
            self._under_test.erase(job_id)
            assert self._under_test.find(job_id) is None
            self._forget(job_id)
            self.erased.append(job_id)

    def _give_back(self) -> None:
        holder = f"w{self._random.randrange(4)}"
        some = self._random.sample(self._claims, min(len(self._claims), 2))
        claims = self._random.choice(([], some))
        if self._random.random() < 0.5:
            self._under_test.ledger.hand_back(holder, claims)
        else:
            reason = self._random.choice((DeathReason.WORKER_LOST, DeathReason.TIMED_OUT))
            self._under_test.ledger.release(holder, reason, claims)

    def _sweep(self) -> None:
        self._under_test.ledger.sweep()

    def _pass_time(self) -> None:
        pass_time = self._random.choice(
            (
                self._under_test.let_retry_become_due,
                self._under_test.let_lease_run_out,
                self._under_test.let_deadline_pass,
            )
        )
        with_deadline = self._under_test.members(keys.DEADLINES)
        others = self._under_test.delayed() + self._under_test.members(keys.LEASES)
        candidates = with_deadline if pass_time == self._under_test.let_deadline_pass else others
        if candidates:
            pass_time(self._random.choice(candidates))

    def _retry_or_purge(self) -> None:
        dead = self._under_test.members(keys.DEAD)
        if not dead:
            return
        job_id = self._random.choice(dead)
        if self._random.random() < 0.7:
            self._under_test.retry_dead(job_id)
            self._retried.add(job_id)
        else:
            self._under_test.purge_dead(job_id)
            self._forget(job_id)
        self._ended.pop(job_id, None)

    def _forget(self, job_id: str) -> None:
        self.submitted.remove(job_id)
        self._ended.pop(job_id, None)

    # --- What must hold ---------------------------------------------------------------------------

    def assert_invariants(self) -> None:
        jobs = self._under_test.get_many(self.submitted)
        unfinished = {job.id: job for job in jobs if job.state in UNFINISHED}
        queue = Counter(self._under_test.waiting())
        leases = self._under_test.members(keys.LEASES)
        places = queue + Counter(leases) + Counter(self._under_test.delayed())
        # One that follows another is in no place but that; its deadline may have ended it there.
        places += Counter(job_id for job_id in self._under_test.followers() if job_id in unfinished)
        assert {job_id: places[job_id] for job_id in unfinished} == dict.fromkeys(unfinished, 1)
        processing = {job.id for job in jobs if job.state is JobState.PROCESSING}
        assert processing == set(leases)
        for place in (keys.DELAYED, keys.LEASES, keys.DEADLINES, keys.DEAD):
            assert not set(self._under_test.members(place)) & set(self.erased)
        total = sum(job.upload_bytes for job in unfinished.values())
        assert self._under_test.backlog_bytes() == total
        assert set(self._under_test.members(keys.DEADLINES)) <= set(unfinished)
        dead = {job.id for job in jobs if job.death_reason}
        assert set(self._under_test.members(keys.DEAD)) == dead
        assert self._under_test.bells() >= -(-sum(queue.values()) // BATCH_SIZE)
        for batch_id, job_ids in self.batches.items():
            self._assert_counted(batch_id, job_ids, unfinished)
        for job in jobs:
            if job.id not in unfinished:
                end = f"{job.state} {job.death_reason} {job.error} {job.finished_ms}"
                assert self._ended.setdefault(job.id, end) == end, "an end is the end"
                self.verdicts[job.death_reason or job.error.get("code", "completed")] += 1

    def _assert_counted(
        self, batch_id: str, job_ids: list[str], unfinished: dict[str, Job]
    ) -> None:
        """What a batch says of its jobs is true, and it is kept until all have ended."""
        batch = self._under_test.get_batch(batch_id)
        left = [unfinished[job_id] for job_id in job_ids if job_id in unfinished]
        assert batch.total == len(job_ids) == sum(batch.counts.values())
        for state in UNFINISHED:
            assert batch.counts[state] == [job.state for job in left].count(state)
        lines = Counter(self._under_test.ended_in_batch(batch_id))
        ended = set(job_ids) - {job.id for job in left}
        assert set(lines) >= ended and set(lines.values()) <= {1}
        # More than have ended: dead letters that were retried keep their lines.
        assert set(lines) <= set(job_ids)
        assert (self._under_test.redis.ttl(keys.batch(batch_id)) > 0) is not bool(left)
        if left and not self._retried & set(job_ids):
            kept = ended & set(self.submitted) - set(self._under_test.members(keys.DEAD))
            assert {self._under_test.redis.ttl(keys.job(job_id)) for job_id in kept} <= {-1}


@pytest.mark.parametrize("seed", range(6))
def test_after_any_history_every_job_is_in_its_one_place(server_url: str, seed: int) -> None:
    under_test = LedgerUnderTest(
        server_url, batch_size=BATCH_SIZE, max_attempts=2, retry_limit=1, history_length=0
    )
    chance = Chance(under_test, seed)
    # A history in which nothing happens proves nothing: it goes on until all these ends came.
    ends = {"completed", "undecodable-image", "deadline-exceeded", "unprocessable"}
    ends |= {"job-cancelled", "empty-file"}
    for number in range(10 * STEPS):
        name = chance.step()
        try:
            chance.assert_invariants()
        except AssertionError as error:
            raise AssertionError(f"after {name}, step {number}") from error
        if number >= STEPS and ends <= set(chance.verdicts):
            break
    assert ends <= set(chance.verdicts)
