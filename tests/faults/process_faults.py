"""Processes that die, are stopped, or are told to go."""

import signal
import time
from dataclasses import replace

from tests.faults.drill import Drill, Pace, Scenario, Setup, create_patient_setup

_TERM_SECONDS = 30
# What a stopped process has sent before may still be on its way to Redis.
_LAST_WORDS_SECONDS = 0.05


def kill_child(drill: Drill) -> None:
    with drill.traffic() as traffic:
        for _ in drill.moments(traffic):
            holding = drill.catch_busy(drill.choose_worker())
            jobs = holding.kill()
            drill.expect_recovery(jobs)


def kill_main_process(drill: Drill) -> None:
    """Its children notice that they are orphans, in their own time."""
    with drill.traffic() as traffic:
        for _ in drill.moments(traffic):
            worker = drill.choose_worker()
            holding = drill.catch_busy(worker)
            worker.send(signal.SIGKILL)
            drill.expect_recovery(holding.read())
            _replace_ended(drill)


def kill_worker(drill: Drill) -> None:
    with drill.traffic() as traffic:
        for _ in drill.moments(traffic):
            worker = drill.choose_worker()
            holding = drill.catch_busy(worker)
            worker.send_family(signal.SIGKILL)
            drill.expect_recovery(holding.read())
            _replace_ended(drill)


def kill_both_workers(drill: Drill) -> None:
    with drill.traffic() as traffic:
        for _ in drill.moments(traffic):
            workers = list(drill.cluster.workers)
            holdings = [drill.catch_busy(worker) for worker in workers]
            for worker in workers:
                worker.send_family(signal.SIGKILL)
            drill.expect_recovery(set().union(*(holding.read() for holding in holdings)))
            _replace_ended(drill)


def kill_api(drill: Drill) -> None:
    with drill.traffic() as traffic:
        for _ in drill.moments(traffic):
            api = drill.cluster.api
            assert api is not None
            since = time.time()
            api.send_family(signal.SIGKILL)
            api.wait(_TERM_SECONDS)
            drill.cluster.start_api()
            drill.probe(since)


def kill_everything(drill: Drill) -> None:
    """`classifier up` with its Redis, its API and its workers."""
    with drill.traffic() as traffic:
        for _ in drill.moments(traffic):
            up = drill.cluster.up
            assert up is not None
            since = time.time()
            up.send_family(signal.SIGKILL)
            up.wait(_TERM_SECONDS)
            drill.cluster.start_up()
            drill.probe(since)


def stop_worker(drill: Drill) -> None:
    """Out of sight for twice its lease; what it answers afterwards comes too late."""
    with drill.traffic() as traffic:
        for _ in drill.moments(traffic, 1):
            worker = drill.choose_worker()
            jobs: set[str] = set()
            deadline = time.monotonic() + _TERM_SECONDS
            while not jobs and time.monotonic() < deadline:
                holding = drill.catch_busy(worker)
                since = time.time()
                worker.send_family(signal.SIGSTOP)
                time.sleep(_LAST_WORDS_SECONDS)
                jobs = holding.read()
                if not jobs:
                    worker.send_family(signal.SIGCONT)
            drill.demand(bool(jobs), "the stopped worker held nothing")
            drill.expect_recovery(jobs, since)
            time.sleep(2 * drill.pace.lease_seconds)
            worker.send_family(signal.SIGCONT)


def roll_workers(drill: Drill) -> None:
    """TERM to one after the other, as a new version is rolled out."""
    with drill.traffic() as traffic:
        for _ in drill.moments(traffic, drill.pace.rolls):
            for worker in list(drill.cluster.workers):
                worker.send(signal.SIGTERM)
                code = worker.wait(_TERM_SECONDS)
                drill.demand(code == 0, f"TERM ended {worker.name} with {code}")
                _replace_ended(drill)


def _replace_ended(drill: Drill) -> None:
    cluster = drill.cluster
    for worker in list(cluster.workers):
        if not worker.has_ended_soon():
            continue
        cluster.workers.remove(worker)
        cluster.start_worker()
    cluster.wait_ready()


def _create_sharing_setup(pace: Pace) -> Setup:
    """One answer is remembered, so that of six pictures some wait for others and some are known."""
    patient = create_patient_setup(pace)
    return replace(patient, settings=(*patient.settings, ("RESULT_CACHE_ENTRIES", "1")))


def _create_up_setup(_: Pace) -> Setup:
    return Setup(runs_up=True)


SCENARIOS = [
    Scenario("kill-child", "a worker's child killed", kill_child),
    Scenario(
        "kill-child-sharing",
        "a worker's child killed while jobs share answers",
        kill_child,
        _create_sharing_setup,
    ),
    Scenario("kill-main-process", "a worker's main process killed", kill_main_process),
    Scenario("kill-worker", "a whole worker killed", kill_worker),
    Scenario("kill-both-workers", "both workers killed at once", kill_both_workers),
    Scenario("kill-api", "the API killed", kill_api),
    Scenario(
        "kill-up", "all of `classifier up` killed, its Redis too", kill_everything, _create_up_setup
    ),
    Scenario("stop-worker", "a worker stopped for twice its lease", stop_worker),
    Scenario("roll-workers", "TERM to both workers in turn, three times", roll_workers),
]
