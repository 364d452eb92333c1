"""What every call is made of: a question, an answer that is understood, a stream of events."""

import json
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import httpx2

from classifier_client.answers import Document, Status
from classifier_client.batch_answers import BatchStatus
from classifier_client.errors import ProblemError, UnreachableError
from classifier_client.event_stream import EventStream
from classifier_client.persistence import Persistence, find_asked_pause, is_busy
from classifier_client.requests import create_subscription
from classifier_client.steps import Emit, Hear, Listen, Operation, Pause, Request, Stream

Content = TypeVar("Content")
Understood = TypeVar("Understood")
Followed = TypeVar("Followed", Status, BatchStatus)
T = TypeVar("T")

# Of an operation or of a stream, whichever has to do with what came.
Sequel = Generator[Any, Any, None]


class Conversation:
    """With the service at ``url``; each request is tried ``attempts`` times at most."""

    def __init__(self, url: str, attempts: int) -> None:
        self._url = url
        self._attempts = attempts
        self._persistence = Persistence(url, attempts)

    def _call(
        self, request: Request, read: Callable[[Document], Understood]
    ) -> Operation[Understood]:
        reply = yield from self._persistence.ask(request)
        return self._understand(reply, self._read(reply), read)

    def _do(self, request: Request) -> Operation[httpx2.Response]:
        """What has no document for an answer. Raises :class:`ProblemError`."""
        reply = yield from self._persistence.ask(request)
        if reply.is_error:
            self._read(reply)
        return reply

    def _erase(self, path: str, erased: str) -> Operation[None]:
        """Erase what lies at ``path``. ``erased``: the code of the problem that it is erased.

        That is no problem where the answer to an earlier attempt was lost.
        """
        reply, may_be_done = yield from self._persistence.insist(Request("DELETE", path))
        if reply.is_error and not (may_be_done and self._parse(reply).get("code") == erased):
            self._read(reply)

    def _cancel(
        self,
        path: str,
        ended: str,
        read: Callable[[Document], Followed],
        look: Operation[Followed],
    ) -> Operation[Followed]:
        """Cancel what lies at ``path``. ``ended``: the code of the problem that it has ended.

        Where the answer to an earlier attempt was lost, ``look`` says whether that ended it.
        """
        reply, may_be_done = yield from self._persistence.insist(Request("POST", f"{path}/cancel"))
        if reply.is_error and may_be_done and self._parse(reply).get("code") == ended:
            snapshot = yield from look
            if snapshot.status == "cancelled":
                return snapshot
        return self._understand(reply, self._read(reply), read)

    def _follow(
        self,
        path: str,
        read: Callable[[Document], Followed],
        tell: Callable[[Followed], Sequel],
    ) -> Sequel:
        """Do what ``tell`` does with each event at ``path``, until that of the end.

        Reconnects when the connection breaks, and misses nothing by that but steps in between.
        """
        stream = EventStream()
        failures = 0
        while True:
            reply = None
            try:
                reply = yield Listen(create_subscription(path, stream.last_id))
                if reply.status_code == httpx2.codes.NO_CONTENT:
                    return
                if not is_busy(reply) or failures + 1 >= self._attempts:
                    self._expect_events(reply)
                    stream = EventStream(stream.last_id)
                    heard = 0
                    while chunk := (yield Hear()):
                        heard += 1
                        # Every stream begins with something, a broken service's too.
                        failures = failures if heard == 1 else 0
                        for data in stream.feed(chunk):
                            failures = 0
                            snapshot = read(json.loads(data))
                            yield from tell(snapshot)
                            if snapshot.has_ended():
                                return
                raise httpx2.RemoteProtocolError("the events broke off")
            except httpx2.TransportError as error:
                pause = self._persistence.pause_after(failures, error).seconds
            asked = find_asked_pause(reply) if reply is not None else None
            yield Pause(asked or stream.retry_seconds or pause)
            failures += 1

    def _expect_events(self, reply: httpx2.Response) -> None:
        if reply.is_error:
            self._read(reply)
        if not reply.headers.get("Content-Type", "").startswith("text/event-stream"):
            raise UnreachableError(self._url, f"it answered {reply.status_code} without events")

    def _read(self, reply: httpx2.Response) -> Document:
        """The document in an answer. Raises :class:`ProblemError` when that is an error."""
        document = self._parse(reply)
        if reply.is_error:
            raise ProblemError(reply.status_code, document)
        return document

    def _parse(self, reply: httpx2.Response) -> Document:
        try:
            document = reply.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise UnreachableError(self._url, f"it answered {reply.status_code} without JSON")
        return document

    def _understand(
        self, reply: httpx2.Response, content: Content, read: Callable[[Content], Understood]
    ) -> Understood:
        try:
            return read(content)
        except (KeyError, TypeError, ValueError):
            reason = f"it answered {reply.status_code} with unknown JSON"
            raise UnreachableError(self._url, reason) from None


def emit(value: T) -> Stream[T]:
    """A stream of one value."""
    yield Emit(value)
