"""How both clients reach the service."""

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import httpx2

from classifier_client.errors import UnreachableError
from classifier_client.steps import Request

_CONNECT_SECONDS = 5.0
# Longer than the comments between events, and than the service takes for anything but waiting.
_ANSWER_SECONDS = 30.0
_WAIT_SECONDS = 60  # the most that a service waits unless it is told otherwise
# What an answer may take beyond the deadline: the service waits as long as it may, then says so.
_GRACE_SECONDS = 1.0
_IDLE_CONNECTIONS = 32
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def is_loopback(url: str) -> bool:
    """Whether that is an address of this machine. Raises :class:`httpx2.InvalidURL`."""
    return httpx2.URL(url).host in _LOOPBACK


def describe_connection(url: str, token: str | None) -> dict[str, Any]:
    """The arguments of an httpx2 client. Raises :class:`UnreachableError` for no address."""
    try:
        has_proxy = not is_loopback(url)
    except httpx2.InvalidURL as error:
        raise UnreachableError(url, str(error)) from None
    return {
        "base_url": url,
        # As bytes: a token may hold what a header's text can't.
        "headers": {b"Authorization": f"Bearer {token}".encode()} if token is not None else None,
        # A proxy from the environment can't reach this machine's own addresses.
        "trust_env": has_proxy,
        # How many go out at once is for the caller to say.
        "limits": httpx2.Limits(max_connections=None, max_keepalive_connections=_IDLE_CONNECTIONS),
    }


@contextlib.contextmanager
def create_request(
    http: httpx2.Client | httpx2.AsyncClient, step: Request
) -> Iterator[httpx2.Request]:
    """The request of a step, with its images open. Raises :class:`OSError` when that can't be.

    It takes no longer than is left until the deadline, nor does the service wait for longer.
    """
    left = max(step.deadline - time.monotonic(), 0.0)
    # In whole seconds, as the service wants them.
    wait = math.ceil(min(left, _WAIT_SECONDS)) if step.waits else 0
    longest = max(left, wait) + _GRACE_SECONDS
    prefer = {"Prefer": f"wait={wait}"} if wait else {}
    with contextlib.ExitStack() as opened:
        files: list[Any] = []
        for image in step.images:
            file = opened.enter_context(contextlib.closing(image.open()))
            files.append(("file", (image.filename, file)))
        yield http.build_request(
            step.method,
            step.path,
            params=step.params or None,
            headers={**step.headers, **prefer},
            files=files or None,
            data={"custom_id": list(step.custom_ids)} if step.custom_ids else None,
            timeout=httpx2.Timeout(
                min(_ANSWER_SECONDS, longest),
                connect=min(_CONNECT_SECONDS, longest),
                read=min(wait + _ANSWER_SECONDS, longest),
            ),
        )
