"""How much of the machine others took while something was measured: neighbours, the hypervisor."""

import time

import psutil


class Bystanders:
    """Begins to watch when it is made."""

    def __init__(self) -> None:
        self._busy = _machine_seconds()
        self._started = time.perf_counter()

    def cores(self, own_seconds: float) -> float:
        """Cores that were busy so far with something other than ``own_seconds`` of CPU time."""
        seconds = time.perf_counter() - self._started
        return max((_machine_seconds() - self._busy - own_seconds) / seconds, 0.0)


def _machine_seconds() -> float:
    """CPU time that was not idle, on all cores; what the hypervisor took counts too."""
    times = psutil.cpu_times()
    waiting = times.idle + getattr(times, "iowait", 0.0)
    counted_twice = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return float(sum(times)) - waiting - counted_twice
