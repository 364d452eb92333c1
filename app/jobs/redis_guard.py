"""What stands between requests and a Redis that does not answer: time limits, a circuit breaker."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from circuitbreaker import CircuitBreaker
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.core.errors import ServiceUnavailableError, StorageFullError

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

# Whoever asks has an answer in two seconds, whatever Redis does: the longest that a call may take,
# and the longest wait for one, which includes the call before if that was under way.
_CALL_SECONDS = 1.5
_WAIT_SECONDS = 1.8

# Calls that fail one after another before Redis counts as away, and how often it is tried then.
_FAILURES = 3
_RECOVERY_SECONDS = 1

_AWAY = (RedisConnectionError, RedisTimeoutError, TimeoutError, OSError)

# Redis's words when its memory is full, or the disk under its append-only file full or broken. In a
# script of Redis 6 and in a pipeline others come before them.
_NO_ROOM = ("OOM command not allowed", "MISCONF")


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

    def check(self) -> None:
        """Raises :class:`ServiceUnavailableError` while Redis is away."""
        if self._breaker.opened:
            raise ServiceUnavailableError()

    async def call(self, run: Callable[[], Awaitable[Answer]]) -> Answer:
        """Await what ``run`` gives: one conversation with Redis.

        Raises :class:`ServiceUnavailableError` when Redis is away or takes too long,
        :class:`StorageFullError` when it has no room.
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
            if isinstance(error, OutOfMemoryError) or any(text in str(error) for text in _NO_ROOM):
                raise StorageFullError() from error
            raise
        self._note(away=False)
        return answer

    async def wait(self, answer: Awaitable[Answer]) -> Answer:
        """Await a call that others may share, or may have to end first.

        Raises :class:`ServiceUnavailableError` when that takes too long.
        """
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                return await answer
        except TimeoutError:
            raise ServiceUnavailableError() from None

    def _note(self, *, away: bool, reason: str = "") -> None:
        """Log when Redis goes and comes: a line for each request would bury everything else."""
        if away and not self._away:
            logger.warning("Redis does not answer, requests are refused until it does: %s", reason)
        elif self._away and not away:
            logger.warning("Redis answers again")
        self._away = away
