"""What every scenario works with: the service, the load on it, the fault's moments, the account."""

import contextlib
import random as randoms
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import httpx2

from tests.faults.cluster import Cluster
from tests.faults.invariant import Invariant, Verdict
from tests.faults.pictures import Prediction
from tests.faults.processes import Holding, Worker
from tests.faults.traffic import Accepted, Refused, Traffic

# Faults happen while there is still load to come.
_EARLIEST_SHARE, _LATEST_SHARE = 0.05, 0.7
_CATCH_SECONDS = 5
_PROBE_SECONDS = 120
PATIENCE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Pace:
    """How much and how long.

    ``faults``: how often a fault happens in one run. ``rolls``: how often each worker gets TERM.
    """

    jobs: int
    faults: int
    rate: float
    lease_seconds: float
    sweep_seconds: float
    away_seconds: float
    swallow_seconds: float
    shaky_seconds: float
    soft_limit_seconds: float
    max_attempts: int
    rolls: int

    def settings(self) -> dict[str, str]:
        """What the service is told of it."""
        return {
            "QUEUE_LEASE_SECONDS": f"{self.lease_seconds:g}",
            "QUEUE_SWEEP_SECONDS": f"{self.sweep_seconds:g}",
            "QUEUE_MAX_ATTEMPTS": str(self.max_attempts),
        }


SHORT = Pace(
    jobs=120,
    faults=1,
    rate=150,
    lease_seconds=1.5,
    sweep_seconds=0.3,
    away_seconds=1,
    swallow_seconds=3,
    shaky_seconds=3,
    soft_limit_seconds=4,
    max_attempts=2,
    rolls=1,
)
"""For every test run: the whole suite in about two minutes."""

LONG = Pace(
    jobs=760,
    faults=5,
    rate=100,
    lease_seconds=15,
    sweep_seconds=2,
    away_seconds=5,
    swallow_seconds=30,
    shaky_seconds=60,
    soft_limit_seconds=5,
    max_attempts=3,
    rolls=3,
)
"""For the table: leases and sweeps as the settings' defaults have them."""


