"""A Lua script without redis-py's client around it: for the one that every batch of jobs runs.

After an inference nothing of the client is left in the processor's caches, and its way through
layers, retries and metrics costs more than the conversation itself (docs/performance.md).
"""

import hashlib
from collections.abc import Sequence
from typing import Any

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
        # The name that Redis gives to a script.
        self._digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

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
