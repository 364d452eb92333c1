"""The promise, checked on every job: *an accepted job reaches exactly one terminal state*.

And what a user expects besides: the answer is right for the image, and nothing is left lying about.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import redis

from app.core import keys
from tests.faults.cluster import Cluster
from tests.faults.history import History
from tests.faults.http_connection import HttpConnection, render_get
from tests.faults.pictures import Prediction, read_prediction
from tests.faults.traffic import Accepted

CONFIDENCE_TOLERANCE = 0.02
_SETTLE_SECONDS = 10
# A worker may die after it has ended its jobs and before it has erased their uploads. Others do so
# when its heartbeat has run out.
_ERASE_SECONDS = 20
_POLL_SECONDS = 0.1
_READERS = 4
_COMPLAINTS = ("lost", "duplicated", "wrong", "leftovers", "unmet")


@dataclass(slots=True)
class Verdict:
    """What a scenario showed. The lists name each job with what is wrong about it.

    ``unmet``: what the scenario itself demands besides, such as how fast a refusal is.
    """

    jobs: int = 0
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    unmet: list[str] = field(default_factory=list)
    recoveries_seconds: list[float] = field(default_factory=list)

    def is_good(self) -> bool:
        """Whether the promise held."""
        return not any(getattr(self, kind) for kind in _COMPLAINTS)

    def describe(self) -> str:
        """What is wrong, a few of each kind."""
        parts = []
        for kind in _COMPLAINTS:
            found: list[str] = getattr(self, kind)
            if found:
                more = f" and {len(found) - 5} more" if len(found) > 5 else ""
                parts.append(f"{kind}: {'; '.join(found[:5])}{more}")
        return f"{self.jobs} jobs. " + ("\n".join(parts) or "All is well.")


class Invariant:
    """Knows what to expect of every picture. Made before the first job is sent.

    ``expected``: the right answer by picture. ``doomed``: pictures whose jobs shall fail instead
    and be kept as dead letters, with the reason.
    """

    def __init__(
        self,
        cluster: Cluster,
        expected: Mapping[str, Prediction],
        doomed: Mapping[str, str] | None = None,
    ) -> None:
        self._cluster = cluster
        self._expected = expected
        self._doomed = {} if doomed is None else doomed
        self.history = History(cluster.redis)

    def check(self, accepted: Sequence[Accepted], patience_seconds: float) -> Verdict:
        """Wait until all has ended, then count. What was not has left things lying about: where
        jobs are lost, leftovers are not sought."""
        verdict = Verdict(jobs=len(accepted))
        if self.wait_ended([job.job_id for job in accepted], patience_seconds):
            verdict.leftovers = self._wait_settled(accepted)
        self.history.read(self._cluster.redis)
        for job in accepted:
            course = self.history.courses[job.job_id]
            if course.ended_at() is None:
                states = [item.state for item in course.transitions]
                verdict.lost.append(f"{job.job_id} ({job.picture}): {' '.join(states)}")
            fault = course.find_fault()
            if fault:
                verdict.duplicated.append(f"{job.job_id} ({job.picture}): {fault}")
        lost = {text.split(" ")[0] for text in verdict.lost}
        verdict.wrong = asyncio.run(
            self._find_wrong([job for job in accepted if job.job_id not in lost])
        )
        return verdict

    def wait_ended(self, job_ids: Iterable[str], patience_seconds: float) -> bool:
        """Wait until the jobs are terminal; ``False`` when some are not in time."""
        deadline = time.monotonic() + patience_seconds
        open_ids = set(job_ids)
        while open_ids:
            self._read_history()
            courses = self.history.courses
            open_ids = {job_id for job_id in open_ids if courses[job_id].ended_at() is None}
            if open_ids and time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS if open_ids else 0)
        return True

    def _read_history(self) -> None:
        try:
            self.history.read(self._cluster.redis)
        except redis.RedisError:
            return  # a scenario may have it restarted just now

    def _wait_settled(self, accepted: Sequence[Accepted]) -> list[str]:
        kept = {job.job_id for job in accepted if job.picture in self._doomed}
        erased = {job.job_id for job in accepted} - kept
        left = self._wait_gone(self._find_leftovers, _SETTLE_SECONDS)
        orphans = self._wait_gone(lambda: self._find_orphans(erased), _ERASE_SECONDS)
        return left + [f"payload of {job_id}" for job_id in orphans]

    @staticmethod
    def _wait_gone(find: Callable[[], list[str]], seconds: float) -> list[str]:
        deadline = time.monotonic() + seconds
        while (left := find()) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return left

    def _find_leftovers(self) -> list[str]:
        client = self._cluster.redis
        pipeline = client.pipeline(transaction=False)
        pipeline.llen(keys.QUEUE)
        pipeline.zcard(keys.LEASES)
        pipeline.zcard(keys.DELAYED)
        pipeline.get(keys.BACKLOG_BYTES)
        pipeline.hlen(keys.FLIGHTS)
        names = (
            *("jobs in the queue", "leases", "delayed jobs", "bytes in the backlog's count"),
            "contents that a job is to answer for",
        )
        counts = zip(names, pipeline.execute(), strict=True)
        left = [f"{int(count)} {name}" for name, count in counts if int(count or 0)]
        if not left:
            holders = client.scan_iter(keys.HOLDER + "*", count=10_000)
            left = [key.decode() for key in holders]
        return left

    def _find_orphans(self, erased: set[str]) -> list[str]:
        folder = self._cluster.payload_folder()
        files = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        return sorted(files & erased)

    async def _find_wrong(self, jobs: Sequence[Accepted]) -> list[str]:
        wrong: list[str] = []
        waiting = iter(jobs)

        async def read_some() -> None:
            async with HttpConnection(self._cluster.port) as connection:
                for job in waiting:
                    complaint = await self._compare(connection, job)
                    if complaint:
                        wrong.append(f"{job.job_id} ({job.picture}): {complaint}")

        await asyncio.gather(*(read_some() for _ in range(_READERS)))
        return wrong

    async def _compare(self, connection: HttpConnection, job: Accepted) -> str | None:
        reply = await connection.ask(render_get(f"/result/{job.job_id}"))
        if job.picture in self._doomed:
            return self._find_wrong_death(job, reply.status)
        if reply.status != 200:
            return f"{reply.status} {reply.body.decode(errors='replace')}"
        found = read_prediction(reply.body)
        expected = self._expected[job.picture]
        close = abs(found.confidence - expected.confidence) <= CONFIDENCE_TOLERANCE
        return None if found.class_name == expected.class_name and close else str(found)

    def _find_wrong_death(self, job: Accepted, status: int) -> str | None:
        client = self._cluster.redis
        state, reason = client.hmget(keys.job(job.job_id), "state", "dead")
        if state != b"failed" or status < 400:
            return f"{state!r} instead of failed"
        if (reason or b"").decode() != self._doomed[job.picture]:
            return f"given up for {reason!r}"
        if client.zscore(keys.DEAD, job.job_id) is None:
            return "is no dead letter"
        return None


def group_verdicts(verdicts: Iterable[Verdict]) -> Verdict:
    """All of them as one."""
    total = Verdict()
    for verdict in verdicts:
        total.jobs += verdict.jobs
        for name in (*_COMPLAINTS, "recoveries_seconds"):
            getattr(total, name).extend(getattr(verdict, name))
    return total
