"""Memory, disk and clocks that are not what they should be."""

import time

from tests.faults.drill import Drill, Pace, Scenario, Setup
from tests.faults.skewed_clock import build_skewed_clock, find_clock_obstacle
from tests.faults.small_disk import find_disk_obstacle
from tests.faults.trapped_worker import MARGIN_VARIABLE, Trap

_MARGIN_BYTES = 128 << 20  # enough for the usual pictures, not for a greedy engine
_GREEDY_JOBS = 2


def fill_redis(drill: Drill) -> None:
    redis = drill.cluster.redis
    with drill.traffic() as traffic:
        for _ in drill.moments(traffic, 1):
            redis.config_set("maxmemory", redis.info("memory")["used_memory"])
            time.sleep(drill.pace.away_seconds)
            drill.demand(drill.wait_calm(), "accepted jobs do not end while Redis is full")
            redis.config_set("maxmemory", 0)
            drill.probe()
    drill.demand(bool(drill.refused), "nothing was refused")


def fill_disk(drill: Drill) -> None:
    disk = drill.cluster.disk
    assert disk is not None
    with drill.traffic() as traffic:
        for _ in drill.moments(traffic, 1):
            disk.fill()
            time.sleep(drill.pace.away_seconds)
            drill.demand(drill.wait_calm(), "accepted jobs do not end while the disk is full")
            disk.free()
            drill.probe()
    drill.demand(bool(drill.refused), "nothing was refused")


def exhaust_memory(drill: Drill) -> None:
    """What fits is classified, what does not is tried again and then given up."""
    drill.doom("greedy", Trap.GREEDY.render(), "retries_exhausted")
    with drill.traffic(specials=["greedy"] * _GREEDY_JOBS):
        pass


def skew_clock(drill: Drill) -> None:
    """One worker believes that it is ten minutes later than it is."""
    cluster = drill.cluster
    plain = cluster.workers.pop()
    plain.end()
    skewed = cluster.start_worker(build_skewed_clock(cluster.folder))
    cluster.wait_ready()
    with drill.traffic() as traffic:
        for _ in drill.moments(traffic):
            drill.expect_recovery(drill.catch_busy(skewed).kill())
            drill.expect_recovery(drill.catch_busy(cluster.workers[0]).kill())


def _create_memory_setup(_: Pace) -> Setup:
    settings = {
        MARGIN_VARIABLE: str(_MARGIN_BYTES),
        "RETRY_LIMIT": "2",
        "RETRY_BACKOFF_SECONDS": "0.2",
    }
    return Setup("tests.faults.trapped_worker", tuple(settings.items()))


def _create_disk_setup(_: Pace) -> Setup:
    # Without a reserve writes really fail.
    return Setup(settings=(("PAYLOAD_RESERVE_BYTES", "0"),), has_small_disk=True)


SCENARIOS = [
    Scenario("fill-redis", "Redis at its memory limit", fill_redis),
    Scenario(
        "fill-disk", "the uploads' disk full", fill_disk, _create_disk_setup, find_disk_obstacle
    ),
    Scenario("exhaust-memory", "a child out of memory", exhaust_memory, _create_memory_setup),
    Scenario(
        "skew-clock",
        "one worker's clock off by ten minutes, children killed",
        skew_clock,
        find_obstacle=find_clock_obstacle,
    ),
]