class Drill:
    """One run of one scenario on a cluster that is ready."""

    def __init__(
        self,
        cluster: Cluster,
        pictures: Mapping[str, bytes],
        expected: Mapping[str, Prediction],
        pace: Pace,
        seed: str,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self.cluster = cluster
        self.pace = pace
        self.random = randoms.Random(seed)
        self.refused: list[Refused] = []
        self.unmet: list[str] = []
        self._patience_seconds = patience_seconds
        self._pictures = dict(pictures)
        self._usual = list(pictures)
        self._doomed: dict[str, str] = {}
        self._accepted: list[Accepted] = []
        self._traffic: Traffic | None = None
        self._recoveries: list[tuple[float, set[str]]] = []
        self._invariant = Invariant(cluster, expected, self._doomed)

    # --- Load -------------------------------------------------------------------------------------

    def doom(self, name: str, picture: bytes, reason: str) -> None:
        """Add a picture whose jobs can't succeed."""
        self._pictures[name] = picture
        self._doomed[name] = reason

    @contextlib.contextmanager
    def traffic(self, jobs: int | None = None, specials: Sequence[str] = ()) -> Iterator[Traffic]:
        """Send jobs meanwhile: the usual pictures, and ``specials`` at random places among them."""
        order = [self.random.choice(self._usual) for _ in range(jobs or self.pace.jobs)]
        for name in specials:
            order.insert(self.random.randrange(len(order)), name)
        self._traffic = traffic = Traffic(self.cluster, self._pictures, order, rate=self.pace.rate)
        try:
            with traffic:
                yield traffic
        finally:
            self._traffic = None
            self._accepted += traffic.account.accepted
            self.refused += traffic.account.refused

    def moments(self, traffic: Traffic, faults: int | None = None) -> Iterator[None]:
        """As many random moments of the traffic as faults shall happen."""
        number = self.pace.faults if faults is None else faults
        shares = [self.random.uniform(_EARLIEST_SHARE, _LATEST_SHARE) for _ in range(number)]
        for share in sorted(shares):
            traffic.wait_accepted(int(share * traffic.count))
            time.sleep(self.random.uniform(0, 0.05))
            yield

    # --- Victims ----------------------------------------------------------------------------------

    def choose_worker(self) -> Worker:
        """One of the workers that run."""
        return self.random.choice([item for item in self.cluster.workers if item.is_running()])

    def holdings(self, worker: Worker) -> list[Holding]:
        """What each of the worker's processes holds."""
        client = self.cluster.redis
        name = worker.find_name(client)
        return [Holding(client, name, pid) for pid in worker.child_pids()] if name else []

    def catch_busy(self, worker: Worker) -> Holding:
        """Wait for the moment when one of its processes holds jobs; if none comes, any will do."""
        deadline = time.monotonic() + _CATCH_SECONDS
        while True:
            holdings = self.holdings(worker)
            for holding in holdings:
                until = time.monotonic() + 0.2
                while time.monotonic() < until:
                    if holding.read():
                        return holding
            if holdings and time.monotonic() > deadline:
                return holdings[0]
            assert time.monotonic() < deadline + _PROBE_SECONDS, "the worker has no process"

    # --- Recovery ---------------------------------------------------------------------------------

    def expect_recovery(self, jobs: set[str], since: float | None = None) -> None:
        """The jobs were hit now, or at ``since``: recovered when the last of them has ended."""
        if jobs:
            self._recoveries.append((since or time.time(), jobs))

    def probe(self, since: float | None = None) -> None:
        """The fault is over now, or was at ``since``: recovered when a job, sent at once and again
        while it is refused, has ended."""
        over = since or time.time()
        name = self.random.choice(self._usual)
        deadline = time.monotonic() + _PROBE_SECONDS
        with httpx2.Client(base_url=self.cluster.url, timeout=30) as client:
            while True:
                with contextlib.suppress(httpx2.TransportError):
                    reply = client.post("/classify", files={"file": self._pictures[name]})
                    if reply.status_code == 202:
                        break
                assert time.monotonic() < deadline, "the service takes no work any more"
                time.sleep(0.05)
        job = Accepted(reply.json()["job_id"], name, time.time())
        self._accepted.append(job)
        self._recoveries.append((over, {job.job_id}))

    def wait_calm(self) -> bool:
        """Wait until all that was accepted so far has ended; ``False`` when it does not in time."""
        under_way = self._traffic.account.accepted if self._traffic else []
        jobs = [job.job_id for job in [*self._accepted, *under_way]]
        return self._invariant.wait_ended(jobs, self._patience_seconds)

    # --- Account ----------------------------------------------------------------------------------

    def demand(self, condition: bool, text: str) -> None:
        """What must hold besides the invariant; ``text`` says what does not."""
        if not condition:
            self.unmet.append(text)

    def conclude(self) -> Verdict:
        """Wait until all has ended, and judge."""
        verdict = self._invariant.check(self._accepted, self._patience_seconds)
        unclear = {item.describe() for item in self.refused if not item.is_clear()}
        verdict.unmet += [*self.unmet, *unclear]
        courses = self._invariant.history.courses
        for since, jobs in self._recoveries:
            ends = [courses[job_id].ended_at() for job_id in jobs if job_id in courses]
            known = [end for end in ends if end is not None]
            if known:
                verdict.recoveries_seconds.append(max(max(known) - since, 0.0))
        return verdict


@dataclass(frozen=True)
class Setup:
    """The cluster that a scenario needs; those with equal ones share one, one after the other."""

    worker_module: str = "app.cli"
    settings: tuple[tuple[str, str], ...] = ()
    runs_up: bool = False
    has_small_disk: bool = False


def create_patient_setup(pace: Pace) -> Setup:
    """Whoever kills at random may hit one job each time; the service gives none up for that."""
    return Setup(settings=(("QUEUE_MAX_ATTEMPTS", str(pace.faults + 1)),))


@dataclass(frozen=True)
class Scenario:
    """A fault. ``fault`` is its line in the table; ``find_obstacle`` says why it can't run here."""

    name: str
    fault: str
    act: Callable[[Drill], None]
    create_setup: Callable[[Pace], Setup] = create_patient_setup
    find_obstacle: Callable[[], str | None] = lambda: None
