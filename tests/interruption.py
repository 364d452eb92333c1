"""A signal that ends a wait in the middle, as a worker's signals do."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import pytest


class Interruption(BaseException):
    """What the signal's handler raises."""


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """The block is interrupted after so long, and must not have ended before."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interruption()

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        with pytest.raises(Interruption):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
