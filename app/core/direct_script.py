"""A Lua script without redis-py's client around it: for the one that every batch of jobs runs.

After an inference nothing of the client is left in the processor's caches, and its way through pool,
retries and metrics costs more than the conversation itself (docs/performance.md).
"""

import hashlib
from collections.abc import Sequence
from typing import Any, cast

from redis.connection import AbstractConnection, ConnectionPool
from redis.exceptions import NoScriptError, ResponseError


class DirectScript:
    """Runs a script on a connection of its own; for one thread at a time.

    Sent twice, the script must leave Redis as it would sent once: what fails for want of a
    connection is tried again as often as the pool's retries say. Raises :class:`redis.RedisError`.
    """

    def __init__(self, pool: ConnectionPool, text: str) -> None:
        self._pool = pool
        self._text = text
        # The name that Redis gives to a script.
        self._digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        self._connection: AbstractConnection | None = None

    def __call__(self, *, args: Sequence[Any] = ()) -> Any:
        if self._connection is None:
            self._connection = cast(AbstractConnection, self._pool.get_connection())
        try:
            return self._ask(self._connection, "EVALSHA", self._digest, 0, *args)
        except NoScriptError:
            return self._ask(self._connection, "EVAL", self._text, 0, *args)

    def _ask(self, connection: AbstractConnection, *command: Any) -> Any:
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
