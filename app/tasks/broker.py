"""How a worker listens for doorbells: without company, and back within a second of Redis."""

import logging
import math
import time
from collections.abc import Callable
from typing import Any

from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown
from kombu import Connection

logger = logging.getLogger(__name__)

# Celery's own steps grow to half a minute, during which accepted jobs would wait for nothing.
_RETRY_SECONDS = 1


class DoorbellConsumer(Consumer):
    """Celery's consumer, named in its setting ``worker_consumer``.

    Workers know of each other through the ledger. Celery's ways to find out (mingle, gossip, event
    heartbeats) write to Redis, which a full Redis refuses: a worker could not start then.
    """

    def __init__(
        self,
        on_task_request: Callable[..., Any],
        worker_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        alone = {"without_mingle": True, "without_gossip": True, "without_heartbeat": True}
        worker_options = (worker_options or {}) | alone
        self._connected_at = -math.inf
        super().__init__(on_task_request, worker_options=worker_options, **options)

    def ensure_connected(self, conn: Connection) -> Connection:
        """Try once a second, for ever; TERM ends it. Says so once, not once a try."""
        # A server that answers and yet refuses, as a replica does, deserves no more either.
        time.sleep(max(0.0, self._connected_at + _RETRY_SECONDS - time.monotonic()))
        failures = 0

        def complain_once(error: Exception, _interval: float) -> None:
            nonlocal failures
            failures += 1
            if failures == 1:
                logger.error("no connection to Redis, trying on: %s", error)

        conn.ensure_connection(
            complain_once,
            interval_start=_RETRY_SECONDS,
            interval_step=0,
            interval_max=_RETRY_SECONDS,
            callback=maybe_shutdown,
        )
        self._connected_at = time.monotonic()
        self.first_connection_attempt = False
        return conn
