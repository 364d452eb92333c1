"""One attack on a running service: what it did once, and how to do it again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import psutil

from tests.service import RunningService


@dataclass(frozen=True, slots=True)
class Attack:
    """A row of the table in ``docs/security.md``.

    ``before`` is what commit e62be41 did. ``run`` attacks a ``classifier up`` that was started with
    ``environment``, behind the words of ``launcher``. It returns in one line what happens now,
    and raises :class:`AssertionError` where a bound does not hold.
    """

    name: str
    what: str
    before: str
    run: Callable[[RunningService], str]
    environment: Mapping[str, str] = field(default_factory=dict)
    launcher: Sequence[str] = ()


def find_processes(service: RunningService, command: str) -> list[psutil.Process]:
    """The service's processes whose command line has the word ``command``: `api`, `worker`."""
    return [
        process
        for process in psutil.Process(service.process.pid).children(recursive=True)
        if command in process.cmdline()
    ]


def measure_cpu_seconds(processes: list[psutil.Process]) -> float:
    """CPU time that the processes have used so far, that of their ended children included."""
    return sum(sum(process.cpu_times()[:4]) for process in processes)
