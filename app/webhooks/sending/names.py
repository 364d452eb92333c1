"""Names of receivers looked up apart from each other: one whose DNS hangs delays no other."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

# The system's look-up blocks, and can't be cut short. The loop's own threads are few: a handful of
# names that hang would keep them all.
_MOST_AT_ONCE = 64


class NameLookup:
    """A :data:`Resolver` that asks the system. For one event loop, as a context."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_MOST_AT_ONCE, "names")
        self._pending: dict[str, asyncio.Future[Sequence[str]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """The addresses of a name. Raises :class:`OSError`, :class:`UnicodeError`."""
        pending = self._pending.get(host)
        if pending is None:
            # One at a time: those who give up leave the thread busy, and the next join it.
            pending = asyncio.get_running_loop().run_in_executor(self._threads, _look_up, host)
            self._pending[host] = pending
            pending.add_done_callback(lambda done: self._forget(host, done))
        return await asyncio.shield(pending)

    def _forget(self, host: str, done: "asyncio.Future[Sequence[str]]") -> None:
        del self._pending[host]
        if not done.cancelled():
            done.exception()  # asyncio complains of errors that nobody waited for


def _look_up(host: str) -> Sequence[str]:
    answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    # An IPv6 address may name an interface.
    return [str(address[0]).partition("%")[0] for *_, address in answers]
