"""Whose word counts about a request that a proxy passes on, and how far."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from httpx2 import Client
from starlette.types import Receive, Scope, Send

from app.api.forwarding import follow_proxies
from app.core.config import AllowedSettings, Settings, TrustedSettings
from app.main import create_app
from tests.api_client import assert_problem, submit
from tests.api_server import run_api
from tests.raw_request import send_raw, send_raw_through

LOOPBACK = "127.0.0.0/8"
OWN_HOST = "service.lan"

Given = dict[str, str] | list[tuple[str, str]]


async def describe(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers how it sees the request."""
    if scope["type"] != "http":
        return
    hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    document = {
        "address": scope["client"] and scope["client"][0],
        "scheme": scope["scheme"],
        "host": hosts,
        "prefix": scope["root_path"],
        "path": scope["path"],
        "raw_path": scope["raw_path"].decode(),
    }
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(document).encode()})


@contextmanager
def behind(proxies: str) -> Iterator[str]:
    app = follow_proxies(describe, TrustedSettings(proxies=proxies))
    with run_api(app, lifespan="off") as url:
        yield url


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with behind(f"{LOOPBACK}, 10.0.0.0/24, 2001:db8::/32") as url:
        yield url


def see(url: str, *headers: tuple[str, str], host: str = OWN_HOST) -> dict[str, Any]:
    seen: dict[str, Any] = send_raw(url, ("Host", host), *headers, path="/a%20b").json()
    return seen


PLAIN = {
    "address": "127.0.0.1",
    "scheme": "http",
    "host": [OWN_HOST],
    "prefix": "",
    "path": "/a b",
    "raw_path": "/a%20b",
}

EVERYTHING = (
    ("X-Forwarded-For", "203.0.113.7"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "images.example.org"),
    ("X-Forwarded-Port", "8443"),
    ("X-Forwarded-Prefix", "/img"),
    ("Forwarded", "for=203.0.113.7;proto=https;host=images.example.org"),
)


@pytest.mark.parametrize("proxies", ["", "10.0.0.1", "unix", "::1"])
def test_nobody_else_is_believed(proxies: str) -> None:
    with behind(proxies) as url:
        assert see(url, *EVERYTHING) == PLAIN


def test_while_nobody_is_trusted_nothing_looks_at_the_headers() -> None:
    assert follow_proxies(describe, TrustedSettings()) is describe


def test_a_trusted_proxy_says_what_its_client_asked_for(url: str) -> None:
    assert see(url, *EVERYTHING) == {
        "address": "203.0.113.7",
        "scheme": "https",
        "host": ["images.example.org:8443"],
        "prefix": "/img",
        "path": "/img/a b",
        "raw_path": "/img/a%20b",
    }


def test_without_the_headers_it_speaks_for_itself(url: str) -> None:
    assert see(url) == PLAIN


def test_an_address_of_both_families_is_the_same_proxy() -> None:
    with behind("10.1.0.0/16, 127.0.0.1") as url:
        chain = ("X-Forwarded-For", "203.0.113.7, ::ffff:10.1.2.3")
        assert see(url, chain)["address"] == "203.0.113.7"


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "address"),
    [
        (["203.0.113.7"], "203.0.113.7"),
        # Whatever a client wrote itself stands before what the nearest proxy adds.
        (["1.1.1.1, 203.0.113.7"], "203.0.113.7"),
        (["1.1.1.1", "203.0.113.7"], "203.0.113.7"),
        (["10.0.0.9, 203.0.113.7"], "203.0.113.7"),
        # Behind trusted proxies the last that is none.
        (["1.1.1.1, 203.0.113.7, 10.0.0.9, 10.0.0.8"], "203.0.113.7"),
        (["10.0.0.9, 10.0.0.8"], "10.0.0.9"),
        (["203.0.113.7:4711"], "203.0.113.7"),
        (["[2001:DB9::1]:4711"], "2001:db9::1"),
        (["2001:db9::1"], "2001:db9::1"),
        (["203.0.113.7, 2001:db8::5"], "203.0.113.7"),
        (["::ffff:203.0.113.7"], "203.0.113.7"),
        (["1.1.1.1, unknown"], None),
        (["1.1.1.1, nonsense"], None),
        (["1.1.1.1, 999.1.1.1"], None),
        (["1.1.1.1, 10.0.0.9, _hidden, 10.0.0.8"], None),
        ([""], "127.0.0.1"),
        ([" , ,"], "127.0.0.1"),
        ([", ".join(["10.0.0.9"] * 500)], "10.0.0.9"),
    ],
)
def test_the_last_that_no_trusted_proxy_wrote_is_the_client(
    url: str, values: list[str], address: str | None
) -> None:
    assert see(url, *(("X-Forwarded-For", value) for value in values))["address"] == address


