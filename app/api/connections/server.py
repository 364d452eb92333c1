"""The server of `classifier api`: uvicorn with bounded connections."""

import asyncio
import contextlib
import os
import socket
import sys
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE

from app.api.connections.protocol import BoundedHttpProtocol
from app.api.connections.registry import ConnectionRegistry, count_places
from app.core.config import Settings
from app.core.open_files import raise_file_limit

# uvicorn looks ten times a second whether it shall end; connections are looked at every second.
_TICKS_PER_SWEEP = 10

# As many may wait to be accepted: uvicorn's own number, and a twentieth of the open files, because
# all that wait are accepted at once, and closed without a word where files run out.
_LONGEST_BACKLOG = 2048
_BACKLOG_SHARE = 20

# A peer that has gone answers none of them.
_PROBES = 4


class BoundedServer(uvicorn.Server):
    """Serves ``app``, an application or where to import it from, as the settings allow.

    ``options``: further ones of :class:`uvicorn.Config`.
    """

    def __init__(self, app: ASGIApp | str, settings: Settings, **options: Any) -> None:
        file_limit = raise_file_limit()
        backlog = _LONGEST_BACKLOG if file_limit is None else file_limit // _BACKLOG_SHARE
        super().__init__(
            uvicorn.Config(
                app,
                http=BoundedHttpProtocol,
                # Nothing here speaks it, and its connections would know no bounds.
                ws="none",
                loop="uvloop",
                backlog=min(backlog, _LONGEST_BACKLOG),
                access_log=False,
                # TRUSTED_PROXIES decide whom a request is believed, in the application.
                proxy_headers=False,
                server_header=False,
                **options,
            )
        )
        self._registry = ConnectionRegistry(settings, count_places(settings, file_limit))
        self.server_state = self._registry
        self._stall_seconds = settings.http.stall_seconds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers:
            for listener in server.sockets:
                _watch_peers(listener.fileno(), self._stall_seconds)

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_PER_SWEEP == 0:
            self._registry.sweep(asyncio.get_running_loop().time())
        return await super().on_tick(counter)


def _watch_peers(descriptor: int, seconds: float) -> None:
    """Have the system end connections whose other end is gone, or takes nothing of what is sent.

    Linux gives these options of a listening socket to each connection that it accepts.
    """
    with socket.socket(fileno=os.dup(descriptor)) as listener:
        if listener.family not in (socket.AF_INET, socket.AF_INET6):
            return
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sys.platform == "linux":
            interval = max(round(seconds / _PROBES), 1)
            for option, value in (
                (socket.TCP_KEEPIDLE, round(seconds)),
                (socket.TCP_KEEPINTVL, interval),
                (socket.TCP_KEEPCNT, _PROBES),
                (socket.TCP_USER_TIMEOUT, round(seconds * 1000)),
            ):
                listener.setsockopt(socket.IPPROTO_TCP, option, value)


def serve(app: ASGIApp | str, settings: Settings, **options: Any) -> None:
    """Serve until a signal. Ends the process, with an exit code, when it can't be started."""
    server = BoundedServer(app, settings, **options)
    # By Ctrl-C, which has been obeyed by then.
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)
