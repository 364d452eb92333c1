"""Decoding in a slim process of its own, ended by the kernel when it takes too much.

For images whose files promise cost, and for those whose worker died over them. The process has no
model and no connections, only the upload and the libraries that decode it. Starting it costs 0.2
CPU seconds, so other images are decoded where they are; whichever of them takes too long after all
costs its worker process, and comes back here.
"""

import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from app.core.errors import ServiceError
from app.core.job_errors import (
    JOB_ERRORS,
    DecoderLostError,
    DecodingStalledError,
    ImageTooCostlyError,
    JobFailedError,
)
from app.inference.decoding.examination import ImageLimits
from app.inference.images import Framing
from app.inference.resizing import Pixels

# Of address space, 0.2 of which are libraries. A pixel that is accepted takes up to eight bytes as
# coefficients (CMYK, in several scans) and four as colours: whoever accepts more than the default
# of 50 million grants them more.
_MEMORY_BYTES, _BYTES_A_PIXEL = 1_000_000_000, 20

# Ten times what the processor needs, on a machine with that much else to do.
_WALL_SECONDS, _WALL_SHARE = 30.0, 10

CAN_GUARD = sys.platform == "linux"
"""Whether this system has what a guarded decoder needs: memory files, and limits that are kept."""

REFUSED = 3
"""The exit code of a decoder that has written an error instead of pixels."""

# What Python needs to start as it did here; passwords and tokens are none of a decoder's business.
_INHERITED = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH")
# A library that makes a thread a core would spend the address space on their stacks.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

# Pillow warns of damage that costs nobody anything; its sender would fill the worker's log.
_PYTHON = (sys.executable, "-W", "ignore", "-m", "app.inference.decoding.decoder")


class Budget(NamedTuple):
    """The bounds of decoding one image. The wall limit is for decoders that wait for something."""

    cpu_seconds: int = 3
    memory_bytes: int = _MEMORY_BYTES
    wall_seconds: float = _WALL_SECONDS

    @classmethod
    def create(
        cls, cpu_seconds: int, limits: ImageLimits, longest_seconds: float = math.inf
    ) -> "Budget":
        """The budget for images within these limits. ``longest_seconds``: of real time."""
        memory_bytes = max(_MEMORY_BYTES, limits.image_pixels * _BYTES_A_PIXEL)
        wall_seconds = max(_WALL_SECONDS, cpu_seconds * _WALL_SHARE)
        return cls(cpu_seconds, memory_bytes, min(wall_seconds, longest_seconds))


class DecodingRequest(NamedTuple):
    """All that a guarded decoder is told besides the upload, as JSON on its command line."""

    input_size: int
    resize: int
    crop: int
    image_side: int
    image_pixels: int
    cpu_seconds: int
    memory_bytes: int
    parent: int


class GuardedDecoder:
    """One image in the course of being decoded."""

    def __init__(
        self,
        data: bytes,
        framing: Framing,
        limits: ImageLimits,
        budget: Budget,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._side = framing.input_size
        self._clock = clock
        self._end = clock() + budget.wall_seconds
        self._is_stalled = False
        request = DecodingRequest(
            framing.input_size,
            framing.resize,
            framing.crop,
            limits.image_side,
            limits.image_pixels,
            budget.cpu_seconds,
            budget.memory_bytes,
            os.getpid(),
        )
        # A memory file each way, which both sides share: no pipe that fills, nothing on a disk.
        self._output = os.memfd_create("pixels")
        try:
            self._process = self._start(data, request)
        except BaseException:
            os.close(self._output)
            raise

    def _start(self, data: bytes, request: DecodingRequest) -> "subprocess.Popen[bytes]":
        upload = os.memfd_create("upload")
        try:
            with open(upload, "wb", closefd=False) as file:
                file.write(data)
            os.lseek(upload, 0, os.SEEK_SET)
            return subprocess.Popen(
                [*_PYTHON, json.dumps(request)],
                stdin=upload,
                stdout=self._output,
                env=_list_environment(),
            )
        finally:
            os.close(upload)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def is_done(self) -> bool:
        """Whether it has ended. Ends it when its time is up."""
        if self._process.poll() is None and self._clock() >= self._end:
            self._is_stalled = True
            self.kill()
        return self._process.returncode is not None

    def wait(self, seconds: float) -> None:
        """Wait until it has ended, but no longer than so."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it and give back what it holds."""
        self.kill()
        os.close(self._output)

    def read_pixels(self) -> Pixels:
        """Return what :func:`app.inference.images.decode` returns. Once, when it is done.

        Raises what that raises, :class:`ImageTooCostlyError` for too much time or memory,
        :class:`DecodingStalledError` or :class:`DecoderLostError`.
        """
        code = self._process.returncode
        size = self._side * self._side * 3
        reply = os.pread(self._output, size + 1, 0)
        if self._is_stalled:
            raise DecodingStalledError()
        if code == -signal.SIGXCPU:
            raise ImageTooCostlyError()
        if code == REFUSED:
            raise _parse_error(reply)
        if code != 0 or len(reply) != size:
            raise DecoderLostError()
        return np.frombuffer(reply, np.uint8).reshape(self._side, self._side, 3)


def _list_environment() -> dict[str, str]:
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return inherited | _ENVIRONMENT


def _parse_error(reply: bytes) -> ServiceError:
    try:
        error = json.loads(reply)
        return JOB_ERRORS[error["code"]](error["detail"])
    except (ValueError, KeyError):
        return DecoderLostError()


def render_error(error: JobFailedError) -> bytes:
    """An error as a guarded decoder writes it."""
    return json.dumps({"code": error.code, "detail": error.text}).encode()


@contextmanager
def cpu_alarm(seconds: float) -> Iterator[None]:
    """Have the kernel end this process when the block takes so much of the processor.

    The signal's default action: a handler of Python's would wait until the decoder returns.
    """
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def limit_resources(cpu_seconds: int, memory_bytes: int) -> None:
    """Bound this process for good."""
    # SIGXCPU comes first and says why; a process that could ignore it is killed a second later.
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
