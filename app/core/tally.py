"""Telling what happens too often for a line each."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable


class Tally:
    """Counts events by their names, and logs the counts once in ``seconds`` at most.

    ``message`` has one ``%s``, for names and counts. Events come in a running event loop.
    """

    def __init__(
        self,
        logger: logging.Logger,
        message: str,
        seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._message = message
        self._seconds = seconds
        self._clock = clock
        self._counts: Counter[str] = Counter()
        self._next_line = float("-inf")
        self._is_timed = False

    def count(self, name: str) -> None:
        """Count one more; it is logged now, or with all others when the time is over."""
        self._counts[name] += 1
        left = self._next_line - self._clock()
        if left <= 0:
            self._log()
        elif not self._is_timed:
            # Perhaps it was the last.
            self._is_timed = True
            asyncio.get_running_loop().call_later(left, self._log)

    def _log(self) -> None:
        self._is_timed = False
        if self._counts:
            text = ", ".join(f"{number} × {name}" for name, number in self._counts.most_common())
            self._logger.warning(self._message, text)
            self._counts.clear()
            self._next_line = self._clock() + self._seconds
