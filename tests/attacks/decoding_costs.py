"""The most that an upload can cost, searched for: ``python -m tests.attacks.decoding_costs``.

Seeded and bounded. Each candidate goes the way of an upload: through the API's header reader, the
worker's examination, and a decoder where the worker would run it. CPU time of every process and
attempt is added up; memory is what a worker process and its guarded decoder take at once. Whatever
costs most is varied.
"""

import argparse
import os
import random
import resource
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from app.api.image_inspection import ImageInspector
from app.core.config import LimitSettings
from app.core.errors import ServiceError
from app.core.job_errors import JobFailedError
from app.inference.decoding.examination import examine
from app.inference.decoding.guard import Budget, GuardedDecoder, cpu_alarm
from app.inference.images import decode_examined
from tests.costly_recipes import CHOICES, Recipe, bake, describe, draw, vary
from tests.framing import FRAMING

MOST_CPU_SECONDS, MOST_MEGABYTES = 3.5, 700
_WORST = 10
# Recipes that are alike in these are of one kind.
_KIND = ("format", "shape", "coding", "pattern", "mode", "kind")
_BEGIN, _END = "<!-- costs: begin -->\n", "<!-- costs: end -->\n"
_LIMITS, _BUDGET = LimitSettings(), Budget()
_PIECE_BYTES = 65_536


class Cost(NamedTuple):
    """What an upload cost, from the API to its end.

    ``megabytes``: what its worker process and its guarded decoder took together, at most.
    """

    cpu_seconds: float
    megabytes: float
    outcome: str


def measure(data: bytes) -> Cost:
    """Send a file the way of an upload."""
    started = time.process_time()
    try:
        inspector = ImageInspector(_LIMITS)
        for start in range(0, len(data), _PIECE_BYTES):
            inspector.feed(data[start : start + _PIECE_BYTES])
        inspector.finish()
    except ServiceError as error:
        return Cost(time.process_time() - started, 0, f"refused: {error.code}")
    inspected = time.process_time() - started
    cost = _attempt(data, is_suspect=False)
    if cost.outcome == "lost":
        again = _attempt(data, is_suspect=True)
        lost = f"its worker lost, then {again.outcome}"
        cost = Cost(
            cost.cpu_seconds + again.cpu_seconds, max(cost.megabytes, again.megabytes), lost
        )
    return cost._replace(cpu_seconds=cost.cpu_seconds + inspected)


def _attempt(data: bytes, is_suspect: bool) -> Cost:
    """One claim, in a process that stands for a worker's child."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        outcome = _decode(data, is_suspect)
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        guarded = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        os.write(writing, f"{own + guarded} {outcome}".encode())
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as file:
        kilobytes, _, outcome = file.read().partition(" ")
    _, status, usage = os.wait4(child, 0)
    seconds = usage.ru_utime + usage.ru_stime
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGPROF, status
        return Cost(seconds, usage.ru_maxrss / 1024, "lost")
    return Cost(seconds, int(kilobytes) / 1024, outcome)


def _decode(data: bytes, is_suspect: bool) -> str:
    warnings.simplefilter("ignore")
    try:
        examined = examine(data, _LIMITS)
        if not is_suspect and not examined.is_costly:
            with cpu_alarm(_BUDGET.cpu_seconds):
                decode_examined(examined.data, FRAMING, _LIMITS)
            return "decoded"
        decoder = GuardedDecoder(data, FRAMING, _LIMITS, _BUDGET)
        while not decoder.is_done():
            decoder.wait(1)
        try:
            decoder.read_pixels()
        finally:
            decoder.close()
        return "decoded under guard"
    except JobFailedError as error:
        return error.code


class Found(NamedTuple):
    """A candidate and its cost."""

    cost: Cost
    size: int
    recipe: Recipe

    @property
    def share(self) -> float:
        """How much of what is allowed it takes, of time or of memory."""
        return max(self.cost.cpu_seconds / MOST_CPU_SECONDS, self.cost.megabytes / MOST_MEGABYTES)


def search(seed: int, seconds: float, most: int = sys.maxsize) -> list[Found]:
    """The ten candidates that cost most, of at most ``most`` and in about so many ``seconds``."""
    luck = random.Random(seed)
    end = time.monotonic() + seconds
    worst: list[Found] = []
    seen: set[str] = set()
    while len(seen) < most and time.monotonic() < end:
        is_fresh = not worst or luck.random() < 0.5
        recipe = (
            draw(luck, luck.choice(CHOICES)) if is_fresh else vary(luck, luck.choice(worst).recipe)
        )
        name = describe(recipe)
        if name in seen:
            continue
        seen.add(name)
        data = bake(recipe)
        worst = _keep_worst([*worst, Found(measure(data), len(data), recipe)])
    print(f"{len(seen)} candidates", flush=True)
    return worst


def _keep_worst(candidates: list[Found]) -> list[Found]:
    """The ten worst, of those that differ in little only the worst."""
    kinds: dict[tuple[Any, ...], Found] = {}
    for found in sorted(candidates, key=lambda found: -found.share):
        kinds.setdefault(tuple(found.recipe.get(name) for name in _KIND), found)
    return list(kinds.values())[:_WORST]


def confirm(found: Found, times: int = 3) -> Found:
    """The same measured again, and the least: other processes only ever add to it."""
    data = bake(found.recipe)
    costs = [found.cost, *(measure(data) for _ in range(times))]
    return found._replace(
        cost=Cost(
            min(cost.cpu_seconds for cost in costs),
            min(cost.megabytes for cost in costs),
            costs[-1].outcome,
        )
    )


def render(worst: list[Found]) -> str:
    """A table."""
    rows = [
        f"| {describe(item.recipe)} | {item.size:,} | {item.cost.cpu_seconds:.2f} "
        f"| {item.cost.megabytes:.0f} | {item.cost.outcome} |\n"
        for item in worst
    ]
    head = "| upload | bytes | CPU s | MB | outcome |\n| --- | --- | --- | --- | --- |\n"
    return head + "".join(rows)


def main() -> None:
    """Search, print the table and perhaps write it. Exit code 1 when a bound does not hold."""
    parser = argparse.ArgumentParser("python -m tests.attacks.decoding_costs", description=__doc__)
    parser.add_argument("--seed", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--document", type=Path, help="page whose table to write")
    arguments = parser.parse_args()
    worst = [confirm(found) for found in search(arguments.seed, arguments.seconds)]
    worst.sort(key=lambda found: -found.share)
    table = render(worst)
    print(table)
    if arguments.document:
        before, _, rest = arguments.document.read_text().partition(_BEGIN)
        after = rest.partition(_END)[2]
        arguments.document.write_text(f"{before}{_BEGIN}\n{table}\n{_END}{after}")
    sys.exit(any(found.share > 1 for found in worst))


if __name__ == "__main__":
    main()
