"""Receivers of webhooks on sockets of their own, and what they saw."""

import json
import queue
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from examples.webhook_receiver import verify

SECONDS = 20  # the longest that a test waits for anything


@dataclass(frozen=True)
class Request:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.body)
        return document

    def verify(self, secret: str) -> None:
        verify(secret, self.headers, self.body)


@dataclass(frozen=True)
class Reply:
    """What a receiver answers. ``after``: what it waits for, ``body_after``: with the body."""

    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    after: threading.Event | None = None
    body: bytes = b""
    body_after: threading.Event | None = None


class Receiver:
    """Listens on loopback; ``respond`` says what each request is answered with."""

    def __init__(
        self, respond: Callable[[Request], Reply], certificate: Path | None = None
    ) -> None:
        self.respond = respond
        self.requests: "queue.Queue[Request]" = queue.Queue()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.path, headers, body)
                reply = receiver.respond(request)
                receiver.requests.put(request)
                if reply.after:
                    reply.after.wait(SECONDS)
                try:
                    self.send_response(reply.status)
                    for name, value in reply.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(reply.body)))
                    self.end_headers()
                    if reply.body_after:
                        reply.body_after.wait(SECONDS)
                    self.wfile.write(reply.body)
                except OSError:
                    self.close_connection = True  # the sender has given up

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook?from=test"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def next(self) -> Request:
        """The next request, as soon as it is there."""
        return self.requests.get(timeout=SECONDS)

    def is_quiet(self) -> bool:
        """Whether there was no request that nobody has looked at."""
        return self.requests.empty()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def run_receiver(*replies: Reply, certificate: Path | None = None) -> Iterator[Receiver]:
    """A receiver that gives these replies in turn, the last one for ever; 204 without any.

    ``certificate``: a file with a certificate and its key, for TLS.
    """
    script = list(replies) or [Reply()]
    lock = threading.Lock()

    def respond(_: Request) -> Reply:
        with lock:
            return script.pop(0) if len(script) > 1 else script[0]

    receiver = Receiver(respond, certificate)
    try:
        yield receiver
    finally:
        receiver.stop()
