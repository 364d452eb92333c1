"""One id per request: in the answer's header, in every log line, in every problem."""

import logging
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.answer_headers import AnswerHeaders

logger = logging.getLogger("app.access")

# Looked up and written as ASGI has headers, in lower-case bytes: every request passes here.
_RAW_HEADER = b"x-request-id"

# A caller's own id is kept when it can't do harm in a log line.
_ACCEPTABLE = re.compile(r"[A-Za-z0-9._-]{1,64}")

_LONGEST_LOGGED_PATH = 200

# Too slow, too much work, or Redis is away: those who refuse say so once.
_REFUSALS = frozenset({408, 429, 503})

_request_id: ContextVar[str] = ContextVar("request_id", default="-")


def get_request_id() -> str:
    """The id of the request that is being answered, ``-`` outside of one."""
    return _request_id.get()


def create_request_id() -> str:
    """A new one: unique, not secret, so the system's randomness is not asked."""
    return f"{random.getrandbits(128):032x}"


@contextmanager
def named_request(request_id: str) -> Iterator[None]:
    """Give what is done inside a request's id, where no middleware does."""
    token = _request_id.set(request_id)
    try:
        yield
    finally:
        _request_id.reset(token)


def _find_given_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == _RAW_HEADER:
            text: str = value.decode("latin-1")
            return text
    return ""


class RequestIdFilter(logging.Filter):
    """Puts the request's id into every log record, as ``request_id``."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = get_request_id()
        return True


class RequestContextMiddleware:
    """Names each request, logs it in one line, and answers for what nobody expected.

    ``answer_unexpected`` answers requests that ended in an exception. ``headers`` completes those
    of every answer.
    """

    def __init__(self, app: ASGIApp, answer_unexpected: ASGIApp, headers: AnswerHeaders) -> None:
        self._app = app
        self._answer_unexpected = answer_unexpected
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        is_head = method == "HEAD"
        if is_head:
            # Answered as GET would be, and ended behind the head.
            scope = {**scope, "method": "GET"}
        given = _find_given_id(scope)
        is_named = given and _ACCEPTABLE.fullmatch(given)
        request_id = given if is_named else create_request_id()
        token = _request_id.set(request_id)
        started = time.perf_counter()
        status = 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"]
                headers.append((_RAW_HEADER, request_id.encode()))
                self._headers.complete(headers, scope)
                if is_head:
                    await send(message)
                    message = {"type": "http.response.body"}
            elif is_head:
                return
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        except Exception:
            logger.exception("unexpected error")
            if status:
                raise
            await self._answer_unexpected(scope, receive, send_named)
        finally:
            # A line for every upload, poll and probe would bury what matters and cost a fifth of
            # an upload's CPU time; one for every refusal, more than the refusal.
            quiet = status < 400 or status in _REFUSALS
            level = logging.DEBUG if quiet else logging.INFO
            if logger.isEnabledFor(level):
                milliseconds = (time.perf_counter() - started) * 1000
                # A path may hold anything once decoded, line breaks and terminal codes included.
                path = ascii(scope["path"])[1:-1][:_LONGEST_LOGGED_PATH]
                logger.log(level, "%s %s %d %.1f ms", method, path, status, milliseconds)
            _request_id.reset(token)
