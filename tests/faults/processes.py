"""The processes of a scenario, each with its log, and what can be done to them."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import redis

from app.core import keys

# Marks every process of one cluster, whoever started it: what has lost its parent is found by it.
MARK = "FAULTS_CLUSTER"

# Between a SIGKILL and the end.
_END_SECONDS = 0.5
# Between a SIGTERM and the end.
_GRACE_SECONDS = 20

_LONGEST_LINE = 200


class Process:
    """A command in a session of its own, its output appended to ``{name}.log``."""

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                command,
                cwd=folder,  # no .env of the developer's, no other `app` than PYTHONPATH's
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    def is_running(self) -> bool:
        """Whether it has not ended; a stopped process runs."""
        return self._popen.poll() is None

    def family(self) -> list[psutil.Process]:
        """The process itself and all below it."""
        try:
            root = psutil.Process(self.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def send(self, number: signal.Signals) -> None:
        """To the process alone."""
        self._popen.send_signal(number)

    def send_family(self, number: signal.Signals) -> None:
        """To the process and all below it."""
        _signal_all(self.family(), number)

    def has_ended_soon(self) -> bool:
        """Whether it has ended, also when its end is under way."""
        try:
            self.wait(_END_SECONDS)
            return True
        except subprocess.TimeoutExpired:
            return False

    def wait(self, seconds: float) -> int:
        """Its exit code. Raises :class:`subprocess.TimeoutExpired`."""
        return self._popen.wait(seconds)

    def end(self) -> None:
        """TERM, and KILL when that does not help soon."""
        self.send(signal.SIGTERM)
        try:
            self.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.send_family(signal.SIGKILL)
            self.wait(_GRACE_SECONDS)

    def last_lines(self, count: int = 15) -> str:
        """The end of its output."""
        lines = self.log.read_text(errors="replace").splitlines()[-count:]
        return "\n".join(line[:_LONGEST_LINE] for line in lines)


class Worker(Process):
    """A worker: its main process and the children that classify."""

    is_plain = True
    """Whether it is started as all others are."""

    def child_pids(self) -> list[int]:
        """The processes that classify."""
        try:
            return [child.pid for child in psutil.Process(self.pid).children()]
        except psutil.NoSuchProcess:
            return []

    def find_name(self, client: "redis.Redis") -> str | None:
        """What it is called in the ledger: host, process id, and what makes it unique."""
        names = [name.decode() for name in client.zrange(keys.WORKERS, 0, -1)]
        return next((name for name in names if f"/{self.pid}/" in name), None)


class Holding:
    """What one process that classifies holds, seen from outside."""

    def __init__(self, client: "redis.Redis", worker: str, child_pid: int) -> None:
        self.child_pid = child_pid
        self._redis = client
        self._key = keys.holder(f"{worker}/{child_pid}")

    def read(self) -> set[str]:
        """The ids of its jobs."""
        return {job_id.decode() for job_id in self._redis.smembers(self._key)}

    def kill(self) -> set[str]:
        """SIGKILL the process; returns what it held then."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.child_pid, signal.SIGKILL)
        return self.read()


def end_marked(mark: str) -> None:
    """Kill whatever still carries the mark."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                process.kill()
        except psutil.Error:
            continue


def _signal_all(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    # The main process first: what it starts meanwhile would be forgotten.
    for process in processes:
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            continue
