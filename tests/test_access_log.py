"""What the API logs when requests are refused, broken off, or come by the thousand."""

import logging
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from httpx2 import Client

from app.api.request_context import RequestIdFilter
from app.core.config import Settings
from app.core.logs import MOST_A_SECOND, FloodFilter, configure_logging
from app.main import create_app
from tests.api_client import SAMPLE
from tests.api_server import run_api
from tests.service import COMMAND, clean_environment, find_free_port, wait_until

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
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
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


@pytest.fixture
def written(settings: Settings, tmp_path: Path) -> Iterator[tuple[Client, Path]]:
    """An API in a process of its own, and the file that its lines go to."""
    port, file = find_free_port(), tmp_path / "lines"
    environment = clean_environment(REDIS_URL=settings.redis.url, ADMIN_TOKEN="x" * 40)
    with file.open("wb") as lines, Client(base_url=f"http://127.0.0.1:{port}") as client:
        command = [COMMAND, "api", "--port", str(port)]
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=lines)
        try:
            wait_until(lambda: "Uvicorn running" in file.read_text())
            yield client, file
        finally:
            process.terminate()
            process.wait(10)


def count_lines(file: Path, word: str) -> tuple[int, int]:
    """How many lines have the word, and how many seconds the API has logged in."""
    lines = file.read_text().splitlines()
    seconds = {line[:19] for line in lines if " app." in line}
    return sum(word in line for line in lines), len(seconds)


def test_a_flood_of_refusals_is_a_few_lines_and_a_number(written: tuple[Client, Path]) -> None:
    client, file = written
    for _ in range(300):
        assert client.get("/nothing").status_code == 404
        assert client.get("/admin/dead-letters").status_code == 401
    refused, seconds = count_lines(file, " app.access: ")
    # A second of the filter's may reach into two of the calendar's.
    assert 0 < refused <= MOST_A_SECOND * (seconds + 1)


def test_unreadable_requests_flood_no_log(written: tuple[Client, Path]) -> None:
    client, file = written
    address = (client.base_url.host, client.base_url.port or 80)
    for _ in range(300):
        with socket.create_connection(address) as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            connection.recv(1000)
    client.get("/nothing")
    unreadable, _ = count_lines(file, "connections ended early")
    assert 0 < unreadable < 100


class Clock:
    """Shows what it is told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Lines(logging.Handler):
    """Keeps what it is told to write."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def test_what_was_left_out_is_counted() -> None:
    clock, lines = Clock(), Lines()
    lines.addFilter(FloodFilter(clock))
    app, own = logging.getLogger("app"), logging.getLogger("app.tests")
    own.setLevel(logging.DEBUG)
    app.addHandler(lines)
    for number in range(MOST_A_SECOND + 7):
        own.info("refused %d", number)
    own.info("something else")
    own.debug("whoever asks for all of it")
    clock.now += 1
    own.info("refused again")
    app.removeHandler(lines)
    *refused, other, debug, count, again = lines.texts
    assert refused == [f"refused {number}" for number in range(MOST_A_SECOND)]
    assert (other, debug) == ("something else", "whoever asks for all of it")
    assert count == "7 lines like those before were left out, in one second"
    assert again == "refused again"


def test_an_application_that_starts_again_bounds_uvicorns_lines_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handler = logging.NullHandler()
    monkeypatch.setattr(logging.getLogger("uvicorn"), "handlers", [handler])
    for _ in range(3):
        configure_logging("INFO", RequestIdFilter())
    assert len(handler.filters) == 1
