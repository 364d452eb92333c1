"""Lua scripts without redis-py's client around them: for those that jobs pass on their way.

After an inference nothing of the client is left in the processor's caches, and its way through
pool, retries and metrics costs more than the conversation itself (docs/performance.md).
"""

import hashlib
from collections.abc import Sequence
from typing import Any, cast

import redis.asyncio.connection
import redis.connection
from redis.exceptions import NoScriptError, ResponseError


class DirectScript:
    """Runs a script on a connection of its own; for one thread at a time.

    Sent twice, the script must leave Redis as it would sent once: what fails for want of a
    connection is tried again as often as the pool's retries say. Raises :class:`redis.RedisError`.
    """

    def __init__(self, pool: redis.connection.ConnectionPool, text: str) -> None:
        self._pool = pool
        self._text = text
        self._digest = _digest(text)
        self._connection: redis.connection.AbstractConnection | None = None

    def __call__(self, *, args: Sequence[Any] = ()) -> Any:
        try:
            return self._ask("EVALSHA", self._digest, 0, *args)
        except NoScriptError:
            return self._ask("EVAL", self._text, 0, *args)

    def _ask(self, *command: Any) -> Any:
        if self._connection is None:
            self._connection = cast(
                redis.connection.AbstractConnection, self._pool.get_connection()
            )
        connection = self._connection

        def ask() -> Any:
            try:
                connection.send_command(*command)  # type: ignore[no-untyped-call]
                return connection.read_response()
            except ResponseError:
                raise
            except BaseException:
                # A signal may end the wait: its answer must not be taken for that of the next.
                connection.disconnect()  # type: ignore[no-untyped-call]
                raise

        return connection.retry.call_with_retry(ask, lambda error: None)


class AsyncDirectScript:
    """The same for an event loop; for one caller at a time."""

    def __init__(self, pool: redis.asyncio.connection.ConnectionPool, text: str) -> None:
        self._pool = pool
        self._text = text
        self._digest = _digest(text)
        self._connection: redis.asyncio.connection.AbstractConnection | None = None

    async def __call__(self, *, args: Sequence[Any] = ()) -> Any:
        try:
            return await self._ask("EVALSHA", self._digest, 0, *args)
        except NoScriptError:
            return await self._ask("EVAL", self._text, 0, *args)

    async def _ask(self, *command: Any) -> Any:
        if self._connection is None:
            self._connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
        connection = self._connection

        async def ask() -> Any:
            try:
                await connection.send_command(*command)
                return await connection.read_response()
            except ResponseError:
                raise
            except BaseException:
                # The wait may be cancelled: its answer must not be taken for that of the next.
                await connection.disconnect(nowait=True)
                raise

        async def give_up(error: Exception) -> None:
            """Nothing is left to do: the connection is closed."""

        return await connection.retry.call_with_retry(ask, give_up)


def _digest(text: str) -> str:
    """The name that Redis gives to a script."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
