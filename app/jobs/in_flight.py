"""Uploads on their way in: their bytes take room before any job counts them."""

from collections.abc import Callable
from types import TracebackType
from typing import Self


class InFlightUpload:
    """The bytes of one request's uploads, held until its end. A context manager.

    ``hold`` takes how many bytes more there are, less if negative; it raises where they are too
    many.
    """

    def __init__(self, hold: Callable[[int], None]) -> None:
        self._hold = hold
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def release(self) -> None:
        """They count no longer: a job has them, or nobody."""
        self._hold(-self._bytes)
        self._bytes = 0

    def reach(self, total_bytes: int) -> None:
        """So many bytes have come in all. Raises :class:`QueueFullError` for too many."""
        if total_bytes > self._bytes:
            self._hold(total_bytes - self._bytes)
            self._bytes = total_bytes


def create_unbounded() -> InFlightUpload:
    """For an upload that is only looked at, of which nothing is kept."""
    return InFlightUpload(lambda more: None)
