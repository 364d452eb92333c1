"""Conversations byte by byte, as no HTTP client would have them."""

import json
import select
import socket
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from tests.api_client import SAMPLE

PATIENCE_SECONDS = 20  # for what takes a second or two where nothing else runs

FORM = (
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="cat.jpg"\r\n\r\n'
    + SAMPLE.read_bytes()
    + b"\r\n--b--\r\n"
)
"""An upload's body."""


def form_head(path: str = "/classify", length: int | None = len(FORM), *fields: str) -> bytes:
    """The head of an upload. ``length``: of its body; ``None`` where it comes in chunks."""
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", framing, *fields]
    lines.append("Content-Type: multipart/form-data; boundary=b")
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


@dataclass(frozen=True)
class Answer:
    """An answer, with the names of its headers in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def problem(self) -> tuple[int, str]:
        """Its status and code, of what must be a whole problem document."""
        document: dict[str, Any] = json.loads(self.body)
        assert self.headers["content-type"] == "application/problem+json"
        assert document["request_id"] == self.headers["x-request-id"] != "-"
        assert document["status"] == self.status and document["title"] and document["detail"]
        return self.status, document["code"]


class RawConnection:
    """One connection to a server. ``source``: the address that it comes from."""

    def __init__(self, url: str, source: str = "") -> None:
        address = urlsplit(url)
        assert address.hostname and address.port
        self.socket = socket.create_connection(
            (address.hostname, address.port), PATIENCE_SECONDS, (source, 0) if source else None
        )
        self._stream = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self.socket.close()

    def send(self, data: bytes) -> Self:
        self.socket.sendall(data)
        return self

    def send_while_taken(self, data: bytes, most_bytes: int) -> int:
        """Send ``data`` again and again; how many bytes were taken before the other end closed."""
        sent = 0
        try:
            while sent < most_bytes:
                self.socket.sendall(data)
                sent += len(data)
        except (ConnectionResetError, BrokenPipeError):
            pass
        return sent

    def get(self, path: str = "/health/live", *fields: str) -> Answer:
        """Ask for what is there, and read the answer."""
        lines = [f"GET {path} HTTP/1.1", "Host: localhost", *fields]
        return self.send("\r\n".join(lines).encode() + b"\r\n\r\n").read_answer()

    def read_answer(self) -> Answer:
        """The next answer; those in between, which end no request, are left out."""
        status = 100
        while status < 200:
            line = self._stream.readline()
            assert line.startswith(b"HTTP/1.1 "), line
            status = int(line[9:12])
            headers = {}
            while (line := self._stream.readline()) not in (b"\r\n", b""):
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", 0))
        return Answer(status, headers, self._stream.read(length))

    def is_ended(self) -> bool:
        """Whether the other end closes, without another word, while the test is patient."""
        try:
            return self._stream.read(1) == b""
        except ConnectionResetError:
            return True

    def hears_nothing(self, seconds: float) -> bool:
        """Whether no answer has begun when so much time is over."""
        return not select.select([self.socket], [], [], seconds)[0]

    def is_cut_off(self) -> bool:
        """Whether what is sent reaches nobody any more. Sends something."""
        try:
            self.socket.sendall(b"x")
        except OSError:
            return True
        return False
