"""Two machines and a cable between them: network namespaces of the kernel, which need root."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

NEEDED = ("ip", "curl")


@dataclass(frozen=True, slots=True)
class Machine:
    """One end of the cable."""

    namespace: str
    address: str

    @property
    def launcher(self) -> tuple[str, ...]:
        """What stands before a command that shall run there."""
        return ("ip", "netns", "exec", self.namespace)

    def run(self, *command: str) -> str:
        """Run a command there; its output, standard error behind it."""
        process = subprocess.run(
            [*self.launcher, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        return process.stdout


def find_obstacle() -> str:
    """Why there can be no namespaces here; empty where there can."""
    if missing := [program for program in NEEDED if shutil.which(program) is None]:
        return f"needs {' and '.join(missing)}"
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"probe-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode != 0:
        return "this machine allows no network namespaces"
    _ip("netns", "del", name)
    return ""


@contextmanager
def connect_two() -> Iterator[tuple[Machine, Machine]]:
    """Two machines of their own, which reach each other and nothing else."""
    number = os.getpid()
    ends = [Machine(f"m{index}-{number}", f"10.203.77.{index}") for index in (1, 2)]
    try:
        for end in ends:
            _ip("netns", "add", end.namespace)
            _ip("-n", end.namespace, "link", "set", "lo", "up")
        first, second = ends
        peer = ("type", "veth", "peer", "name", "cable", "netns", second.namespace)
        _ip("-n", first.namespace, "link", "add", "cable", *peer)
        for end in ends:
            _ip("-n", end.namespace, "addr", "add", f"{end.address}/24", "dev", "cable")
            _ip("-n", end.namespace, "link", "set", "cable", "up")
        yield first, second
    finally:
        for end in ends:
            subprocess.run(["ip", "netns", "del", end.namespace], capture_output=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
