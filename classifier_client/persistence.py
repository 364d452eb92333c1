"""Asking again: after lost connections, and when the service is busy and says when to come."""

import math
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx2

from classifier_client.errors import NotFinishedError, UnreachableError
from classifier_client.steps import Operation, Pause, Request

FIRST_PAUSE_SECONDS = 0.25
# Whoever is asked to stay away for longer gets the answer instead.
LONGEST_PAUSE_SECONDS = 60.0
# Twice as long as the service keeps the key of an upload whose process was killed: who sends the
# image again outlasts that.
IN_USE_SECONDS = 30.0

_REFUSED = httpx2.codes.TOO_MANY_REQUESTS
_BUSY = frozenset({_REFUSED, httpx2.codes.SERVICE_UNAVAILABLE})
_NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.UnsupportedProtocol)


def find_asked_pause(reply: httpx2.Response) -> float | None:
    """Seconds until the service would like to be asked again, if it says so."""
    text = reply.headers.get("Retry-After", "")
    try:
        return max(float(text), 0.0)
    except ValueError:
        pass
    try:
        return max((parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return None


def is_busy(reply: httpx2.Response) -> bool:
    """Whether the same request may be answered otherwise a little later.

    A conflict is that when it has a time: a request with the same idempotency key is under way.
    """
    if reply.status_code == httpx2.codes.CONFLICT:
        return "Retry-After" in reply.headers
    return reply.status_code in _BUSY


class Persistence:
    """Asks up to ``attempts`` times. The pauses grow twofold where the service names none.

    A refusal that says when to come is obeyed until the request's deadline, however often. Without
    a deadline it counts as an attempt, but for :data:`IN_USE_SECONDS` where an idempotency key is
    in use.
    """

    def __init__(self, url: str, attempts: int) -> None:
        self._url = url
        self._attempts = attempts

    def ask(self, request: Request) -> Operation[httpx2.Response]:
        """The answer, or the last refusal.

        Raises :class:`UnreachableError`, and :class:`NotFinishedError` without a job when the
        answer was waited for until the request's deadline.
        """
        reply, _ = yield from self.insist(request)
        return reply

    def insist(self, request: Request) -> Operation[tuple[httpx2.Response, bool]]:
        """As :meth:`ask`; and whether an earlier attempt may have done what was asked."""
        may_be_done = False
        patience = _Patience(self._attempts, request.deadline)
        while True:
            try:
                reply: httpx2.Response = yield request
            except httpx2.TransportError as error:
                yield self.pause_after(patience.failures, error, request.deadline)
                patience.failures += 1
                may_be_done = may_be_done or not isinstance(error, _NEVER_SENT)
            else:
                if not is_busy(reply):
                    return reply, may_be_done
                pause = patience.find_pause(reply)
                if pause is None:
                    return reply, may_be_done
                yield Pause(pause)
                # A 503 may come after all was accepted, when the service lost sight of Redis.
                may_be_done = may_be_done or reply.status_code != _REFUSED

    def pause_after(
        self, failures: int, error: httpx2.TransportError, deadline: float = math.inf
    ) -> Pause:
        """Before the next attempt. Raises :class:`UnreachableError` when that was the last.

        Or :class:`NotFinishedError` when it was that because it took until the deadline.
        """
        pause = growing_pause(failures)
        is_late = time.monotonic() + pause >= deadline
        if is_late and isinstance(error, httpx2.TimeoutException):
            raise NotFinishedError(None) from error
        is_last = is_late or failures + 1 >= self._attempts
        if is_last or isinstance(error, httpx2.UnsupportedProtocol):
            raise UnreachableError(self._url, _describe(error)) from error
        return Pause(pause)


class _Patience:
    """With one request: how often it failed, and whether to ask again after a refusal."""

    def __init__(self, attempts: int, deadline: float) -> None:
        self.failures = 0
        self._attempts = attempts
        self._deadline = deadline
        self._in_use_until = math.inf

    def find_pause(self, reply: httpx2.Response) -> float | None:
        """Seconds before the next attempt; none when that was the last."""
        now = time.monotonic()
        asked = find_asked_pause(reply)
        if asked is not None and now + asked <= self._obeys_until(reply, now):
            # What is not counted shall not be repeated at once, again and again.
            return max(asked, FIRST_PAUSE_SECONDS)
        pause = growing_pause(self.failures) if asked is None else asked
        self.failures += 1
        is_last = self.failures >= self._attempts
        if is_last or pause > min(LONGEST_PAUSE_SECONDS, self._deadline - now):
            return None
        return pause

    def _obeys_until(self, reply: httpx2.Response, now: float) -> float:
        """Until when refusals like that don't count."""
        if self._deadline < math.inf:
            return self._deadline
        if reply.status_code != httpx2.codes.CONFLICT:
            return -math.inf
        self._in_use_until = min(self._in_use_until, now + IN_USE_SECONDS)
        return self._in_use_until


def _describe(error: httpx2.TransportError) -> str:
    return str(error) or type(error).__name__


def growing_pause(failures: int) -> float:
    """Seconds to wait after so many failures before this one."""
    return min(FIRST_PAUSE_SECONDS * 2.0**failures, LONGEST_PAUSE_SECONDS)
