"""Reading the body of a request, for as long as it keeps coming."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import cast

from starlette.requests import ClientDisconnect, Request

from app.api.direct_route import get_settings
from app.core.errors import SlowUploadError
from app.core.http_settings import HttpSettings
from app.core.tally import Tally

logger = logging.getLogger(__name__)

_refusals = Tally(logger, "bodies not waited for any longer: %s")

_SWEEP_SECONDS = 1.0

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


class BodyWatch:
    """The bodies that an application waits for, and until when each. One per application.

    They are looked at once a second: a timer for each piece would cost an upload more than reading
    it.
    """

    def __init__(self) -> None:
        self._deadlines: dict[asyncio.Task[object], float] = {}
        self._expired: set[asyncio.Task[object]] = set()
        self._is_sweeping = False

    def begin(self, task: "asyncio.Task[object]", deadline: float) -> None:
        """Cancel what ``task`` waits for at ``deadline``, in the event loop's time."""
        self._deadlines[task] = deadline
        if not self._is_sweeping:
            self._is_sweeping = True
            asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)

    def end(self, task: "asyncio.Task[object]") -> bool:
        """Return whether the wait of ``task``, which is over, was cancelled for its deadline."""
        self._deadlines.pop(task, None)
        if task not in self._expired:
            return False
        self._expired.remove(task)
        return True

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        for task in [task for task, end in self._deadlines.items() if end <= loop.time()]:
            del self._deadlines[task]
            self._expired.add(task)
            task.cancel()
        self._is_sweeping = bool(self._deadlines)
        if self._is_sweeping:
            loop.call_later(_SWEEP_SECONDS, self._sweep)


async def read_body(request: Request, longest_seconds: float) -> AsyncIterator[bytes]:
    """Give the pieces of the body as they come; none of them is empty.

    Raises :class:`SlowUploadError` when they come too slowly or have been waited for, all together,
    for ``longest_seconds``; :class:`ClientDisconnect` when the sender is gone.
    """
    patience = Patience(get_settings(request).http, longest_seconds)
    watch = cast(BodyWatch, request.app.state.body_watch)
    task = cast("asyncio.Task[object]", asyncio.current_task())
    clock = asyncio.get_running_loop().time
    more = True
    while more:
        began = clock()
        watch.begin(task, began + patience.left())
        try:
            message = await request.receive()
        except asyncio.CancelledError:
            if not watch.end(task):
                raise
            task.uncancel()
            _refusals.count(SlowUploadError.code)
            raise SlowUploadError() from None
        watch.end(task)
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece, more = message.get("body", b""), message.get("more_body", False)
        patience.account(clock() - began, len(piece))
        if piece:
            yield piece
