"""Connections for an event loop that report a reset as what it is.

When the other side has reset a connection, uvloop's transport raises ``RuntimeError`` at the next
write, which redis-py does not know: neither would the command be tried again, nor would anybody
take the error for one of Redis.
"""

from typing import Any

from redis.asyncio import connection
from redis.exceptions import ConnectionError as RedisConnectionError


class ResetAware(connection.AbstractConnection):
    """Turns uvloop's error into redis-py's own, which it retries."""

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        try:
            await super().send_packed_command(command, check_health)
        except RuntimeError as error:
            raise RedisConnectionError(f"the connection is gone: {error}") from error


class TcpConnection(ResetAware, connection.Connection):
    """``redis://``"""


class TlsConnection(ResetAware, connection.SSLConnection):
    """``rediss://``"""


class SocketConnection(ResetAware, connection.UnixDomainSocketConnection):
    """``unix://``"""


def create_pool(url: str, **options: Any) -> connection.ConnectionPool:
    """A pool for one event loop; what the URL says wins over ``options``."""
    parts: dict[str, Any] = dict(connection.parse_url(url))
    kinds = {
        connection.Connection: TcpConnection,
        connection.SSLConnection: TlsConnection,
        connection.UnixDomainSocketConnection: SocketConnection,
    }
    kind = kinds[parts.pop("connection_class", connection.Connection)]
    return connection.ConnectionPool(connection_class=kind, **options | parts)
