"""Event feeds on a small server of their own: who comes, goes, reads slowly, and when it stops."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Message

from app.api.event_feeds import Event, EventFeeds, Listener, Tell, render_event
from app.api.event_stream import EventStream
from tests.api_server import run_api
from tests.event_source import EventSource
from tests.service import wait_until


def event(number: int, is_last: bool = False) -> Event:
    return render_event("count", str(number), (number,), str(number), is_last)


class Counter:
    """A source whose things are numbers that a test counts up."""

    def __init__(self) -> None:
        self.tell: dict[str, Tell] = {}
        self.gone: list[str] = []
        self.number = 1

    def follow(self, key: str, tell: Tell) -> None:
        self.tell[key] = tell

    def unfollow(self, key: str) -> None:
        del self.tell[key]
        self.gone.append(key)

    async def look(self, key: str) -> Event:
        return event(self.number)


class Reader:
    """An answer whose client reads when the test says so."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.can_read = asyncio.Event()
        self.has_read = asyncio.Event()
        self.is_sending = asyncio.Event()

    async def send(self, message: Message) -> None:
        self.is_sending.set()
        await self.can_read.wait()
        self.frames.append(message["body"])
        self.has_read.set()


@contextlib.contextmanager
def listening(feeds: EventFeeds, reader: Reader) -> Iterator[None]:
    listener = Listener(reader.send)
    with feeds.join("a", listener) as feed:
        listener.open(feed, "")
        yield


async def let_run() -> None:
    """All that can go on without anything from outside goes on."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_slow_reader_holds_nobody_up_and_gets_the_newest() -> None:
    async def run() -> tuple[list[bytes], list[bytes]]:
        source, slow, fast = Counter(), Reader(), Reader()
        feeds = EventFeeds(source)
        fast.can_read.set()
        with listening(feeds, slow), listening(feeds, fast):
            for number in range(1, 1001):
                source.tell["a"](event(number))
                await let_run()
            seen = [*fast.frames]
            slow.can_read.set()
            await let_run()
            return seen, slow.frames

    seen, late = asyncio.run(run())
    assert seen == [event(number).frame for number in range(1, 1001)]
    assert late == [event(1).frame, event(1000).frame]


def test_what_is_older_than_the_last_is_not_told() -> None:
    async def run() -> list[bytes]:
        source, reader = Counter(), Reader()
        feeds = EventFeeds(source)
        reader.can_read.set()
        with listening(feeds, reader):
            for number in (2, 1, 2, 3):
                source.tell["a"](event(number))
                await let_run()
        return reader.frames

    assert asyncio.run(run()) == [event(2).frame, event(3).frame]


def test_a_silent_stream_gets_comments() -> None:
    async def run() -> list[bytes]:
        reader = Reader()
        feeds = EventFeeds(Counter(), heartbeat_seconds=0.001)
        reader.can_read.set()
        beats = asyncio.create_task(feeds.run())
        with listening(feeds, reader):
            async with asyncio.timeout(10):
                await reader.has_read.wait()
        beats.cancel()
        return reader.frames

    assert asyncio.run(run())[0] == b": still here\n\n"


def test_comments_do_not_pile_up_before_a_slow_reader() -> None:
    async def run() -> list[bytes]:
        slow, fast = Reader(), Reader()
        feeds = EventFeeds(Counter(), heartbeat_seconds=0.001)
        fast.can_read.set()
        beats = asyncio.create_task(feeds.run())
        with listening(feeds, slow), listening(feeds, fast):
            async with asyncio.timeout(10):
                await slow.is_sending.wait()
                while len(fast.frames) < 5:
                    fast.has_read.clear()
                    await fast.has_read.wait()
                beats.cancel()
                slow.can_read.set()
                await slow.has_read.wait()
                await let_run()
        return slow.frames

    assert asyncio.run(run()) == [b": still here\n\n"]


# --- Over a socket --------------------------------------------------------------------------------


class Server:
    """Feeds of a counter, served."""

    def __init__(self) -> None:
        self.source = Counter()
        self.url = ""

    def create_app(self) -> Starlette:
        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            self.loop = asyncio.get_running_loop()
            self.feeds = EventFeeds(self.source)
            yield

        def answer(request: Request) -> Any:
            return EventStream(request, self.feeds, request.path_params["key"])

        async def get(request: Request) -> Any:
            return answer(request)

        return Starlette(routes=[Route("/{key}", get)], lifespan=lifespan)

    def tell(self, key: str, news: Event | None) -> None:
        self.loop.call_soon_threadsafe(self.source.tell[key], news)

    def listen(self, key: str) -> EventSource:
        return EventSource(f"{self.url}/{key}")


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    with run_api(server.create_app()) as server.url:
        yield server


def test_the_source_is_followed_once_and_until_the_last_has_hung_up(server: Server) -> None:
    with server.listen("a") as first:
        first.read_event()
        with server.listen("a") as second:
            second.read_event()
        server.tell("a", event(2))
        assert first.read_event()["data"] == "2"
        assert server.source.gone == []
    wait_until(lambda: server.source.gone == ["a"])


def test_a_stream_ends_when_its_thing_is_gone(server: Server) -> None:
    with server.listen("a") as stream:
        stream.read_event()
        server.tell("a", None)
        assert stream.read_event() == {}
    wait_until(lambda: server.source.gone == ["a"])


def test_what_has_ended_and_began_again_is_followed_anew(server: Server) -> None:
    with server.listen("a") as stream:
        stream.read_event()
        server.tell("a", event(9, is_last=True))
        assert (stream.read_event()["data"], stream.read_event()) == ("9", {})
    with server.listen("a") as stream:
        assert stream.read_event()["data"] == "1"
        server.tell("a", event(2))
        assert stream.read_event()["data"] == "2"


def test_streams_end_when_the_server_stops_and_none_stays_open_then(server: Server) -> None:
    with server.listen("a") as stream:
        stream.read_event()
        server.loop.call_soon_threadsafe(server.feeds.stop)
        assert stream.read_event() == {}
    with server.listen("b") as stream:
        assert stream.response.status_code == 200
        assert stream.read_event() == {}


def test_an_answer_that_breaks_keeps_nothing_from_the_others() -> None:
    async def run() -> None:
        feeds = EventFeeds(Counter())

        async def fail(message: Message) -> None:
            raise RuntimeError("broken")

        readers = [Reader() for _ in range(3)]
        for reader in readers:
            reader.can_read.set()
        with contextlib.ExitStack() as stack:
            broken = Listener(fail)
            feed = stack.enter_context(feeds.join("a", broken))
            with contextlib.suppress(RuntimeError):
                broken.open(feed, "")
            for reader in readers:
                stack.enter_context(listening(feeds, reader))
            for number in (1, 2):
                feed.publish(event(number))
                await let_run()
            assert {len(reader.frames) for reader in readers} == {len(readers[0].frames)}
            assert all(event(2).frame == reader.frames[-1] for reader in readers)

    asyncio.run(run())
