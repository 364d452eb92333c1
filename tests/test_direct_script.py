"""The script that every batch runs survives what its connection goes through."""

from collections.abc import Iterator

import pytest
import redis

from app.core.config import Settings
from app.core.direct_script import DirectScript
from app.core.redis_client import create_client
from tests.interruption import interrupted_after


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
    client.client_pause(1000)
    with interrupted_after(0.2):
        echo(args=["unheard"])
    client.client_unpause()
    assert echo(args=["next"]) == b"next"