@pytest.mark.parametrize(
    ("values", "address"),
    [
        (["for=203.0.113.7"], "203.0.113.7"),
        (["FOR=203.0.113.7;By=10.0.0.1"], "203.0.113.7"),
        (['for="203.0.113.7:4711"'], "203.0.113.7"),
        (['for="[2001:db9::1]"'], "2001:db9::1"),
        (['for="[2001:DB9:0::1]:4711" ; proto=http'], "2001:db9::1"),
        (['for="[2001:db9::\\1]"'], "2001:db9::1"),
        (["for=1.1.1.1, for=203.0.113.7"], "203.0.113.7"),
        (["for=1.1.1.1,for=203.0.113.7,for=10.0.0.9"], "203.0.113.7"),
        (["for=1.1.1.1", "for=203.0.113.7"], "203.0.113.7"),
        (["for=1.1.1.1, for=unknown"], None),
        (["for=1.1.1.1, for=_SEVKISEK"], None),
        (['for=1.1.1.1, for="_gazonk:_port"'], None),
        (["for=1.1.1.1, proto=https"], "127.0.0.1"),
        # A client that opens a quote takes nothing of what the proxy adds for its own.
        (['for="1.1.1.1, for=203.0.113.7'], None),
        (['for="1.1.1.1', "for=203.0.113.7"], "203.0.113.7"),
        (['secret=", for="[2001:db9::1]"'], None),
        (["for=1.1.1.1;for=203.0.113.7"], None),
        (["for 203.0.113.7"], None),
        (["for=203.0.113.7 by=x"], None),
        ([";;;"], None),
    ],
)
def test_the_standard_header_says_the_same(
    url: str, values: list[str], address: str | None
) -> None:
    assert see(url, *(("Forwarded", value) for value in values))["address"] == address


@pytest.mark.parametrize(
    ("standard", "customary", "address"),
    [
        ('for="203.0.113.7:1"', "203.0.113.7", "203.0.113.7"),
        ("for=1.1.1.1", "203.0.113.7", None),
        ("for=unknown", "203.0.113.7", None),
        ("proto=https", "203.0.113.7", "203.0.113.7"),
    ],
)
def test_two_headers_that_disagree_are_believed_neither(
    url: str, standard: str, customary: str, address: str | None
) -> None:
    """A proxy that writes one of them may pass on the other as its client wrote it."""
    seen = see(url, ("Forwarded", standard), ("X-Forwarded-For", customary))
    assert seen["address"] == address


# --- scheme, host, prefix -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "scheme"),
    [
        ([("X-Forwarded-Proto", "HTTPS")], "https"),
        ([("X-Forwarded-Proto", "https, http")], "http"),
        ([("X-Forwarded-Proto", "gopher")], "http"),
        ([("X-Forwarded-Proto", "https://evil")], "http"),
        # The outer of two trusted proxies says what the client used.
        (
            [("X-Forwarded-For", "203.0.113.7, 10.0.0.9"), ("X-Forwarded-Proto", "https, http")],
            "https",
        ),
        (
            [("X-Forwarded-For", "203.0.113.7, 10.0.0.9"), ("X-Forwarded-Proto", "https")],
            "https",
        ),
        ([("Forwarded", "for=203.0.113.7;proto=https, for=10.0.0.9;proto=http")], "https"),
        ([("Forwarded", "for=1.1.1.1;proto=https, for=203.0.113.7;proto=http")], "http"),
        ([("Forwarded", "for=1.1.1.1;proto=https, for=203.0.113.7")], "http"),
        ([("Forwarded", "proto=http"), ("X-Forwarded-Proto", "https")], "http"),
    ],
)
def test_the_scheme_is_that_of_the_outermost_trusted_proxy(
    url: str, headers: list[tuple[str, str]], scheme: str
) -> None:
    assert see(url, *headers)["scheme"] == scheme


@pytest.mark.parametrize(
    ("headers", "host"),
    [
        ([("X-Forwarded-Host", "images.example.org")], "images.example.org"),
        ([("X-Forwarded-Host", "evil.example, images.example.org:1")], "images.example.org:1"),
        ([("X-Forwarded-Port", "8443")], f"{OWN_HOST}:8443"),
        ([("X-Forwarded-Host", "a.example:1"), ("X-Forwarded-Port", "2")], "a.example:1"),
        ([("X-Forwarded-Host", "[2001:db8::1]"), ("X-Forwarded-Port", "2")], "[2001:db8::1]:2"),
        ([("X-Forwarded-Port", "x")], OWN_HOST),
        ([("Forwarded", 'for=_x;host="images.example.org:8443"')], "images.example.org:8443"),
        ([("Forwarded", "host=a.example"), ("X-Forwarded-Host", "b.example")], OWN_HOST),
    ],
)
def test_the_host_takes_the_place_of_the_requests_own(
    url: str, headers: list[tuple[str, str]], host: str
) -> None:
    assert see(url, *headers)["host"] == [host]


