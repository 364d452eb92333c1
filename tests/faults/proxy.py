"""A TCP proxy between processes and Redis that can do to them what networks do."""

import asyncio
import random as randoms
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Self, TypeVar

from tests.faults.connection import Connection, Cut, End
from tests.faults.conversation import Command
from tests.service import find_free_port

_T = TypeVar("_T")

# How often `reset_randomly` rolls its dice.
_ROLL_SECONDS = 0.1


class TcpProxy:
    """Listens on a free loopback port and passes everything on to ``upstream``.

    ``upstream`` is the path of a Unix socket or ``host:port``. A context manager; its methods may
    be called from any thread and have taken effect when they return. Each of :meth:`delay`,
    :meth:`refuse` and :meth:`swallow` replaces the one before it.
    """

    def __init__(self, upstream: str) -> None:
        host, colon, port = upstream.rpartition(":")
        self.upstream: str | tuple[str, int] = (
            (host, int(port)) if colon and "/" not in upstream else upstream
        )
        self.delay_seconds = 0.0
        self.is_swallowing = False
        self.connections: set[Connection] = set()
        self._cut: Cut | None = None
        self._rolling: asyncio.TimerHandle | None = None
        self._server: asyncio.Server | None = None
        # Holds the port while nobody listens: a bound socket that does not listen refuses.
        self.port = find_free_port()
        self._reserve = self._bind()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        """What to give processes as REDIS_URL."""
        return f"redis://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self.pass_on()
        return self

    def __exit__(self, *_: object) -> None:
        self._wait_for(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._reserve.close()

    # --- What it can do ---------------------------------------------------------------------------

    def pass_on(self) -> None:
        """Back to normal: for new connections, and for old ones that lost nothing meanwhile."""
        self._wait_for(self._change())

    def delay(self, seconds: float) -> None:
        """Add so much to every round trip: each chunk is held for half of it in each direction."""
        self._wait_for(self._change(delay_seconds=seconds))

    def swallow(self) -> None:
        """Accept connections and bytes and drop the bytes, in both directions, also held ones.

        TCP stays alive. A connection that lost bytes so never passes any again, as when a
        firewall on the way has forgotten it.
        """
        self._wait_for(self._change(is_swallowing=True))

    def refuse(self) -> None:
        """Redis is away: cut every connection and refuse new ones."""
        self._wait_for(self._change(is_listening=False))
        self.reset()

    def reset(self) -> None:
        """Send RST to every client that is connected now."""
        self._call(self._reset_all)

    def reset_randomly(self, share: float, seconds: float, random: randoms.Random) -> None:
        """For ``seconds`` reset about ``share`` (0 to 1) of the connections each second.

        Returns at once.
        """
        end = self._loop.time() + seconds
        self._call(lambda: self._roll(share * _ROLL_SECONDS, end, random))

    def cut_after(self, command: str, deliver: bool = False) -> threading.Event:
        """Cut the connection on which Redis next answers ``command`` with more than nothing.

        ``command`` is its first word or first two (``"BRPOP"``, ``"EVALSHA <digest>"``). Nil, an
        empty list and an error count as nothing. Without ``deliver`` the client never sees the
        answer, nor what arrived in the same chunk. The event is set when it has happened.
        """
        cut = Cut(command, deliver)
        self._call(lambda: setattr(self, "_cut", cut))
        return cut.done

    # --- How it does it, all on the loop's own thread ---------------------------------------------

    def find_cut(self, command: Command, answer: Any) -> Cut | None:
        """The cut that this answer triggers, if it does; it happens once."""
        if self._cut is None or not self._cut.matches(command, answer):
            return None
        cut, self._cut = self._cut, None
        return cut

    async def _change(
        self,
        delay_seconds: float = 0.0,
        is_swallowing: bool = False,
        is_listening: bool = True,
    ) -> None:
        if self._rolling is not None:
            self._rolling.cancel()
        self._cut = None
        self.delay_seconds = delay_seconds
        self.is_swallowing = is_swallowing
        if is_listening and self._server is None:
            listener = self._bind()
            self._server = await self._loop.create_server(self._accept, sock=listener)
        elif not is_listening and self._server is not None:
            self._server.close()
            self._server = None

    def _bind(self) -> socket.socket:
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(("127.0.0.1", self.port))
        return bound

    def _accept(self) -> End:
        connection = Connection(self)
        self.connections.add(connection)
        return connection.client

    def _reset_all(self) -> None:
        for connection in list(self.connections):
            connection.reset()

    def _roll(self, share: float, end: float, random: randoms.Random) -> None:
        for connection in list(self.connections):
            if random.random() < share:
                connection.reset()
        if self._loop.time() < end:
            self._rolling = self._loop.call_later(_ROLL_SECONDS, self._roll, share, end, random)

    async def _stop(self) -> None:
        await self._change(is_listening=False)
        self._reset_all()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        # Sockets are closed in the loop's next round.
        await asyncio.sleep(0)

    def _call(self, function: Callable[[], _T]) -> _T:
        done: Future[_T] = Future()

        def run() -> None:
            try:
                done.set_result(function())
            except BaseException as error:
                done.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        return done.result()

    def _wait_for(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()
