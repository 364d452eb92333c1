"""The steps of an operation: what a client does, without doing it.

An operation is a generator. It yields steps, is sent what came of each, or has the error thrown
that the step ended in, and returns its value. Whoever performs the steps decides how to wait: the
blocking and the asynchronous client share every operation and differ in nothing else.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from classifier_client.images import Image

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """Ask the service; comes to an :class:`httpx2.Response` that was read.

    ``path`` is relative to the service's address. Whatever it asks for may reach the service twice.
    ``waits``: the service shall wait for what is not there yet. ``deadline``: when nobody waits for
    the answer any more, on the monotonic clock.
    """

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    images: Sequence[Image] = ()
    custom_ids: Sequence[str] = ()
    waits: bool = False
    deadline: float = math.inf


@dataclass(frozen=True, slots=True)
class Listen:
    """Ask for a stream, in place of the one before; comes to the :class:`httpx2.Response`.

    That was read when it is an error.
    """

    request: Request


@dataclass(frozen=True, slots=True)
class Hear:
    """Take the stream's next bytes; none at its end."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for a while."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Start:
    """Begin another operation beside this one; comes to what :class:`Join` takes."""

    operation: "Operation[Any]"


@dataclass(frozen=True, slots=True)
class Join:
    """Wait for an operation that was started; comes to its value."""

    started: Any


@dataclass(frozen=True, slots=True)
class Emit(Generic[T]):
    """Hand a value to the user, now."""

    value: T


Step = Request | Listen | Hear | Pause | Start | Join
# What is sent to a generator depends on the step that it yielded, which types can't say.
Operation = Generator[Step, Any, T]
Stream = Generator[Step | Emit[T], Any, None]


def as_stream(operation: Operation[T]) -> Stream[T]:
    """A stream of one: the operation's value."""
    yield Emit((yield from operation))
