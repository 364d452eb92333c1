"""Server-Sent Events for many: each event is rendered once for all who listen to the same thing.

Every event is a whole snapshot. So whoever reads slowly gets the newest and misses nothing that
still counts, and whoever comes back needs no record of what was missed.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple, Protocol

from starlette.types import Message, Send

logger = logging.getLogger(__name__)

_HEARTBEAT_SECONDS = 15.0

# Served one after another before the event loop writes what they got and looks at everything else:
# the first of thousands shall not wait for the last.
_GROUP = 64


class Event(NamedTuple):
    """A snapshot, as it is sent.

    ``version`` tells it from others; of two the one with the higher ``position`` is newer.
    """

    version: str
    position: tuple[int, ...]
    frame: bytes
    is_last: bool = False


def render_event(
    name: str, version: str, position: tuple[int, ...], document: str, is_last: bool
) -> Event:
    """The event that carries a document, which is JSON in one line."""
    frame = f"id: {version}\nevent: {name}\ndata: {document}\n\n".encode()
    return Event(version, position, frame, is_last)


_NOTHING = Event("", (), b"")
_GONE = Event("", (), b"", is_last=True)
_HEARTBEAT = Event("", (), b": still here\n\n")

Tell = Callable[[Event | None], None]
"""Takes the newest event of something, ``None`` once it is gone."""


class Source(Protocol):
    """Where events come from."""

    def follow(self, key: str, tell: Tell) -> None:
        """Tell of each change of the thing ``key``, once :meth:`look` was called for it."""

    def unfollow(self, key: str) -> None:
        """Tell no more."""

    async def look(self, key: str) -> Event:
        """How it is now. Raises a :class:`ServiceError` if there is nothing to follow."""


class Listener:
    """One answer that events are sent with."""

    __slots__ = ("_send", "_next", "_sending", "_version", "_is_open", "_feed")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._next: Event | None = None
        self._sending: asyncio.Task[None] | None = None
        self._version = ""
        self._is_open = False

    def open(self, feed: "Feed", known_version: str) -> None:
        """The answer has begun; the client has this version, if any."""
        self._feed, self._version, self._is_open = feed, known_version, True
        self.catch_up()

    def catch_up(self) -> None:
        """Send the newest event. While the last is under way it waits, in place of any before."""
        if not self._is_open:
            return
        event = self._feed.newest
        if not event.is_last and event.version == self._version:
            return
        self._version, self._is_open = event.version, not event.is_last
        if self._sending is None:
            self._deliver(event)
        else:
            self._next = event

    def remind(self) -> None:
        """Send a comment, so that nobody on the way takes the connection for dead."""
        if self._sending is None and self._is_open:
            self._deliver(_HEARTBEAT)

    def _deliver(self, event: Event) -> None:
        """Send at once, and leave to a task only what has to wait for a slow reader.

        A task for each would cost as much again as what it does.
        """
        steps = self._send(_create_message(event)).__await__()
        try:
            awaited = next(steps)
        except StopIteration:
            return
        except OSError:
            # Some servers say so when the client has gone; its request ends by itself.
            self._is_open = False
        else:
            self._sending = asyncio.create_task(self._go_on(steps, awaited))

    async def _go_on(self, steps: Generator[Any, Any, None], awaited: Any) -> None:
        try:
            with contextlib.suppress(StopIteration):
                while True:
                    if awaited is None:
                        await asyncio.sleep(0)
                    else:
                        # Not by "await", which the future has had: a second one is refused.
                        await asyncio.wait([awaited])
                    awaited = next(steps)
            while self._next is not None:
                event, self._next = self._next, None
                await self._send(_create_message(event))
        except OSError:
            self._is_open = False
        finally:
            self._sending = None


def _create_message(event: Event) -> Message:
    return {"type": "http.response.body", "body": event.frame, "more_body": not event.is_last}


class Feed:
    """What some listen to: its newest event, and they."""

    def __init__(self, serve: Callable[["Feed"], None]) -> None:
        self.newest = _NOTHING
        self.listeners: set[Listener] = set()
        self._serve = serve

    def publish(self, event: Event | None) -> None:
        """Send an event to all, unless it is older than the last. ``None``: nothing more comes."""
        event = event or _GONE
        if not self.newest.is_last and (event.is_last or event.position > self.newest.position):
            self.newest = event
            self._serve(self)


class EventFeeds:
    """The feeds of one source. One per API process."""

    def __init__(self, source: Source, heartbeat_seconds: float = _HEARTBEAT_SECONDS) -> None:
        self._source = source
        self._heartbeat_seconds = heartbeat_seconds
        self._feeds: dict[str, Feed] = {}
        self._listeners: set[Listener] = set()
        self._due: deque[Callable[[], None]] = deque()
        self._is_stopping = False

    @contextlib.contextmanager
    def join(self, key: str, listener: Listener) -> Iterator[Feed]:
        """Listen to ``key``. All who do share one feed, and the source is followed once."""
        feed = self._feeds.get(key)
        # What has ended may have begun again since, by an operator's hand.
        if feed is None or feed.newest.is_last:
            feed = self._feeds[key] = Feed(self._serve)
            self._source.follow(key, feed.publish)
            if self._is_stopping:
                feed.publish(None)
        feed.listeners.add(listener)
        self._listeners.add(listener)
        try:
            yield feed
        finally:
            self._listeners.discard(listener)
            feed.listeners.discard(listener)
            if not feed.listeners and self._feeds.get(key) is feed:
                del self._feeds[key]
                self._source.unfollow(key)

    async def look(self, key: str) -> Event:
        """How it is now, asked anew. Raises as :meth:`Source.look`."""
        return await self._source.look(key)

    async def run(self) -> None:
        """Send comments to all every 15 seconds until cancelled."""
        while True:
            await asyncio.sleep(self._heartbeat_seconds)
            self._plan(listener.remind for listener in self._listeners)

    def stop(self) -> None:
        """The server stops: every stream ends, and clients come back to another."""
        self._is_stopping = True
        for feed in self._feeds.values():
            feed.publish(None)

    def _serve(self, feed: Feed) -> None:
        self._plan(listener.catch_up for listener in feed.listeners)

    def _plan(self, steps: Iterator[Callable[[], None]]) -> None:
        is_idle = not self._due
        self._due.extend(steps)
        if is_idle:
            self._serve_group()

    def _serve_group(self) -> None:
        for _ in range(min(len(self._due), _GROUP)):
            step = self._due.popleft()
            try:
                step()
            except Exception:
                # One listener's trouble is not that of those behind it.
                logger.exception("an event could not be sent")
        if self._due:
            asyncio.get_running_loop().call_soon(self._serve_group)
