"""The children of `classifier up`: each in a session of its own, its output passed on by lines.

A session of its own means that Ctrl-C in the terminal reaches the supervisor alone, which then
stops its children in order, and that the child's own children can be killed with it.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

_CHUNK_BYTES = 65_536  # what a Linux pipe holds
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_STEADY_SECONDS = 60.0  # a child that lived twice the longest pause is no longer failing in a row

_libc = ctypes.CDLL(None, use_errno=True)


class LineWriter(Protocol):
    """Takes one line of a source's output, without its end."""

    def __call__(self, source: str, line: bytes, /) -> None: ...


@dataclass(frozen=True, slots=True)
class ChildCommand:
    """What to run, and how it ends when the supervisor is killed rather than stopped."""

    source: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    orphan_signal: signal.Signals = signal.SIGKILL
    """What the child gets when its parent dies (Linux)."""
    descriptors: tuple[int, ...] = ()
    """File descriptors that the child keeps open."""


@dataclass(slots=True)
class ChildProcess:
    """A running child. Its group is killed with it, so nothing of it stays behind."""

    command: ChildCommand
    process: asyncio.subprocess.Process
    output: asyncio.Task[None] = field(repr=False)

    @classmethod
    async def create(cls, command: ChildCommand, write: LineWriter) -> "ChildProcess":
        """Start the command. Raises :class:`OSError` when there is no such program."""
        process = await asyncio.create_subprocess_exec(
            *command.arguments,
            env=dict(command.environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            pass_fds=command.descriptors,
            preexec_fn=_die_with_parent(command.orphan_signal),
        )
        assert process.stdout is not None
        output = asyncio.create_task(_pass_on(process.stdout, command.source, write))
        return cls(command, process, output)

    async def wait(self) -> int:
        """Wait for the end; kill what the child left running. The exit code, −N for signal N."""
        code = await self.process.wait()
        self.kill()
        await self.output
        return code

    async def stop(self, grace_seconds: float) -> None:
        """Ask it to end, and kill it when it has not after ``grace_seconds``."""
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), grace_seconds)
        except TimeoutError:
            self.kill()
        await self.wait()

    def kill(self) -> None:
        """Kill the child and everything it started, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


async def _pass_on(stream: asyncio.StreamReader, source: str, write: LineWriter) -> None:
    """Split by hand: ``readline`` raises at a line longer than its limit, and loses the rest."""
    rest = b""
    while chunk := await stream.read(_CHUNK_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            write(source, line)
    if rest:
        write(source, rest)


def _die_with_parent(orphan_signal: signal.Signals) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    supervisor = os.getpid()

    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, orphan_signal)
        if os.getppid() != supervisor:  # it died before the signal was asked for
            os._exit(1)

    return prepare


class ChildKeeper:
    """Keeps one child running: what ends after :meth:`settle` is started again, ever more slowly.

    ``say`` takes a line for the user.
    """

    def __init__(
        self, command: ChildCommand, write: LineWriter, say: Callable[[str], None]
    ) -> None:
        self.source = command.source
        self._command = command
        self._write = write
        self._say = say
        self._settled = False
        self._stopping = asyncio.Event()
        self._child: ChildProcess | None = None

    def settle(self) -> None:
        """From now on an end is an accident to recover from, no longer a failed start."""
        self._settled = True

    async def keep(self) -> int:
        """Run the child until it is stopped or fails to start; returns its last exit code."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            started = time.monotonic()
            self._child = await ChildProcess.create(self._command, self._write)
            if self._stopping.is_set():
                self._child.kill()
            code = await self._child.wait()
            if self._stopping.is_set() or not self._settled:
                return code
            if time.monotonic() - started > _STEADY_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            self._say(f"{self.source} {describe_end(code)}; it starts again in {pause:.0f} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
                return code
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def stop(self, grace_seconds: float) -> None:
        """End the child and do not start it again. Kills it after ``grace_seconds``."""
        self._stopping.set()
        if self._child:
            await self._child.stop(grace_seconds)

    def kill(self) -> None:
        """End the child at once and do not start it again."""
        self._stopping.set()
        if self._child:
            self._child.kill()


def describe_end(code: int) -> str:
    """A child's exit code in words."""
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