def test_it_takes_the_place_of_no_two_hosts(url: str) -> None:
    two = [("Host", "a.example"), ("Host", "b.example")]
    seen = send_raw(url, *two, ("X-Forwarded-Host", "images.example.org")).json()
    assert seen["host"] == ["a.example", "b.example"]


@pytest.mark.parametrize(
    ("headers", "prefix"),
    [
        ([("X-Forwarded-Prefix", "/img")], "/img"),
        ([("X-Forwarded-Prefix", "/img/")], "/img"),
        ([("X-Forwarded-Prefix", "/a/b-c_d~e.f")], "/a/b-c_d~e.f"),
        ([("X-Forwarded-Prefix", "/evil, /img")], "/img"),
        ([("X-Forwarded-Prefix", "/evil"), ("X-Forwarded-Prefix", "/img")], "/img"),
        (
            [("X-Forwarded-For", "1.1.1.1, 10.0.0.9"), ("X-Forwarded-Prefix", "/outer, /inner")],
            "/outer/inner",
        ),
        ([("X-Forwarded-Prefix", "/")], ""),
        ([("X-Forwarded-Prefix", "img")], ""),
        ([("X-Forwarded-Prefix", "//evil.example")], ""),
        ([("X-Forwarded-Prefix", "/\\evil.example")], ""),
        ([("X-Forwarded-Prefix", "https://evil.example")], ""),
        ([("X-Forwarded-Prefix", "/..")], ""),
        ([("X-Forwarded-Prefix", "/a/../b")], ""),
        ([("X-Forwarded-Prefix", "/a?b")], ""),
        ([("X-Forwarded-Prefix", "/a%2fb")], ""),
        ([("X-Forwarded-Prefix", "/ü".encode().decode("latin-1"))], ""),
        ([("X-Forwarded-Prefix", "/" + "a" * 300)], ""),
    ],
)
def test_the_prefix_is_where_the_proxy_serves_this_and_leads_nowhere_else(
    url: str, headers: list[tuple[str, str]], prefix: str
) -> None:
    seen = see(url, *headers)
    assert (seen["prefix"], seen["path"]) == (prefix, f"{prefix}/a b")


# --- Unix sockets ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("proxies", "address"), [("unix", "203.0.113.7"), (LOOPBACK, None)])
def test_a_proxy_behind_a_unix_socket_is_trusted_by_that_word_alone(
    tmp_path: Path, proxies: str, address: str | None
) -> None:
    path = str(tmp_path / "api.sock")
    app = follow_proxies(describe, TrustedSettings(proxies=proxies))
    with run_api(app, uds=path, lifespan="off"):
        headers = (("Host", OWN_HOST), ("X-Forwarded-For", "203.0.113.7"))
        assert send_raw_through(path, *headers, path="/").json()["address"] == address


@pytest.mark.parametrize("text", ["nginx", "10.0.0.1/8", "10.0.0.0/33", "unix:/run/x"])
def test_what_is_no_network_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(ValueError):
        TrustedSettings(proxies=text)


# --- The service behind a proxy -------------------------------------------------------------------


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    trusting = settings.model_copy(
        update={
            "trusted": TrustedSettings(proxies=LOOPBACK),
            "allowed": AllowedSettings(hosts="images.example.org"),
        }
    )
    with run_api(create_app(trusting)) as url, Client(base_url=url) as client:
        yield client


def test_links_lead_to_where_the_proxy_serves_them(client: Client) -> None:
    client.headers["X-Forwarded-Prefix"] = "/img"
    for given, link in (("", "/img/status/"), ("/v1", "/img/v1/status/")):
        job_id = submit(client).json()["job_id"]
        pending = client.get(f"{given}/result/{job_id}")
        assert pending.headers["location"] == f"{link}{job_id}"
    servers = client.get("/v1/openapi.json").json()["servers"]
    assert [server["url"] for server in servers] == ["/img/v1", "/img/"]
    for path in ("/", "/web/main.js", "/docs", "/docs/docs.js", "/redoc", "/health"):
        assert client.get(path).status_code == 200


def test_the_host_that_a_proxy_names_must_be_one_of_the_services(client: Client) -> None:
    assert (
        client.get("/jobs", headers={"X-Forwarded-Host": "images.example.org"}).status_code == 200
    )
    foreign = client.get("/jobs", headers={"X-Forwarded-Host": "evil.example"})
    assert_problem(foreign, 421, "misdirected-request")


def test_its_own_page_may_upload_through_the_proxy(client: Client) -> None:
    """Also where the browser does not say that the page is the service's own."""
    client.headers["X-Forwarded-Host"] = "images.example.org"
    client.headers["X-Forwarded-Proto"] = "https"
    for origin, status in (
        ("https://images.example.org", 202),
        ("https://images.example.org:443", 202),
        ("http://images.example.org", 403),
        ("https://images.example.org:8443", 403),
    ):
        client.headers["Origin"] = origin
        assert submit(client).status_code == status
