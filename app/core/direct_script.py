"""Lua scripts without redis-py's client around them: for those that jobs pass on their way.

After an inference nothing of the client is left in the processor's caches, and its way through
layers, retries and metrics costs more than the conversation itself (docs/performance.md).
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import redis.asyncio.connection
import redis.connection
from redis.exceptions import NoScriptError, ResponseError


class DirectScript:
    """Runs a script on one of a pool's connections.

    The script must be idempotent: after a connection error it is sent again, as often as the pool's
    retries say. Raises :class:`redis.RedisError`.
    """

    def __init__(self, pool: redis.connection.ConnectionPool, text: str) -> None:
        self._pool = pool
        self._text = text
        self._digest = _digest(text)

    def __call__(self, *, args: Sequence[Any] = ()) -> Any:
        connection = self._pool.get_connection()
        try:
            return _ask(connection, "EVALSHA", self._digest, 0, *args)
        except NoScriptError:
            return _ask(connection, "EVAL", self._text, 0, *args)
        finally:
            self._pool.release(connection)


def _ask(connection: redis.connection.Connection, *command: Any) -> Any:
    def ask() -> Any:
        try:
            connection.send_command(*command)  # type: ignore[no-untyped-call]
            return connection.read_response()
        except ResponseError:
            raise
        except BaseException:
            # A signal may end the wait; the answer may still arrive, and the next call must not
            # read it. A Sentinel's connection does not see to that itself.
            connection.disconnect()  # type: ignore[no-untyped-call]
            raise

    return connection.retry.call_with_retry(ask, lambda error: None)


class AsyncDirectScript:
    """The same for an event loop."""

    def __init__(self, pool: redis.asyncio.connection.ConnectionPool, text: str) -> None:
        self._pool = pool
        self._text = text
        self._digest = _digest(text)

    async def __call__(self, *, args: Sequence[Any] = ()) -> Any:
        connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            return await _ask_async(connection, "EVALSHA", self._digest, 0, *args)
        except NoScriptError:
            return await _ask_async(connection, "EVAL", self._text, 0, *args)
        finally:
            await self._pool.release(connection)


async def _ask_async(connection: redis.asyncio.connection.AbstractConnection, *command: Any) -> Any:
    async def ask() -> Any:
        try:
            await connection.send_command(*command)
            return await connection.read_response()
        except ResponseError:
            raise
        except BaseException:
            # The same for a wait that is cancelled.
            await connection.disconnect(nowait=True)
            raise

    async def give_up(error: Exception) -> None:
        """Nothing is left to do: the connection is closed."""

    return await connection.retry.call_with_retry(ask, give_up)


def _digest(text: str) -> str:
    """The name that Redis gives to a script."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
