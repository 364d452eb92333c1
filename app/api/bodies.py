"""Reading the body of a request, for as long as it keeps coming."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Generator
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from app.api.direct_route import get_settings
from app.core.errors import SlowUploadError
from app.core.http_settings import HttpSettings
from app.core.tally import Tally

logger = logging.getLogger(__name__)

_refusals = Tally(logger, "bodies not waited for any longer: %s")

# What a body that came fast may rest, in terms of what it may rest at first.
_MOST_GRACE = 2


class Patience:
    """The time for which the next piece of a body is waited for.

    Only waiting uses it up: a body is not blamed for what the service does between two pieces.
    """

    def __init__(self, settings: HttpSettings, longest_seconds: float) -> None:
        self._rest = longest_seconds
        self._grace = settings.body_grace_seconds
        self._most_grace = _MOST_GRACE * self._grace
        self._bytes_per_second = settings.body_bytes_per_second

    def left(self) -> float:
        """In seconds."""
        return min(self._grace, self._rest)

    def account(self, waited_seconds: float, piece_bytes: int) -> None:
        """Note how long a piece took, and what it earns."""
        self._rest -= waited_seconds
        earned = piece_bytes / self._bytes_per_second
        self._grace = min(self._grace - waited_seconds + earned, self._most_grace)


async def read_body(request: Request, longest_seconds: float) -> AsyncIterator[bytes]:
    """Give the pieces of the body as they come; none of them is empty.

    Raises :class:`SlowUploadError` when they come too slowly or have been waited for, all together,
    for ``longest_seconds``; :class:`ClientDisconnect` when the sender is gone.
    """
    patience = Patience(get_settings(request).http, longest_seconds)
    more = True
    while more:
        waited_seconds = 0.0
        steps = request.receive().__await__()
        # Most bodies are there already, which a timeout would cost more than all else here.
        try:
            step = next(steps)
        except StopIteration as arrived:
            message = arrived.value
        else:
            began = time.monotonic()
            message = await _wait(_Begun(steps, step), patience.left())
            waited_seconds = time.monotonic() - began
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece, more = message.get("body", b""), message.get("more_body", False)
        patience.account(waited_seconds, len(piece))
        if piece:
            yield piece


async def _wait(arriving: Awaitable[Message], seconds: float) -> Message:
    try:
        async with asyncio.timeout(seconds):
            return await arriving
    except TimeoutError:
        _refusals.count(SlowUploadError.code)
        raise SlowUploadError() from None


class _Begun(Generator[Any, Any, Message], Awaitable[Message]):
    """An awaitable whose first step was taken outside: ``step`` is what it waits for."""

    def __init__(self, steps: Generator[Any, Any, Message], step: Any) -> None:
        self._steps = steps
        self._step = step
        self._is_handed_on = False

    def __await__(self) -> Generator[Any, Any, Message]:
        return self

    def send(self, value: Any) -> Any:
        if self._is_handed_on:
            return self._steps.send(value)
        self._is_handed_on = True
        return self._step

    def throw(self, *error: Any) -> Any:
        return self._steps.throw(*error)
