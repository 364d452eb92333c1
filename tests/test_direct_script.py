"""The scripts that jobs pass on their way survive what their connections go through."""

import asyncio
import signal
from collections.abc import Iterator
from types import FrameType

import pytest
import redis

from app.core.config import Settings
from app.core.direct_script import AsyncDirectScript, DirectScript
from app.core.redis_client import create_async_client, create_client


class Interruption(BaseException):
    """What a signal's handler raises in the middle of a wait."""


@pytest.fixture
def client(settings: Settings) -> Iterator["redis.Redis"]:
    with create_client(settings.redis) as client:
        yield client


@pytest.fixture
def echo(client: "redis.Redis") -> DirectScript:
    """A script that answers its argument, and that has run before."""
    script = DirectScript(client.connection_pool, "return ARGV[1]")
    assert script(args=["first"]) == b"first"
    return script


def test_answers_after_redis_has_forgotten_its_scripts(
    client: "redis.Redis", echo: DirectScript
) -> None:
    client.script_flush()
    assert echo(args=["again"]) == b"again"


def test_answers_after_its_connection_was_cut(settings: Settings, echo: DirectScript) -> None:
    with create_client(settings.redis) as other:
        assert other.client_kill_filter(_type="normal", skipme=True) >= 1
    assert echo(args=["again"]) == b"again"


def test_reports_what_the_script_complains_of_and_goes_on(client: "redis.Redis") -> None:
    script = DirectScript(client.connection_pool, "return redis.call('INCR', ARGV[1])")
    client.set("word", "no number")
    with pytest.raises(redis.ResponseError, match="not an integer"):
        script(args=["word"])
    assert script(args=["number"]) == 1


def test_an_answer_that_nobody_waited_for_is_not_taken_for_the_next(
    client: "redis.Redis", echo: DirectScript
) -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interruption()

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        client.client_pause(1000)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Interruption):
            echo(args=["unheard"])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        client.client_unpause()
    assert echo(args=["next"]) == b"next"


def test_an_event_loop_has_its_answers_after_all_of_that(
    settings: Settings, client: "redis.Redis"
) -> None:
    async def run() -> None:
        async with create_async_client(settings.redis) as loops_client:
            echo = AsyncDirectScript(loops_client.connection_pool, "return ARGV[1]")
            assert await echo(args=["first"]) == b"first"
            client.script_flush()
            assert await echo(args=["unknown script"]) == b"unknown script"
            client.client_kill_filter(_type="normal", skipme=True)
            assert await echo(args=["cut connection"]) == b"cut connection"
            client.client_pause(1000)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await echo(args=["unheard"])
            client.client_unpause()
            assert await echo(args=["next"]) == b"next"

    asyncio.run(run())
