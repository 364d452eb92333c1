"""The doorbell: a Celery message that carries no job and only says "there is work".

Losing one costs a few seconds, until the sweeper rings again; so a bell that can't be rung is
logged and forgotten.
"""

import logging
import queue
import threading
from typing import Protocol

from celery import Celery

logger = logging.getLogger(__name__)

TASK_NAME = "classification.classify_batch"

# A bell nobody answered by then is one that the sweeper has replaced.
_EXPIRES_SECONDS = 3600


class Doorbell(Protocol):
    """Wakes workers."""

    def ring(self, count: int) -> None:
        """Send ``count`` messages. Never raises."""


class CeleryDoorbell:
    """Rings from the calling thread; waits for Redis as long as the broker's time limits say."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def ring(self, count: int) -> None:
        try:
            for _ in range(count):
                self._app.send_task(TASK_NAME, expires=_EXPIRES_SECONDS, retry=False)
        except Exception as error:
            logger.warning("doorbell not rung, the sweeper will: %s", error)


class BackgroundDoorbell:
    """Rings from a thread of its own, because publishing blocks and an event loop must not."""

    def __init__(self, doorbell: Doorbell) -> None:
        self._doorbell = doorbell
        self._counts: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="doorbell", daemon=True)
        self._thread.start()

    def ring(self, count: int) -> None:
        if count:
            self._counts.put(count)

    def close(self, timeout_seconds: float) -> None:
        """Ring what is left and stop."""
        self._counts.put(0)
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while count := self._counts.get():
            self._doorbell.ring(count)
