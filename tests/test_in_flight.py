"""Uploads that are still arriving take room as those that wait do."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest
import redis
from httpx2 import Client

from app.core.config import LimitSettings, PayloadSettings, QueueSettings, Settings
from app.jobs.file_payloads import FilePayloads
from app.jobs.payload_stores import payload_folder
from app.jobs.payloads import PIECE_BYTES
from app.main import create_app
from tests.api_client import SAMPLE, assert_problem, png_head, submit
from tests.api_server import run_api
from tests.service import wait_until

MOST_BYTES = 4_000_000


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """As many bytes may wait as one image may have."""
    rules = {
        "queue": QueueSettings(max_bytes=MOST_BYTES),
        "limits": LimitSettings(file_size=MOST_BYTES),
    }
    return settings.model_copy(update=rules)


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with run_api(create_app(settings)) as url, Client(base_url=url) as client:
        yield client


def begin_upload(client: Client, path: str, field: str, data: bytes) -> socket.socket:
    """A connection on which an upload has begun and does not go on."""
    url = client.base_url
    connection = socket.create_connection((url.host, url.port or 80), timeout=10)
    part = f'--b\r\nContent-Disposition: form-data; name="{field}"; filename="a"\r\n\r\n'
    connection.sendall(
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n".encode()
    )
    body = part.encode() + data
    connection.sendall(f"{len(body):x}\r\n".encode() + body + b"\r\n")
    return connection


def stored_bytes(settings: Settings) -> int:
    folder = payload_folder(settings)
    return sum(path.stat().st_size for path in folder.iterdir()) if folder.exists() else 0


def spooled(settings: Settings) -> bool:
    return (settings.data_dir / "spool").exists()


@pytest.mark.parametrize(("path", "field"), [("/classify", "file"), ("/batches", "file")])
def test_an_upload_on_its_way_takes_room_and_gives_it_back(
    client: Client, settings: Settings, path: str, field: str
) -> None:
    head = png_head(100, 100)
    with begin_upload(client, path, field, head + bytes(3_000_000)):
        wait_until(lambda: stored_bytes(settings) >= 2 * PIECE_BYTES)
        assert_problem(submit(client, head + bytes(2_000_000)), 429, "queue-full")
        assert submit(client, SAMPLE.read_bytes()).status_code == 202
    wait_until(lambda: submit(client, head + bytes(2_000_000)).status_code == 202)


def test_an_archive_on_its_way_takes_room(client: Client, settings: Settings) -> None:
    with begin_upload(client, "/batches", "archive", bytes(3_500_000)):
        wait_until(lambda: spooled(settings))
        wait_until(lambda: submit(client, png_head(100, 100) + bytes(3_000_000)).status_code == 429)


def test_an_upload_that_outgrows_the_room_is_refused_and_leaves_nothing(
    client: Client, settings: Settings
) -> None:
    head = png_head(100, 100)
    with ExitStack() as stack:
        first = stack.enter_context(
            begin_upload(client, "/classify", "file", head + bytes(3_000_000))
        )
        wait_until(lambda: stored_bytes(settings) >= 2 * PIECE_BYTES)
        second = stack.enter_context(begin_upload(client, "/classify", "file", head))
        chunk = bytes(2_000_000)
        second.sendall(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        assert second.recv(4096).startswith(b"HTTP/1.1 429 ")
        first.close()
    wait_until(lambda: stored_bytes(settings) == 0)


def test_an_image_as_large_as_all_that_may_wait_is_accepted(client: Client) -> None:
    head = png_head(100, 100)
    assert submit(client, head + bytes(MOST_BYTES - len(head))).status_code == 202


def test_uploads_in_redis_leave_its_memory_to_the_ends_of_jobs(settings: Settings) -> None:
    """What arrives between two looks at the memory counts, too."""
    stored = settings.model_copy(update={"payload": PayloadSettings(store="redis")})
    with (
        run_api(create_app(stored)) as url,
        Client(base_url=url) as client,
        redis.Redis.from_url(settings.redis.url) as direct,
    ):
        assert submit(client).status_code == 202
        used = direct.info("memory")["used_memory"]
        direct.config_set("maxmemory", int((used + 1_500_000) / 0.9))
        try:
            with begin_upload(client, "/classify", "file", png_head(100, 100)) as upload:
                for _ in range(3):
                    chunk = bytes(1_000_000)
                    upload.sendall(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                answer = upload.recv(4096)
        finally:
            direct.config_set("maxmemory", 0)
    assert answer.startswith(b"HTTP/1.1 429 ") and b"results-full" in answer


def test_many_slow_uploads_hold_little_in_memory(tmp_path: Path) -> None:
    """Three hundred that each stop just before their first piece is full."""

    async def run() -> int:
        payloads = FilePayloads(tmp_path / "payloads")
        writers = [payloads.create_writer(str(uuid4())) for _ in range(300)]
        chunk = bytes(10_000)
        for _ in range((PIECE_BYTES - 1) // len(chunk)):
            for writer in writers:
                await writer.write(chunk)
        stored = sum(path.stat().st_size for path in (tmp_path / "payloads").iterdir())
        return 300 * ((PIECE_BYTES - 1) // len(chunk)) * len(chunk) - stored

    assert asyncio.run(run()) <= (32 << 20) + 300 * (1 << 16)
