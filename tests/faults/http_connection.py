"""HTTP as cheap as Python can: one keep-alive connection, requests as ready-made bytes.

The driver shares two cores with the service; a full client would take a third of one.
"""

import asyncio
from dataclasses import dataclass
from typing import Self

_BOUNDARY = "faults-boundary"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class HttpConnection:
    """One connection, made when first used and made anew after a failure.

    :meth:`ask` raises :class:`OSError` (:class:`TimeoutError` is one) without a whole answer.
    """

    def __init__(self, port: int, timeout_seconds: float = 30) -> None:
        self._port = port
        self._timeout_seconds = timeout_seconds
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()

    async def ask(self, request: bytes) -> Reply:
        """Send a request as :func:`render_upload` or :func:`render_get` made it."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._ask(request)
        except BaseException as error:
            self._close()
            if isinstance(error, asyncio.IncompleteReadError):
                raise ConnectionResetError("the answer broke off") from error
            raise

    async def _ask(self, request: bytes) -> Reply:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip().split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("connection") == "close":
            self._close()
        return Reply(int(first.split(" ", 2)[1]), headers, body)

    def _close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def render_upload(image: bytes) -> bytes:
    """``POST /classify`` with the image."""
    body = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="image"\r\n\r\n'
    ).encode()
    body += image + f"\r\n--{_BOUNDARY}--\r\n".encode()
    head = (
        "POST /classify HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def render_get(path: str) -> bytes:
    """``GET`` a path."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
