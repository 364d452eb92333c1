"""The requests that calls are made of."""

import math
import time
from collections.abc import Container, Iterable, Sequence
from typing import Literal, TypedDict
from urllib.parse import quote
from uuid import uuid4

from classifier_client.images import ImageSource, create_image
from classifier_client.steps import Request


class AnswerOptions(TypedDict, total=False):
    """Which answer is wanted; the service's defaults where left out."""

    top_k: int
    threshold: float
    model: str


class Options(AnswerOptions, total=False):
    """How an image is to be classified; the service's defaults where left out.

    ``cancel_after``: seconds after which it is of no use any more.
    """

    priority: Literal["interactive", "bulk"]
    cancel_after: int


def expect_options(options: Iterable[str], known: Container[str]) -> None:
    """Raises :class:`TypeError` for others: the service passes over what it does not know."""
    for name in options:
        if name not in known:
            raise TypeError(f"there is no option {name!r}")


def create_upload(
    source: ImageSource,
    idempotency_key: str | None,
    options: Options,
    deadline: float = math.inf,
    *,
    waits: bool = False,
) -> Request:
    """Send an image, and with ``waits`` get its result.

    Raises :class:`OSError` when an open file can't be read, :class:`ValueError` for a key that no
    header can hold, and :class:`TypeError` for an option that there is not.
    """
    expect_options(options, Options.__optional_keys__)
    params = {name: str(value) for name, value in options.items() if name != "cancel_after"}
    headers = _identify(idempotency_key)
    if "cancel_after" in options:
        headers["Cancel-After"] = f"{options['cancel_after']}s"
    images = (create_image(source),)
    return Request("POST", "classify", params, headers, images, waits=waits, deadline=deadline)


def create_batch_upload(
    sources: Iterable[ImageSource],
    custom_ids: Sequence[str],
    idempotency_key: str | None,
    options: AnswerOptions,
) -> Request:
    """Send many images. Raises as :func:`create_upload`, and :class:`ValueError` without any."""
    expect_options(options, AnswerOptions.__optional_keys__)
    images = tuple(create_image(source) for source in sources)
    if not images:
        raise ValueError("a batch needs at least one image")
    params = {name: str(value) for name, value in options.items()}
    headers = _identify(idempotency_key)
    return Request("POST", "batches", params, headers, images, custom_ids)


def create_read(path: str) -> Request:
    """Get what lies at ``path``."""
    return Request("GET", path)


def create_subscription(path: str, last_id: str) -> Request:
    """Hear the events at ``path`` from ``last_id`` on, or from now."""
    seen = {"Last-Event-ID": last_id} if last_id else {}
    headers = {"Accept": "text/event-stream", **seen}
    return Request("GET", path, headers=headers)


def quote_id(identifier: str) -> str:
    """As part of a path, whatever is in it."""
    return quote(str(identifier), safe="")


def deadline_after(timeout: float | None) -> float:
    """When so many seconds are over, on the monotonic clock; never for ``None``."""
    return math.inf if timeout is None else time.monotonic() + timeout


def _identify(idempotency_key: str | None) -> dict[str, str]:
    """By a key of its own where none is given. Raises :class:`ValueError` as the calls do."""
    key = idempotency_key or str(uuid4())
    if not (key.isascii() and key.isprintable()):
        raise ValueError("idempotency_key must consist of printable ASCII characters")
    escaped = key.replace("\\", "\\\\").replace('"', '\\"')
    return {"Idempotency-Key": f'"{escaped}"'}
