"""How both clients reach the service."""

import contextlib
from collections.abc import Iterator
from typing import Any

import httpx

from classifier_client.errors import UnreachableError
from classifier_client.steps import ANSWER_SECONDS, Request

_CONNECT_SECONDS = 5.0
_IDLE_CONNECTIONS = 32
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def is_loopback(url: str) -> bool:
    """Whether that is an address of this machine. Raises :class:`httpx.InvalidURL`."""
    return httpx.URL(url).host in _LOOPBACK


def describe_connection(url: str, token: str | None) -> dict[str, Any]:
    """The arguments of an httpx client. Raises :class:`UnreachableError` for no address."""
    try:
        has_proxy = not is_loopback(url)
    except httpx.InvalidURL as error:
        raise UnreachableError(url, str(error)) from None
    return {
        "base_url": url,
        # As bytes: a token may hold what a header's text can't.
        "headers": {b"Authorization": f"Bearer {token}".encode()} if token is not None else None,
        # A proxy from the environment can't reach this machine's own addresses.
        "trust_env": has_proxy,
        # How many go out at once is for the caller to say.
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=_IDLE_CONNECTIONS),
    }


@contextlib.contextmanager
def create_request(
    http: httpx.Client | httpx.AsyncClient, step: Request
) -> Iterator[httpx.Request]:
    """The request of a step, with its images open. Raises :class:`OSError` when that can't be."""
    with contextlib.ExitStack() as opened:
        files: list[Any] = []
        for image in step.images:
            file = opened.enter_context(contextlib.closing(image.open()))
            files.append(("file", (image.filename, file)))
        yield http.build_request(
            step.method,
            step.path,
            params=step.params or None,
            headers=step.headers,
            files=files or None,
            data={"custom_id": list(step.custom_ids)} if step.custom_ids else None,
            timeout=httpx.Timeout(
                ANSWER_SECONDS, connect=_CONNECT_SECONDS, read=step.timeout_seconds
            ),
        )
