"""Interim answers (1xx), of which a receiver may send any number before the one that counts.

httpcore2 passes over them without a word, so they are counted as they are read.
"""

import re
import ssl
from typing import Any

import httpcore2

# HTTP knows four; a receiver that sends each, or asks for patience some times, is served.
MOST_INTERIM_ANSWERS = 10

# As h11 reads them.
_INTERIM = re.compile(rb"HTTP/\d\.\d 1\d\d")
_STATUS_BYTES = len(b"HTTP/1.1 100")
_BLANK_LINE = re.compile(rb"\n\r?\n")
_LONGEST_BLANK_LINE = 3


class CountingStream(httpcore2.AsyncNetworkStream):
    """A connection that fails where a request is answered with too many interim answers."""

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream
        self._is_asked = False
        self._head = bytearray()
        self._count = 0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Raises :class:`httpcore2.RemoteProtocolError` for one interim answer too many."""
        data = await self._stream.read(max_bytes, timeout)
        if self._is_asked:
            self._look(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send a request, or more of it; an answer follows."""
        self._is_asked, self._count = True, 0
        self._head.clear()
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        stream = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        return CountingStream(stream)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def _look(self, data: bytes) -> None:
        # Where the blank line may begin that is sought.
        start = max(len(self._head) - _LONGEST_BLANK_LINE, 0)
        self._head += data
        while len(self._head) >= _STATUS_BYTES:
            if not _INTERIM.match(self._head):
                self._is_asked = False
                self._head.clear()
                return
            end = _BLANK_LINE.search(self._head, start)
            if end is None:
                return
            self._count += 1
            if self._count > MOST_INTERIM_ANSWERS:
                raise httpcore2.RemoteProtocolError("too many interim answers")
            del self._head[: end.end()]
            start = 0
