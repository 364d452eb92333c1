"""A transport whose ``close`` first lets the other end read the answer."""

import asyncio
from collections.abc import Callable
from typing import Any


class LingeringTransport(asyncio.Transport):
    """The transport of a connection, but for ``close``.

    Who closes while the other end still sends makes TCP reset the connection, and the answer is
    lost. ``linger`` is called instead; it returns whether it sees to the end of the connection.
    """

    def __init__(self, transport: asyncio.Transport, linger: Callable[[], bool]) -> None:
        self._transport = transport
        self._linger = linger
        self._is_closing = False
        # Called for every answer: without a step in between.
        self.write = transport.write  # type: ignore[method-assign]

    def close(self) -> None:
        if not self.is_closing():
            self._is_closing = True
            if not self._linger():
                self._transport.close()

    def close_at_once(self) -> None:
        """Close behind what is written already."""
        self._is_closing = True
        self._transport.close()

    def is_closing(self) -> bool:
        return self._is_closing or self._transport.is_closing()

    def abort(self) -> None:
        self._transport.abort()

    def finish(self) -> None:
        """Say that nothing more comes; what the other end sends is still received."""
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()
