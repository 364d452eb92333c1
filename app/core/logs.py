"""Log lines: to standard error, in UTC, each with the request it belongs to, never a flood."""

import logging
import time
from collections import Counter
from collections.abc import Callable

logger = logging.getLogger("app.logs")

# Of one kind: enough to see who does what, and 130 MB a day at the very most, where refused
# requests alone could write a gigabyte an hour.
MOST_A_SECOND = 10


class FloodFilter(logging.Filter):
    """Lets each place in the code log :data:`MOST_A_SECOND` lines, and counts what it leaves out.

    The number is logged with the next line that comes in a later second. Whoever asks for debug
    lines gets them all.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._second = 0
        self._lines: Counter[tuple[str, int]] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno <= logging.DEBUG:
            return True
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._end_second()
        place = record.pathname, record.lineno
        self._lines[place] += 1
        return self._lines[place] <= MOST_A_SECOND

    def _end_second(self) -> None:
        left_out = sum(max(count - MOST_A_SECOND, 0) for count in self._lines.values())
        self._lines.clear()
        if left_out:
            logger.warning("%d lines like those before were left out, in one second", left_out)


def configure_logging(level: str, request_id: logging.Filter) -> None:
    """Give the ``app`` loggers their handler. Celery brings its own, so workers don't call this.

    What uvicorn logs, of requests that it can't read for one, is bounded as well.
    """
    formatter = logging.Formatter(
        "%(asctime)s.%(msecs)03dZ %(levelname)s [%(request_id)s] %(name)s: %(message)s",
        "%Y-%m-%dT%H:%M:%S",
    )
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    handler.addFilter(request_id)
    root = logging.getLogger("app")
    root.handlers = [handler]
    root.setLevel(level)
    root.propagate = False
    flood = FloodFilter()
    for bounded in (handler, *logging.getLogger("uvicorn").handlers):
        # uvicorn's outlive an application: one that is started again has left its own there.
        for former in [item for item in bounded.filters if isinstance(item, FloodFilter)]:
            bounded.removeFilter(former)
        bounded.addFilter(flood)
