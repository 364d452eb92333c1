"""What stands between requests and a Redis that does not answer: time limits, a circuit breaker."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from circuitbreaker import CircuitBreaker
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.core.errors import ResultsFullError, ServiceUnavailableError, StorageFullError
from app.jobs.grouped_calls import GroupedCall

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

# Whoever asks has an answer in two seconds, whatever Redis does: the longest that a call may take,
# and the longest wait for one, which includes the call before if that was under way.
_CALL_SECONDS = 1.5
_WAIT_SECONDS = 1.8

Item = TypeVar("Item")

# Calls that fail one after another before Redis counts as away, and how often it is tried then.
_FAILURES = 3
_RECOVERY_SECONDS = 1

_AWAY = (RedisConnectionError, RedisTimeoutError, TimeoutError, OSError)

# How Redis refuses to write: its memory is full; the disk under its append-only file is full or
# broken; it is no master, or has lost its replicas. redis-py has types for some of that, unless a
# script of Redis 6 or a pipeline puts other words before.
_REFUSALS = (
    (OutOfMemoryError, ("OOM command not allowed",), ResultsFullError),
    (None, ("MISCONF",), StorageFullError),
    (ReadOnlyError, ("READONLY", "NOREPLICAS"), ServiceUnavailableError),
)

# A refusal by Redis is news when the last one was longer ago.
_TROUBLE_SECONDS = 10


class RedisGuard:
    """One per API process. While Redis is away it refuses at once, and tries once a second."""

    def __init__(self) -> None:
        self._breaker = CircuitBreaker(
            failure_threshold=_FAILURES,
            recovery_timeout=_RECOVERY_SECONDS,
            expected_exception=_AWAY,
            name="Redis",
        )
        self._away = False
        self._trouble = ""
        self._trouble_at = -math.inf

    def find_trouble(self) -> str | None:
        """Why Redis refused to write of late, in its own words, or ``None``."""
        return self._trouble if self._is_in_trouble() else None

    def check(self) -> None:
        """Raises :class:`ServiceUnavailableError` while Redis is away."""
        if self._breaker.opened:
            raise ServiceUnavailableError()

    def group(
        self, run: Callable[[list[Item]], Awaitable[Sequence[Answer]]], largest_group: int
    ) -> Callable[[Item], Awaitable[Answer]]:
        """Calls that share conversations with Redis; ``run`` has one by :meth:`call`.

        Raises :class:`ServiceUnavailableError` when that takes too long, others' turns included.
        """
        grouped = GroupedCall(run, largest_group, _WAIT_SECONDS)

        async def call(item: Item) -> Answer:
            try:
                return await grouped(item)
            except TimeoutError:
                raise ServiceUnavailableError() from None

        return call

    async def call(self, run: Callable[[], Awaitable[Answer]]) -> Answer:
        """Await what ``run`` gives: one conversation with Redis.

        Raises :class:`ServiceUnavailableError` when Redis is away or takes too long,
        :class:`ResultsFullError` when its memory has no room, :class:`StorageFullError` when its
        disk has none.
        """
        self.check()
        try:
            with self._breaker:
                async with asyncio.timeout(_CALL_SECONDS):
                    answer = await run()
        except _AWAY as error:
            self._note(away=True, reason=str(error) or "no answer")
            raise ServiceUnavailableError() from error
        except ResponseError as error:
            for kind, words, refusal in _REFUSALS:
                is_kind = kind is not None and isinstance(error, kind)
                if is_kind or any(word in str(error) for word in words):
                    self._note_trouble(_shorten(str(error), words))
                    raise refusal() from error
            raise
        self._note(away=False)
        return answer

    def _is_in_trouble(self) -> bool:
        return time.monotonic() - self._trouble_at < _TROUBLE_SECONDS

    def _note_trouble(self, text: str) -> None:
        if not self._is_in_trouble():
            logger.error("Redis refuses to write, requests are refused until it does: %s", text)
        self._trouble, self._trouble_at = text, time.monotonic()

    def _note(self, *, away: bool, reason: str = "") -> None:
        """Log when Redis goes and comes: a line for each request would bury everything else."""
        if away and not self._away:
            logger.warning("Redis does not answer, requests are refused until it does: %s", reason)
        elif self._away and not away:
            logger.warning("Redis answers again")
        self._away = away


def _shorten(text: str, words: Sequence[str]) -> str:
    """The first sentence of what Redis said, without what redis-py and Redis 6 put before it."""
    starts = [text.index(word) for word in words if word in text]
    return text[min(starts, default=0) :].partition(".")[0]
