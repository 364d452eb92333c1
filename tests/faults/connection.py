"""One connection through the proxy: two sockets, and what passes between them."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import hiredis

from tests.faults.conversation import Command, Conversation

if TYPE_CHECKING:
    from tests.faults.proxy import TcpProxy

# close() then sends RST instead of FIN and drops what was not sent yet.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class End(asyncio.Protocol):
    """One of the two sockets of a connection."""

    def __init__(
        self,
        begin: Callable[[], None],
        take: Callable[[bytes], None],
        lose: Callable[[], None],
        drops: Callable[[], bool],
    ) -> None:
        self._begin = begin
        self._take = take
        self._lose = lose
        self._drops = drops
        self._last_due = 0.0
        self._held = 0
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._begin()

    def data_received(self, data: bytes) -> None:
        self._take(data)

    def connection_lost(self, _error: Exception | None) -> None:
        self._lose()

    def send(self, chunk: bytes, delay_seconds: float) -> None:
        """Write the chunk after a while, and never before one that came earlier."""
        if not delay_seconds and not self._held:
            self.transport.write(chunk)
            return
        loop = asyncio.get_running_loop()
        # The event loop keeps no order among equal times.
        self._last_due = max(loop.time() + delay_seconds, self._last_due + 1e-6)
        self._held += 1
        loop.call_at(self._last_due, self._send_held, chunk)

    def _send_held(self, chunk: bytes) -> None:
        self._held -= 1
        if not self._drops() and not self.transport.is_closing():
            self.transport.write(chunk)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def reset(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            raw = self.transport.get_extra_info("socket")
            if raw.family != socket.AF_UNIX:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self.transport.abort()


class Connection:
    """A client, its own connection to Redis, and what passes between them."""

    def __init__(self, proxy: "TcpProxy") -> None:
        self._proxy = proxy
        self._conversation = Conversation()
        self.is_deaf = False
        self._early: list[bytes] = []
        self._connecting: asyncio.Task[None] | None = None
        self.client = End(self._begin, self._take_request, self._lose_client, self._drops)
        self.redis = End(self._send_early, self._take_answer, self._lose_redis, self._drops)

    def reset(self) -> None:
        self.client.reset()
        self.redis.reset()

    def _begin(self) -> None:
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            if isinstance(self._proxy.upstream, str):
                await loop.create_unix_connection(lambda: self.redis, self._proxy.upstream)
            else:
                await loop.create_connection(lambda: self.redis, *self._proxy.upstream)
        except OSError:
            self.client.reset()
        else:
            if self.client.transport.is_closing():
                self.redis.close()

    def _send_early(self) -> None:
        early, self._early = self._early, []
        for chunk in early:
            self._take_request(chunk)

    def _take_request(self, chunk: bytes) -> None:
        if self._drops():
            return
        if self.redis.transport is None:
            self._early.append(chunk)
            return
        self._conversation.hear_client(chunk)
        self.redis.send(chunk, self._proxy.delay_seconds / 2)

    def _take_answer(self, chunk: bytes) -> None:
        if self._drops():
            return
        for command, answer in self._conversation.hear_redis(chunk):
            cut = self._proxy.find_cut(command, answer)
            if cut is not None:
                if cut.delivers:
                    self.client.transport.write(chunk)
                    self.client.close()
                self.reset()
                cut.done.set()
                return
        self.client.send(chunk, self._proxy.delay_seconds / 2)

    def _drops(self) -> bool:
        # A stream with a hole in it can't go on: such a connection stays dead for ever.
        self.is_deaf = self.is_deaf or self._proxy.is_swallowing
        return self.is_deaf

    def _lose_client(self) -> None:
        self._proxy.connections.discard(self)
        self.redis.close()

    def _lose_redis(self) -> None:
        if not self._drops():
            self.client.close()


class Cut:
    """A command after whose answer a connection is to be cut."""

    def __init__(self, command: str, delivers: bool) -> None:
        self._words = tuple(word.encode() for word in command.upper().split())
        self.delivers = delivers
        self.done = threading.Event()

    def matches(self, command: Command, answer: Any) -> bool:
        happened = answer not in (None, []) and not isinstance(answer, hiredis.ReplyError)
        return happened and command[: len(self._words)] == self._words
