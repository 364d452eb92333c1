"""The machine that the service runs on: its names, and who can reach it here."""

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Iterator

from app.core.networks import read_address


class Machine:
    """The names and sockets of this machine, as the operating system knows them."""

    def __init__(self) -> None:
        self._looking: asyncio.Task[str] | None = None
        self._is_open: dict[int, bool] = {}

    def get_name(self) -> str:
        """The machine's name in lower case, with or without its domain."""
        return socket.gethostname().lower()

    async def find_full_name(self) -> str:
        """The name with its domain in lower case; empty where nobody knows it."""
        # A DNS server that is asked may take seconds to say nothing: one question at a time.
        if self._looking is None or (self._looking.done() and not self._looking.result()):
            self._looking = asyncio.create_task(asyncio.to_thread(_look_up_full_name))
        return await asyncio.shield(self._looking)

    def listens_beyond_loopback(self, port: int) -> bool:
        """Whether this process takes connections on the port from other machines.

        Asked of the sockets: under plain uvicorn the settings don't say where it listens. A process
        that serves a request has them all, so this looks once.
        """
        if port not in self._is_open:
            self._is_open[port] = any(
                own_port == port and not read_address(address.partition("%")[0]).is_loopback
                for address, own_port in _list_listening()
            )
        return self._is_open[port]


def _look_up_full_name() -> str:
    try:
        answers = socket.getaddrinfo(socket.gethostname(), None, flags=socket.AI_CANONNAME)
    except (OSError, UnicodeError):
        # A label of more than 63 characters is no name in the DNS, yet a host may be called so.
        return ""
    return answers[0][3].lower().removesuffix(".")


def _list_listening() -> Iterator[tuple[str, int]]:
    """Address and port of each TCP socket on which this process listens."""
    for descriptor in map(int, os.listdir("/dev/fd")):
        # The one that listed them is closed by now.
        with contextlib.suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
            with socket.socket(fileno=os.dup(descriptor)) as found:
                is_tcp = found.family in (socket.AF_INET, socket.AF_INET6)
                if is_tcp and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    address, port, *_ = found.getsockname()
                    yield address, port
