"""Telling what happens too often for a line each."""

import logging
import time
from collections import Counter
from collections.abc import Callable


class Tally:
    """Counts events by their names, and logs the counts once in ``seconds`` at most.

    ``message`` has one ``%s``, for names and counts.
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

    def count(self, name: str) -> None:
        """One more; logged now, or with the first that comes when the time is over."""
        self._counts[name] += 1
        now = self._clock()
        if now >= self._next_line:
            text = ", ".join(f"{number} × {name}" for name, number in self._counts.most_common())
            self._logger.warning(self._message, text)
            self._counts.clear()
            self._next_line = now + self._seconds
