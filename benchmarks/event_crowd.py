"""Thousands of clients of Server-Sent Events in one process, at next to no cost."""

import resource
import select
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from benchmarks.processes import ServerError

# Beside the listeners themselves.
_SPARE_FILES = 500
# Connections that are opened before their first events are read: fewer than a server lets wait.
_GROUP = 250
_PATIENCE_SECONDS = 30.0
_LARGEST_READ = 65_536
# Woken for each event, as no clients on other machines would be, this process would take the
# server's time. So it looks this often, and the delays count that, too.
_LOOK_SECONDS = 0.001


def allow_files(count: int) -> None:
    """Let this process and those it starts open so many sockets. Raises :class:`ServerError`."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + _SPARE_FILES
    if most != resource.RLIM_INFINITY and most < needed:
        raise ServerError(f"the limit of open files is {most}; {needed} are needed (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))


class EventCrowd:
    """Listeners of one job. A context manager; leaving it hangs up."""

    def __init__(self, port: int, job_id: str) -> None:
        self._port = port
        self._request = (
            f"GET /status/{job_id}/events HTTP/1.1\r\nHost: localhost\r\n"
            "Accept: text/event-stream\r\n\r\n"
        ).encode()
        self._sockets: dict[int, socket.socket] = {}
        self._poll = select.epoll()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._poll.close()
        for connection in self._sockets.values():
            connection.close()

    def grow(self, count: int) -> None:
        """Open ``count`` streams more, until each has had its first event."""
        while count:
            group = min(_GROUP, count)
            new = [socket.create_connection(("127.0.0.1", self._port)) for _ in range(group)]
            for connection in new:
                connection.setblocking(False)
                self._sockets[connection.fileno()] = connection
                self._poll.register(connection, select.EPOLLIN)
                connection.sendall(self._request)
            self._collect(b"data: ", {connection.fileno() for connection in new}, time.perf_counter)
            count -= group

    def time_change(self, change: Callable[[], object], progress: int) -> list[float]:
        """Make a change; the seconds from before it until each listener had its event, in order.

        ``progress``: what that says.
        """
        mark = f'"progress":{progress},'.encode()
        started = time.perf_counter()
        change()
        return self._collect(mark, set(self._sockets), lambda: time.perf_counter() - started)

    def _collect(self, mark: bytes, expected: set[int], clock: Callable[[], float]) -> list[float]:
        times = []
        deadline = time.perf_counter() + _PATIENCE_SECONDS
        while expected:
            for number, _ in self._poll.poll(1.0):
                text = self._sockets[number].recv(_LARGEST_READ)
                if mark in text and number in expected:
                    times.append(clock())
                    expected.discard(number)
                elif not text:
                    raise ServerError("a stream ended before its time")
            time.sleep(_LOOK_SECONDS)
            if time.perf_counter() > deadline:
                raise ServerError(f"{len(expected)} listeners did not get their event")
        return times
