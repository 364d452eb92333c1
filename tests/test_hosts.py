"""Which hosts a request may name: what a page that was rebound can't, and all others can."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.api.hosts import HostGuard
from app.api.machine import Machine
from app.core.config import AllowedSettings, CorsSettings, ListenSettings, Settings
from app.main import create_app
from tests.api_server import run_api
from tests.raw_request import RawAnswer, send_raw, send_raw_through

NAME = socket.gethostname()


@pytest.fixture
def url(settings: Settings) -> Iterator[str]:
    with run_api(create_app(settings)) as url:
        yield url


def ask(url: str, host: str) -> int:
    return send_raw(url, ("Host", host)).status


def allowing(settings: Settings, hosts: str) -> Settings:
    return settings.model_copy(update={"allowed": AllowedSettings(hosts=hosts)})


def assert_refused(answer: RawAnswer) -> None:
    document = answer.json()
    assert answer.status == document["status"] == 421
    assert answer.headers["content-type"] == "application/problem+json"
    assert document["code"] == "misdirected-request"
    assert "ALLOWED_HOSTS" in document["detail"]
    assert document["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost:8000",
        "localhost.",
        "localhost.:8000",
        "localhost:",
        "127.0.0.1",
        "127.0.0.1:1",
        "192.168.7.9:8000",
        "8.8.8.8",
        "[::1]",
        "[::1]:8000",
        "[2001:DB8::1]",
        "[::ffff:10.0.0.1]:80",
    ],
)
def test_addresses_and_localhost_are_always_served(url: str, host: str) -> None:
    assert ask(url, host) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil-localhost",
        "user@localhost",
        "localhost@evil.example",
        "a@b/c",
        "localhost/evil",
        "localhost, localhost",
        "localhost localhost",
        "localhost:80:80",
        "localhost:-1",
        "localhost:65536",
        "localhost:1_0",
        "localhost:٣",
        "localhost..",
        ".localhost",
        "http://localhost",
        "::1",
        "[::1",
        "[::1]x",
        "[localhost]",
        "[127.0.0.1]x",
        "[v1.fe80::a]",
        "[fe80::1%25eth0]",
        "127.0.0.1\\",
        "127.1",
        "0x7f.1",
        "2130706433",
        "127.0.0.01",
        "256.0.0.1",
        "*",
        "%6cocalhost",
        "localhost?",
        "localhost#",
        "local\thost",
        "a" * 300,
        "",
    ],
)
def test_every_other_host_is_refused(url: str, host: str) -> None:
    answer = send_raw(url, ("Host", host.encode().decode("latin-1")))
    assert_refused(answer)
    assert "evil" not in answer.body.decode()


def test_a_request_has_exactly_one_host(url: str) -> None:
    assert_refused(send_raw(url))
    assert_refused(send_raw(url, version=10))
    assert_refused(send_raw(url, ("Host", "localhost"), ("Host", "localhost")))
    assert_refused(send_raw(url, ("Host", "localhost"), ("Host", "evil.example")))
    assert_refused(send_raw(url, ("Host", "evil.example"), ("Host", "localhost")))


def test_nothing_is_read_or_changed_under_a_foreign_name(url: str) -> None:
    host = ("Host", "evil.example")
    for method, path in [
        ("POST", "/classify"),
        ("POST", "/v1/batches"),
        ("GET", "/jobs"),
        ("GET", "/"),
        ("GET", "/docs"),
        ("GET", "/web/main.js"),
        ("GET", "/nothing"),
        ("OPTIONS", "/classify"),
        ("DELETE", "/jobs/0d1bfe2a-57f8-4c0e-9f43-3f6c6f6b7a10"),
        ("POST", "/webhooks"),
        ("GET", "/health/live"),
    ]:
        assert_refused(send_raw(url, host, method=method, path=path))


def test_a_page_of_an_allowed_origin_needs_the_host_too(settings: Settings) -> None:
    opened = settings.model_copy(update={"cors": CorsSettings(origins="https://app.example.org")})
    asked = (
        ("Host", "evil.example"),
        ("Origin", "https://app.example.org"),
        ("Access-Control-Request-Method", "POST"),
    )
    with run_api(create_app(opened)) as url:
        assert_refused(send_raw(url, *asked, method="OPTIONS", path="/classify"))


# --- ALLOWED_HOSTS --------------------------------------------------------------------------------


def test_names_in_the_settings_are_served_with_any_port_and_in_any_case(settings: Settings) -> None:
    named = allowing(settings, "Images.example.org, my_api,*.example.net.")
    with run_api(create_app(named)) as url:
        for host in (
            "images.example.org",
            "IMAGES.example.ORG:8443",
            "images.example.org.",
            "my_api:8000",
            "a.example.net",
            "a.b.example.net:1",
        ):
            assert ask(url, host) == 200
        for host in (
            "example.net",
            "evilexample.net",
            "a.example.net.evil.example",
            "other.example.org",
            "x.images.example.org",
        ):
            assert ask(url, host) == 421


def test_a_star_allows_every_name_but_no_nonsense(settings: Settings) -> None:
    with run_api(create_app(allowing(settings, "*"))) as url:
        assert ask(url, "evil.example") == 200
        for host in ("a@b/c", "", "a..b", "-:x"):
            assert ask(url, host) == 421
        assert_refused(send_raw(url))
        assert_refused(send_raw(url, ("Host", "a"), ("Host", "a")))


def test_the_name_to_listen_on_is_served(settings: Settings) -> None:
    named = settings.model_copy(update={"listen": ListenSettings(host="Images.lan")})
    with run_api(create_app(named)) as url:
        assert (ask(url, "images.lan"), ask(url, "other.lan")) == (200, 421)


@pytest.mark.parametrize(
    "text", ["https://a.example", "a.example:80", "a.example/x", "a.*.example", "*.", "a b", "ü.de"]
)
def test_what_is_no_name_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(ValueError, match="is no host name"):
        AllowedSettings(hosts=text)


# --- the machine's own names ----------------------------------------------------------------------


class Box(Machine):
    """A machine whose names are known, reached by others or not."""

    def __init__(self, is_open: bool) -> None:
        super().__init__()
        self.is_open = is_open
        self.lookups = 0

    def get_name(self) -> str:
        return "box"

    async def find_full_name(self) -> str:
        self.lookups += 1
        return "box.example.org"

    def listens_beyond_loopback(self, port: int) -> bool:
        return self.is_open


def serve_from(box: Box, settings: Settings) -> HostGuard:
    async def answer(scope: object, receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore
        await send({"type": "http.response.body"})  # type: ignore

    return HostGuard(answer, settings, box)


def test_by_its_own_names_a_machine_is_reached_where_others_reach_it() -> None:
    box = Box(is_open=True)
    with run_api(serve_from(box, Settings())) as url:
        for host in ("box", "BOX:8000", "box.local", "box.example.org", "box.example.org."):
            assert ask(url, host) == 200
        for host in ("box.evil.example", "box.local.evil.example", "boxy", "a.box", "local"):
            assert ask(url, host) == 421


def test_but_not_while_it_listens_to_itself_alone() -> None:
    box = Box(is_open=False)
    with run_api(serve_from(box, Settings())) as url:
        for host in ("box", "box.local", "box.example.org"):
            assert ask(url, host) == 421
    assert box.lookups == 0


def test_the_resolver_is_asked_about_names_of_this_machine_alone() -> None:
    box = Box(is_open=True)
    with run_api(serve_from(box, Settings())) as url:
        for host in ("evil.example", "box", "box.local", "127.0.0.1"):
            ask(url, host)
    assert box.lookups == 0


def test_what_is_served_at_a_port_is_not_therefore_served_through_a_socket(
    tmp_path: Path,
) -> None:
    guard, path = serve_from(Box(is_open=True), Settings()), str(tmp_path / "api.sock")
    with run_api(guard) as url:
        assert ask(url, "box") == 200
    with run_api(guard, uds=path):
        assert send_raw_through(path, ("Host", "box"), path="/").status == 421


def test_a_machine_whose_name_is_none_in_the_dns_has_no_full_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "a" * 64)
    assert asyncio.run(Machine().find_full_name()) == ""


@pytest.mark.parametrize(("address", "status"), [("0.0.0.0", 200), ("127.0.0.1", 421)])
def test_where_the_process_listens_is_what_counts(
    settings: Settings, address: str, status: int
) -> None:
    """Not LISTEN_HOST, which the specification's `uvicorn … --host 0.0.0.0` knows nothing of."""
    with run_api(create_app(settings), host=address) as url:
        assert ask(url, NAME) == status
        assert ask(url, f"{NAME}:8000") == status
        assert ask(url, "evil.example") == 421


def test_through_a_unix_socket_the_same_hosts_are_served(
    settings: Settings, tmp_path: Path
) -> None:
    path = str(tmp_path / "api.sock")
    with run_api(create_app(settings), uds=path):
        for host, status in (("localhost", 200), ("evil.example", 421), (NAME, 421)):
            answer = send_raw_through(path, ("Host", host), path="/health/live")
            assert answer.status == status
