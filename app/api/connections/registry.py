"""All connections of a server: how many there are, and when those that only wait are closed."""

import logging
from typing import Protocol

from uvicorn.server import ServerState

from app.api.answer_headers import AnswerHeaders
from app.api.connections.clients import ClientCounter
from app.core.config import Settings
from app.core.errors import ServiceError
from app.core.tally import Tally

logger = logging.getLogger(__name__)

# The rest is for Redis, uploads on their way to the disk, and refusals on their way out.
_SHARE_OF_FILES = 0.9


class Waiting(Protocol):
    """A connection on which no request is being answered."""

    def expire(self) -> None:
        """Its time is over."""

    def make_room(self) -> None:
        """Another needs its place."""


def count_places(settings: Settings, file_limit: int | None) -> int | None:
    """Most connections in all; ``None`` for any number. ``file_limit``: the process's."""
    if settings.http.connections is not None or file_limit is None:
        return settings.http.connections
    return max(int(file_limit * _SHARE_OF_FILES), 1)


class ConnectionRegistry(ServerState):
    """Shared state of the connections of one server.

    ``places``: most connections in all, ``None`` for any number.
    """

    def __init__(self, settings: Settings, places: int | None) -> None:
        super().__init__()
        self.http = settings.http
        self.answer_headers = AnswerHeaders(settings.cors)
        self.discard_bytes = 2 * settings.limits.file_size
        self.clients = ClientCounter(
            settings.http.connections_per_client, settings.trusted.list_proxies()
        )
        self._places = places
        # When each is closed, those that began to wait first in front.
        self._waiting: dict[Waiting, float] = {}
        self._refusals = Tally(logger, "connections ended early: %s")

    def wait(self, connection: Waiting, deadline: float) -> None:
        """Close the connection at ``deadline``, in the event loop's time, unless it goes on."""
        self._waiting.pop(connection, None)
        self._waiting[connection] = deadline

    def go_on(self, connection: Waiting) -> None:
        """Leave the connection open: a request is there."""
        self._waiting.pop(connection, None)

    def sweep(self, now: float) -> None:
        """End the connections whose time is over."""
        for connection in [item for item, end in self._waiting.items() if end <= now]:
            del self._waiting[connection]
            connection.expire()

    def admit(self, client: str | int | None) -> bool:
        """Count one more connection, of a client if it has one, unless there is no place for it."""
        # A client beyond its own limit may not cost another its place.
        if client is not None and not self.clients.enter(client):
            return False
        if self._has_room():
            return True
        if client is not None:
            self.clients.leave(client)
        return False

    def _has_room(self) -> bool:
        """Whether one more connection has a place: if need be, that of who waited longest."""
        if self._places is None or len(self.connections) <= self._places:
            return True
        oldest = next(iter(self._waiting), None)
        if oldest is None:
            return False
        del self._waiting[oldest]
        oldest.make_room()
        return True

    def note(self, error: ServiceError) -> None:
        """Count a refusal; attackers don't get a line each."""
        self._refusals.count(error.code)
