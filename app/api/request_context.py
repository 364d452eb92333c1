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

# A line for every upload, poll and probe would bury what matters and cost a fifth of an upload's
# CPU time; one for every refusal, more than the refusal. Too slow, too much work, or Redis is away:
# those who refuse say so once.
_QUIET = frozenset({408, 429, 503})

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


def _choose_request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == _RAW_HEADER:
            given: str = value.decode("latin-1")
            return given if _ACCEPTABLE.fullmatch(given) else create_request_id()
    return create_request_id()


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
        request_id = _choose_request_id(scope)
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
            level = logging.DEBUG if status < 400 or status in _QUIET else logging.INFO
            if logger.isEnabledFor(level):
                _log(level, method, scope["path"], status, time.perf_counter() - started)
            _request_id.reset(token)


def _log(level: int, method: str, path: str, status: int, seconds: float) -> None:
    # A path may hold anything once decoded, line breaks and terminal codes included.
    shown = ascii(path)[1:-1][:_LONGEST_LOGGED_PATH]
    logger.log(level, "%s %s %d %.1f ms", method, shown, status, seconds * 1000)
