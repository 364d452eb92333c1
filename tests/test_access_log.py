"""What the API logs when requests are refused, broken off, or come by the thousand."""

import logging
import socket
from collections.abc import Iterator

import pytest
from httpx2 import Client

from app.core.config import Settings
from app.main import create_app
from tests.api_client import SAMPLE
from tests.api_server import run_api
from tests.service import wait_until

FORM = "multipart/form-data; boundary=x"
PART = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with run_api(create_app(settings)) as url, Client(base_url=url) as client:
        yield client


@pytest.fixture
def log(client: Client, caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the API logs, before any of it is left out."""
    logging.getLogger("app").addHandler(caplog.handler)
    yield caplog
    logging.getLogger("app").removeHandler(caplog.handler)


def break_off(client: Client, path: str, content_type: str, body: bytes, headers: str) -> None:
    """Send a request whose body ends too early, and hang up."""
    address = (client.base_url.host, client.base_url.port or 80)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n"
    head += f"Content-Type: {content_type}\r\n{headers}\r\n"
    with socket.create_connection(address) as connection:
        connection.sendall(head.encode() + body)


@pytest.mark.parametrize("headers", ["", "Idempotency-Key: one\r\n"])
@pytest.mark.parametrize(
    ("path", "content_type", "body"),
    [
        ("/webhooks", "application/json", b'{"url": '),
        ("/v1/webhooks", "application/json", b""),
        ("/classify", FORM, PART + SAMPLE.read_bytes()[:5000]),
        ("/classify", FORM, b""),
        ("/batches", FORM, PART + SAMPLE.read_bytes()[:5000]),
    ],
)
def test_a_request_that_is_broken_off_is_one_line(
    client: Client,
    log: pytest.LogCaptureFixture,
    path: str,
    content_type: str,
    body: bytes,
    headers: str,
) -> None:
    break_off(client, path, content_type, body, headers)
    wait_until(lambda: "POST /" in log.text)
    assert " 400 " in log.text
    assert "Traceback" not in log.text and "ERROR" not in log.text


def test_an_upload_sent_again_and_broken_off_is_one_line(
    client: Client, log: pytest.LogCaptureFixture
) -> None:
    headers = {"Idempotency-Key": "one"}
    files = {"file": SAMPLE.read_bytes()}
    assert client.post("/classify", files=files, headers=headers).status_code == 202
    break_off(client, "/classify", FORM, PART, "Idempotency-Key: one\r\n")
    wait_until(lambda: " 400 " in log.text)
    assert "Traceback" not in log.text
