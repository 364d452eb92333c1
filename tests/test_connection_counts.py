"""How many connections there may be: of one client, and in all."""

import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_network
from typing import Any

import pytest

from app.api.connections.clients import ClientCounter, find_client
from app.api.connections.registry import ConnectionRegistry, count_places
from app.core.config import Settings
from app.core.http_settings import HttpSettings
from app.core.open_files import raise_file_limit
from app.main import create_app
from tests.api_server import run_api
from tests.raw_connection import FORM, RawConnection, form_head


@contextmanager
def serve(settings: Settings, **changes: Any) -> Iterator[str]:
    """The API with other bounds than the usual."""
    changed = settings.model_copy(update={"http": HttpSettings(**changes)})
    with run_api(create_app(changed)) as url:
        yield url


@contextmanager
def open_silent(url: str, number: int) -> Iterator[list[RawConnection]]:
    with ExitStack() as stack:
        yield [stack.enter_context(RawConnection(url)) for _ in range(number)]


# --- of one client --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "", "10.0.0.5", "fd00::7"]
)
def test_this_machine_and_trusted_proxies_may_have_any_number(host: str) -> None:
    trusted = [ip_network("10.0.0.0/24"), ip_network("fd00::/16")]
    assert find_client(host, trusted) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.1.5", "10.0.1.5", True),
        ("10.0.1.5", "10.0.1.6", False),
        ("10.0.1.5", "::ffff:10.0.1.5", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%1", "fe80::2%1", True),
    ],
)
def test_a_client_is_an_address_or_a_network_of_ipv6(one: str, other: str, same: bool) -> None:
    assert find_client(one, []) is not None
    assert (find_client(one, []) == find_client(other, [])) is same


def test_a_client_may_have_as_many_as_allowed_at_a_time() -> None:
    counter = ClientCounter(2, [])
    assert [counter.enter("a"), counter.enter("a"), counter.enter("a")] == [True, True, False]
    assert counter.enter("b")
    counter.leave("a")
    assert counter.enter("a")


def test_nobody_is_counted_where_any_number_is_allowed() -> None:
    assert ClientCounter(0, []).find("10.0.1.5") is None


class Resting:
    """A connection between two requests."""

    has_its_place = True

    def expire(self) -> None:
        self.has_its_place = False

    make_room = expire


def test_a_client_beyond_its_limit_takes_nobodys_place(settings: Settings) -> None:
    http = HttpSettings(connections_per_client=1)
    registry = ConnectionRegistry(settings.model_copy(update={"http": http}), places=0)
    first, second = Resting(), Resting()
    for resting in (first, second):
        registry.wait(resting, 60.0)
    registry.connections.add(object())  # type: ignore[arg-type]
    assert registry.admit("a") and not first.has_its_place
    assert not registry.admit("a") and second.has_its_place


def test_a_connection_without_a_place_does_not_count(settings: Settings) -> None:
    http = HttpSettings(connections_per_client=1)
    registry = ConnectionRegistry(settings.model_copy(update={"http": http}), places=0)
    registry.connections.add(object())  # type: ignore[arg-type]
    assert not registry.admit("a")
    registry.connections.clear()
    assert registry.admit("a")


# --- in all ---------------------------------------------------------------------------------------


def test_nine_tenths_of_the_open_files_are_for_connections(settings: Settings) -> None:
    assert count_places(settings, 1024) == 921
    assert count_places(settings, None) is None
    few = settings.model_copy(update={"http": HttpSettings(connections=5)})
    assert count_places(few, 1024) == count_places(few, None) == 5


def test_the_limit_of_open_files_is_raised() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard - 1, hard))
    try:
        assert raise_file_limit() == hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_limit_that_the_system_refuses_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("current limit exceeds maximum limit")

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard - 1, hard))
    try:
        with monkeypatch.context() as patch:
            patch.setattr(resource, "setrlimit", refuse)
            assert raise_file_limit() == hard - 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_whoever_is_silent_gives_way_to_others(settings: Settings) -> None:
    with serve(settings, connections=5) as url, open_silent(url, 12) as silent:
        with RawConnection(url) as other:
            assert other.get().status == 200
            answer = silent[0].read_answer()
            assert answer.problem() == (503, "too-many-connections")
            assert int(answer.headers["retry-after"]) > 0
            assert silent[0].is_ended()
            # The others rest no longer than this one, which has been served.
            assert other.get().status == 200


def test_who_has_rested_longest_goes_first(settings: Settings) -> None:
    with serve(settings, connections=2) as url:
        with RawConnection(url) as first, RawConnection(url) as second:
            assert [first.get().status, second.get().status, first.get().status] == [200] * 3
            with RawConnection(url) as third:
                assert third.get().status == 200
                assert second.is_ended()
                assert first.get().status == 200


def test_where_all_are_busy_one_more_is_refused(settings: Settings) -> None:
    with serve(settings, connections=2) as url:
        with RawConnection(url) as one, RawConnection(url) as two:
            for busy in (one, two):
                busy.send(form_head("/classify", len(FORM), "Expect: 100-continue"))
                assert busy.socket.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
            for _ in range(3):
                with RawConnection(url) as more:
                    assert more.read_answer().problem() == (503, "too-many-connections")
                    assert more.is_ended()
            assert one.send(FORM).read_answer().status == 202
            with RawConnection(url) as another:
                assert another.get().status == 200


def test_a_refused_request_gets_its_answer(settings: Settings) -> None:
    """Not a connection that is reset because nobody reads what was sent."""
    with serve(settings, connections=1) as url, RawConnection(url) as busy:
        busy.send(form_head("/classify", len(FORM), "Expect: 100-continue"))
        assert busy.socket.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        with RawConnection(url) as more:
            answer = more.send(form_head() + FORM).read_answer()
            assert answer.problem() == (503, "too-many-connections")
