"""What webhooks cost a machine that is all busy: none, dead receivers, one that answers."""

import asyncio
import json
import socket
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from benchmarks.models import BenchmarkModel
from benchmarks.participants import ServiceParticipant, Session
from benchmarks.results import Row

NO_RECEIVER = "no webhook"
DEAD_RECEIVERS = "four dead receivers"
LIVE_RECEIVER = "a receiver that answers"

_TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"
_BROKEN = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
_MOVED = b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\nContent-Length: 0\r\n\r\n"
_SILENT = b""
_LOOPBACK = "127.0.0.0/8"


@dataclass(frozen=True)
class ReceiverParticipant:
    """Our service with a webhook for each of ``answers``, and for a port where nobody listens."""

    name: str
    model: BenchmarkModel
    answers: Sequence[bytes] = ()
    has_closed_port: bool = False

    def measure(self, session: Session) -> Row:
        """Jobs' throughput while every end of a job is told to all receivers."""
        with run_receivers(self.answers) as ports, _reserve_port() as closed:
            urls = [f"http://127.0.0.1:{port}/" for port in ports]
            urls += [f"http://127.0.0.1:{closed}/"] if self.has_closed_port else []

            def register(port: int) -> None:
                for url in urls:
                    _post(f"http://127.0.0.1:{port}/webhooks", {"url": url})

            variables = {"WEBHOOK_ALLOWED_NETWORKS": _LOOPBACK}
            return ServiceParticipant(self.name, self.model, variables, register).measure(session)


def receiver_participants(model: BenchmarkModel) -> list[ReceiverParticipant]:
    """Who is measured in turn."""
    dead = (_SILENT, _BROKEN, _MOVED)
    return [
        ReceiverParticipant(NO_RECEIVER, model),
        ReceiverParticipant(DEAD_RECEIVERS, model, dead, has_closed_port=True),
        ReceiverParticipant(LIVE_RECEIVER, model, (_TAKEN,)),
    ]


@contextmanager
def run_receivers(answers: Sequence[bytes]) -> Iterator[list[int]]:
    """Servers that give every request the same answer, in a thread; gives their ports."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> list[asyncio.Server]:
        made = [partial(_Receiver, answer) for answer in answers]
        return [await loop.create_server(each, "127.0.0.1", 0) for each in made]

    servers = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield [server.sockets[0].getsockname()[1] for server in servers]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        for server in servers:
            server.close()
        loop.close()


class _Receiver(asyncio.Protocol):
    """As little as a receiver can be: what it costs is taken from the service's cores."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._read += data
        while self._answer and (rest := _skip_request(self._read)) is not None:
            self._read = rest
            self._transport.write(self._answer)


def _skip_request(data: bytes) -> bytes | None:
    """What follows the first request, ``None`` before that is complete."""
    head, end, body = data.partition(b"\r\n\r\n")
    fields = dict(line.partition(b": ")[::2] for line in head.lower().split(b"\r\n"))
    length = int(fields.get(b"content-length", 0))
    return body[length:] if end and len(body) >= length else None


@contextmanager
def _reserve_port() -> Iterator[int]:
    """A port that stays closed: bound, and nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def _post(url: str, document: object) -> None:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(document).encode(), headers)
    urllib.request.urlopen(request, timeout=30).close()
