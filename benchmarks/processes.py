"""Processes that a benchmark starts: ended with everything they started, their CPU time counted."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

STOP_SECONDS = 20.0
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_LOOK_SECONDS = 0.05
_libc = ctypes.CDLL(None)


class ServerError(Exception):
    """Raised when a server does not start, or answers wrongly. One line and where its log is."""


class Server:
    """One started process and all its descendants; a context that ends them.

    They share a session, so a Ctrl-C in the terminal reaches the benchmark alone, which then stops
    them; and the process dies with the benchmark should that be killed.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        environment: Mapping[str, str],
        folder: Path,
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        self.name = name
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                cwd=folder,
                env=dict(environment),
                stdin=stdin,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def tree(self) -> list[psutil.Process]:
        """The process and its descendants."""
        try:
            root = psutil.Process(self.process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def wait_for(self, is_ready: Callable[[], bool], seconds: float) -> None:
        """Wait until ``is_ready``. Raises :class:`ServerError` when it ends or takes too long."""
        deadline = time.monotonic() + seconds
        while not is_ready():
            if self.process.poll() is not None:
                raise ServerError(f"{self.name} ended while it started: {self.read_log()[-1000:]}")
            if time.monotonic() > deadline:
                raise ServerError(f"{self.name} is not ready after {seconds:.0f} s")
            time.sleep(_LOOK_SECONDS)

    def read_log(self) -> str:
        """What it has said so far."""
        return self.log.read_text(errors="replace")

    def stop(self) -> None:
        """Ask it to end; kill what is left of it."""
        tree = self.tree()
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        _, alive = psutil.wait_procs(tree, timeout=1)
        for process in alive:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(alive, timeout=5)


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def cpu_seconds(processes: Iterable[psutil.Process]) -> float:
    """User and system time so far of those that live, and of their children that have ended."""
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def read_line(stream: IO[str]) -> str:
    """The next line of a child. Raises :class:`ServerError` when the child has ended."""
    line = stream.readline()
    if not line:
        raise ServerError("a process of the benchmark ended early: see its message above")
    return line.rstrip("\n")


def die_with_benchmark() -> None:
    """For ``preexec_fn`` of other processes: end when the benchmark does."""
    if sys.platform == "linux":
        _die_with_parent()
    os.setpgrp()
