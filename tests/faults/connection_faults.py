"""Redis goes away, or the network between it and everybody else misbehaves."""

import signal
import time

from tests.faults.drill import Drill, Scenario

_DELAY_SECONDS = 0.2
_RESET_SHARE = 0.05
# With the client's own time limit of 2 s, and a busy machine.
_REFUSAL_SECONDS = 3.0


def restart_redis(drill: Drill, number: signal.Signals) -> None:
    cluster = drill.cluster
    with drill.traffic() as traffic:
        for _ in drill.moments(traffic, 1):
            cluster.end_redis(number)
            time.sleep(drill.pace.away_seconds)
            cluster.start_redis()
            drill.probe()
    _demand_quick_refusals(drill)


def terminate_redis(drill: Drill) -> None:
    restart_redis(drill, signal.SIGTERM)


def kill_redis(drill: Drill) -> None:
    restart_redis(drill, signal.SIGKILL)


def reset_connections(drill: Drill) -> None:
    with drill.traffic() as traffic:
        for _ in drill.moments(traffic):
            drill.cluster.proxy.reset()
            drill.probe()


def swallow_everything(drill: Drill) -> None:
    """No end, no reset, no answer: what a firewall does that forgot its connections."""
    with drill.traffic() as traffic:
        for _ in drill.moments(traffic, 1):
            drill.cluster.proxy.swallow()
            time.sleep(drill.pace.swallow_seconds)
            drill.cluster.proxy.pass_on()
            drill.probe()
    _demand_quick_refusals(drill)


def lose_doorbells(drill: Drill) -> None:
    """Redis gives a bell away and the worker never hears of it: under load, then for lone jobs."""
    proxy = drill.cluster.proxy
    with drill.traffic() as traffic:
        for _ in drill.moments(traffic):
            proxy.cut_after("BRPOP").wait(drill.pace.lease_seconds)
    for _ in range(drill.pace.faults):
        if not drill.wait_calm():
            return
        cut = proxy.cut_after("BRPOP")
        drill.probe()
        drill.demand(cut.wait(drill.pace.lease_seconds), "no doorbell was lost")


def slow_connections(drill: Drill) -> None:
    # Every round trip takes 200 ms, so fewer jobs keep the service busy as long.
    with drill.traffic(drill.pace.jobs // 3) as traffic:
        for _ in drill.moments(traffic, 1):
            drill.cluster.proxy.delay(_DELAY_SECONDS)
    drill.wait_calm()
    drill.cluster.proxy.pass_on()


def shake_connections(drill: Drill) -> None:
    end = time.monotonic() + drill.pace.shaky_seconds
    drill.cluster.proxy.reset_randomly(_RESET_SHARE, drill.pace.shaky_seconds, drill.random)
    while time.monotonic() < end:
        with drill.traffic(drill.pace.jobs // 4):
            pass
    drill.probe()


def _demand_quick_refusals(drill: Drill) -> None:
    """While Redis is away a no comes soon."""
    drill.demand(bool(drill.refused), "nothing was refused while Redis was away")
    slowest = max((item.answered_in_seconds for item in drill.refused), default=0)
    drill.demand(slowest < _REFUSAL_SECONDS, f"a refusal took {slowest:.1f} s")


SCENARIOS = [
    Scenario("terminate-redis", "Redis stopped with SIGTERM, started again", terminate_redis),
    Scenario("kill-redis", "Redis killed, started again", kill_redis),
    Scenario("reset-connections", "all connections to Redis reset", reset_connections),
    Scenario(
        "swallow-everything", "packets to and from Redis silently dropped", swallow_everything
    ),
    Scenario("lose-doorbells", "doorbells lost between Redis and worker", lose_doorbells),
    Scenario("slow-connections", "200 ms more to Redis and back", slow_connections),
    Scenario("shake-connections", "5 % of connections reset each second", shake_connections),
]
