"""One client at full speed: requests on connections that stay, and what came of them."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import uuid4

CONNECTIONS = 32


@dataclass(slots=True)
class Replies:
    """What the service has said to a flood: statuses, and the last refusal's Retry-After."""

    statuses: Counter[int] = field(default_factory=Counter)
    waits_seconds: list[int] = field(default_factory=list)
    """Of the first refusal in each row of refusals on a connection."""


def create_form(parts: list[tuple[str, bytes]]) -> bytes:
    """The parts (field, content) as the body of a form whose boundary is ``b``."""
    return (
        b"".join(
            f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="x"\r\n\r\n'.encode()
            + content
            + b"\r\n"
            for name, content in parts
        )
        + b"--b--\r\n"
    )


def create_upload(path: str, body: bytes, *headers: str) -> Callable[[], bytes]:
    """Makes requests that differ in their Idempotency-Key only."""
    lines = ["Host: localhost", "Content-Type: multipart/form-data; boundary=b", *headers]
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{line}\r\n" for line in lines)
    head += f"Content-Length: {len(body)}\r\nIdempotency-Key: "
    return lambda: f"{head}{uuid4()}\r\n\r\n".encode() + body


async def flood(
    port: int, create_request: Callable[[], bytes], seconds: float, replies: Replies
) -> None:
    """Send one request after the other on each connection, for so long."""
    end = time.monotonic() + seconds
    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(_send_many(port, create_request, end, replies))


async def _send_many(
    port: int, create_request: Callable[[], bytes], end: float, replies: Replies
) -> None:
    reader = writer = None
    was_refused = False
    while time.monotonic() < end:
        try:
            if reader is None or writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(create_request())
            status, wait_seconds, is_last = await _read_reply(reader)
        except (OSError, asyncio.IncompleteReadError):
            status, wait_seconds, is_last = 0, None, True
        replies.statuses[status] += 1
        if wait_seconds is not None and not was_refused:
            replies.waits_seconds.append(wait_seconds)
        was_refused = wait_seconds is not None
        if is_last and writer is not None:
            writer.close()
            reader = writer = None
    if writer is not None:
        writer.close()


async def _read_reply(reader: asyncio.StreamReader) -> tuple[int, int | None, bool]:
    """The status, Retry-After of a refusal, and whether the connection ends."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
    await reader.readexactly(int(headers.get("content-length", "0")))
    status = int(head.split(" ", 2)[1])
    wait_seconds = int(headers["retry-after"]) if status >= 400 else None
    return status, wait_seconds, headers.get("connection") == "close"
