"""Images that do harm to the process that classifies them."""

from tests.faults.drill import Drill, Pace, Scenario, Setup
from tests.faults.trapped_worker import Trap


def send_deadly_images(drill: Drill) -> None:
    """Only their own jobs die: those that were in a batch with one complete."""
    _send(drill, Trap.DEADLY, "worker_lost")


def send_hanging_images(drill: Drill) -> None:
    """The hard limit ends the process, the worker lives on."""
    _send(drill, Trap.HANGING, "timed_out")


def send_sleeping_images(drill: Drill) -> None:
    """The soft limit interrupts the batch."""
    _send(drill, Trap.SLEEPING, "timed_out")


def _send(drill: Drill, trap: Trap, reason: str) -> None:
    drill.doom(trap.name, trap.render(), reason)
    workers = [worker.pid for worker in drill.cluster.workers]
    with drill.traffic(specials=[trap.name] * drill.pace.faults):
        pass
    drill.wait_calm()
    alive = [worker.pid for worker in drill.cluster.workers if worker.is_running()]
    drill.demand(alive == workers, "a worker's main process has ended")


def _create_setup(pace: Pace) -> Setup:
    limits = {
        "WORKER_SOFT_LIMIT_SECONDS": f"{pace.soft_limit_seconds:g}",
        "WORKER_TIME_LIMIT_SECONDS": f"{pace.soft_limit_seconds * 1.5:g}",
    }
    return Setup("tests.faults.trapped_worker", tuple(limits.items()))


SCENARIOS = [
    Scenario(
        "deadly-image",
        "an image that kills its process, among full batches",
        send_deadly_images,
        _create_setup,
    ),
    Scenario(
        "hanging-image",
        "an image that hangs the engine for good",
        send_hanging_images,
        _create_setup,
    ),
    Scenario(
        "sleeping-image",
        "an image that takes for ever, but can be interrupted",
        send_sleeping_images,
        _create_setup,
    ),
]
