"""Requests whose headers are all the caller's own, Host included: none, two, or any text."""

import json
import socket
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

_SECONDS = 20


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """An answer as it came."""

    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        """The body, which is JSON."""
        return json.loads(self.body)


def send_raw(
    url: str,
    *headers: tuple[str, str],
    method: str = "GET",
    path: str = "/health/live",
    body: bytes = b"",
    version: int = 11,
) -> RawAnswer:
    """Send these headers, a length where there is a body, and nothing else."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=_SECONDS)
    connection._http_vsn, connection._http_vsn_str = version, f"HTTP/{version // 10}.{version % 10}"
    return _ask(connection, headers, method, path, body)


def send_raw_through(socket_path: str, *headers: tuple[str, str], path: str) -> RawAnswer:
    """The same as GET through a Unix socket."""
    connection = HTTPConnection("localhost", timeout=_SECONDS)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(socket_path)
    return _ask(connection, headers, "GET", path, b"")


def _ask(
    connection: HTTPConnection,
    headers: tuple[tuple[str, str], ...],
    method: str,
    path: str,
    body: bytes,
) -> RawAnswer:
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        if body:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return RawAnswer(answer.status, answer.headers, answer.read())
    except HTTPException as error:
        raise AssertionError(f"no answer: {error!r}") from error
    finally:
        connection.close()
