"""The driver: sends images over HTTP while faults happen, and keeps account of every answer."""

import asyncio
import contextlib
import itertools
import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import redis

from tests.faults.cluster import Cluster, busy_jobs
from tests.faults.http_connection import HttpConnection, Reply, render_upload

# Before a client tries again that was refused or got no answer. Short: a fault is to meet load.
_PAUSE_SECONDS = 0.1

# For the jobs that are not accepted yet when a scenario has done all its harm.
_PATIENCE_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job that the service owes an answer for."""

    job_id: str
    picture: str
    at: float


@dataclass(frozen=True, slots=True)
class Refused:
    """An answer that does not accept."""

    status: int
    retry_after_seconds: float | None
    answered_in_seconds: float
    at: float

    def is_clear(self) -> bool:
        """Whether it says that it is only for now, and when to come again."""
        return self.status in (429, 503) and self.retry_after_seconds is not None

    def describe(self) -> str:
        """For whoever reads the verdict."""
        return f"refused with {self.status}, Retry-After {self.retry_after_seconds}"


class Account:
    """What became of everything that was sent. An upload without a whole answer is ``unclear``:
    it may have been accepted or not, so the service owes nothing for it."""

    def __init__(self) -> None:
        self.accepted: list[Accepted] = []
        self.refused: list[Refused] = []
        self.unclear = 0

    def note(self, picture: str, started: float, reply: Reply) -> bool:
        """Enter an answer; returns whether it accepts."""
        if reply.status == 202:
            job_id = json.loads(reply.body)["job_id"]
            self.accepted.append(Accepted(job_id, picture, time.time()))
            return True
        after = reply.headers.get("retry-after")
        seconds = time.time() - started
        self.refused.append(
            Refused(reply.status, float(after) if after else None, seconds, time.time())
        )
        return False


class Traffic:
    """Sends until as many jobs are accepted as ``order`` names pictures. A context manager: runs in
    a thread of its own inside, and leaves after the last job was accepted.

    ``clients`` at once; at most ``rate`` a second; a new one only while fewer than ``backlog`` jobs
    are unfinished, as far as Redis can be asked.
    """

    def __init__(
        self,
        cluster: Cluster,
        pictures: Mapping[str, bytes],
        order: Sequence[str],
        clients: int = 4,
        rate: float | None = None,
        backlog: int | None = 48,
    ) -> None:
        self.account = Account()
        self._cluster = cluster
        self._requests = {name: render_upload(picture) for name, picture in pictures.items()}
        self._order = order
        self.count = len(order)
        self._clients = clients
        self._interval = 1 / rate if rate else 0.0
        self._backlog = backlog
        self._next_at = 0.0
        self._under_way = 0
        self._stopped = threading.Event()
        self._may_send = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._thread.join(_PATIENCE_SECONDS)
        is_late = self._thread.is_alive()
        self._stopped.set()
        self._thread.join()
        assert kind is not None or not is_late, self._describe()

    def wait_accepted(self, count: int, seconds: float = 120) -> None:
        """Wait until so many jobs were accepted."""
        deadline = time.monotonic() + seconds
        while len(self.account.accepted) < min(count, self.count):
            assert time.monotonic() < deadline, self._describe()
            time.sleep(0.01)

    def _describe(self) -> str:
        account = self.account
        return (
            f"only {len(account.accepted)} of {self.count} jobs were accepted, "
            f"{len(account.refused)} refused, {account.unclear} unclear\n"
            + self._cluster.describe_logs()
        )

    async def _run(self) -> None:
        names = itertools.cycle(self._order)
        watch = asyncio.create_task(self._watch_backlog())
        await asyncio.gather(*(self._send(names) for _ in range(self._clients)))
        watch.cancel()

    async def _send(self, names: "itertools.cycle[str]") -> None:
        async with HttpConnection(self._cluster.port) as connection:
            while not self._is_done():
                if not self._may_send.is_set():
                    await asyncio.sleep(0.005)
                    continue
                await self._keep_pace()
                if self._is_done():
                    return
                if not await self._send_one(connection, next(names)):
                    await asyncio.sleep(_PAUSE_SECONDS)

    async def _send_one(self, connection: HttpConnection, name: str) -> bool:
        started = time.time()
        self._under_way += 1
        try:
            return self.account.note(name, started, await connection.ask(self._requests[name]))
        except OSError:
            self.account.unclear += 1
            return False
        finally:
            self._under_way -= 1

    def _is_done(self) -> bool:
        sent = len(self.account.accepted) + self._under_way
        return self._stopped.is_set() or sent >= self.count

    async def _keep_pace(self) -> None:
        if self._interval:
            now = time.monotonic()
            self._next_at = max(self._next_at + self._interval, now)
            await asyncio.sleep(self._next_at - now)

    async def _watch_backlog(self) -> None:
        while True:
            if self._backlog is None or await asyncio.to_thread(self._has_room, self._backlog):
                self._may_send.set()
            else:
                self._may_send.clear()
            await asyncio.sleep(0.03)

    def _has_room(self, backlog: int) -> bool:
        # While Redis is away clients go on: what they are told then is part of the test.
        with contextlib.suppress(redis.RedisError):
            return busy_jobs(self._cluster.redis) < backlog
        return True
