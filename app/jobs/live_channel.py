"""The live channel: a process that watches jobs hears of each change as it happens.

Every API process has one channel of its own, and one subscription, however many requests wait. A
job's record names the channels of those who watch it; the script that changes the job sends them
its record. What nobody watches costs nothing.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast
from uuid import uuid4

import redis.asyncio
from redis.exceptions import RedisError

from app.core import keys
from app.core.config import Settings
from app.core.errors import ServiceError
from app.jobs.job import Job
from app.jobs.live_batches import LiveBatches
from app.jobs.redis_guard import RedisGuard
from app.jobs.script import Rules, render_script

logger = logging.getLogger(__name__)

Text = TypeVar("Text", str, bytes)

# A script holds Redis up, and each of these costs it some 10 µs.
_LARGEST_GROUP = 128

# Silence after which the connection is tried, and after which it counts as dead.
_SILENCE_SECONDS = 5.0
_RETRY_SECONDS = 1.0


Follower = Callable[[Job | None], None]
"""Is told a job's record after each change, and ``None`` once there is no such job any more."""


class LiveChannel:
    """One per API process."""

    def __init__(
        self, client: "redis.asyncio.Redis", settings: Settings, guard: RedisGuard
    ) -> None:
        self.name = uuid4().hex
        self._redis = client
        self._guard = guard
        self._script = client.register_script(render_script("watch", Rules.from_settings(settings)))
        self._watch = guard.group(self._watch_group, _LARGEST_GROUP)
        self._waiting: dict[str, set[asyncio.Future[Job | None]]] = {}
        self._followers: dict[str, Follower] = {}
        self.batches = LiveBatches(client, settings, guard, self.name)

    def follow(self, job_id: str, follower: Follower) -> None:
        """Tell ``follower`` of each change, as soon as :meth:`look` has been called for the job."""
        self._followers[job_id] = follower

    def unfollow(self, job_id: str) -> None:
        """Tell the job's follower nothing more."""
        self._followers.pop(job_id, None)

    async def look(self, job_id: str) -> Job | None:
        """The record of a job that is followed, ``None`` if there is no such job."""
        return await self._watch(job_id)

    def give_up(self) -> None:
        """Let all who wait for an end have the job as it is: the server stops."""
        for ends in self._waiting.values():
            for end in ends:
                _give_up(end)

    async def wait_for_end(self, job_id: str, seconds: float) -> Job | None:
        """A job's record once it has ended, or as it is after so many seconds.

        ``None`` if there is no such job.
        """
        with self.expect_end(job_id) as end:
            job = await self._watch(job_id)
            if job is None or job.has_ended():
                return job
            try:
                return await self.wait(end, job_id, seconds)
            except asyncio.CancelledError:
                # The server stops and ends what it waits for.
                return job

    async def wait(
        self, end: "asyncio.Future[Job | None]", job_id: str, seconds: float
    ) -> Job | None:
        """The record of a job that is watched already: once it has ended, or after the time.

        ``None`` if there is no such job any more.
        """
        alarm = asyncio.get_running_loop().call_later(seconds, _give_up, end)
        try:
            # The channel may have been cut when the job ended.
            return await end or await self._watch(job_id)
        finally:
            alarm.cancel()

    @contextmanager
    def expect_end(self, job_id: str) -> Iterator["asyncio.Future[Job | None]"]:
        """Before a job is watched: what will hold its record once it has ended."""
        end: asyncio.Future[Job | None] = asyncio.get_running_loop().create_future()
        futures = self._waiting.setdefault(job_id, set())
        futures.add(end)
        try:
            yield end
        finally:
            futures.discard(end)
            if not futures:
                self._waiting.pop(job_id, None)

    async def run(self) -> None:
        """Listen until cancelled; while Redis is away, try once a second."""
        while True:
            try:
                async with self._redis.pubsub(push_handler_func=_take) as channel:
                    await self._listen(channel)
            except (RedisError, OSError, ServiceError) as error:
                # The guard says so in the log: whoever waits asks Redis first.
                logger.debug("the live channel is cut: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _listen(self, channel: "redis.asyncio.client.PubSub") -> None:
        await channel.subscribe(keys.LIVE + self.name)
        is_tried = False
        while True:
            message = await channel.get_message(timeout=_SILENCE_SECONDS)
            if message is None:
                if is_tried:
                    raise TimeoutError("no answer")
                await channel.ping()
            elif message["type"] == "subscribe":
                # The first time or again: what was said before was not heard.
                await self._look_again()
            elif message["type"] == "message":
                self._hear(message["data"])
            is_tried = message is None

    def _hear(self, message: bytes) -> None:
        for job_id, words in json.loads(message):
            if job_id in self._waiting or job_id in self._followers:
                self._tell(job_id, Job.from_fields(job_id, _pair(words)) if words else None)
            else:
                self.batches.hear(job_id, words)

    def _tell(self, job_id: str, job: Job | None) -> None:
        if job_id in self._followers:
            self._followers[job_id](job)
        if job is None or job.has_ended():
            for end in self._waiting.get(job_id, ()):
                if not end.done():
                    end.set_result(job)

    async def _look_again(self) -> None:
        await self.batches.look_again()
        job_ids = list({*self._waiting, *self._followers})
        for start in range(0, len(job_ids), _LARGEST_GROUP):
            group = job_ids[start : start + _LARGEST_GROUP]
            for job_id, job in zip(group, await self._watch_group(group), strict=True):
                # One that is being submitted has no record yet; such a one nobody follows.
                if job is not None or job_id in self._followers:
                    self._tell(job_id, job)

    async def _watch_group(self, job_ids: list[str]) -> list[Job | None]:
        # A follower wants each change, and needs to be there before the script runs.
        words: list[str | int] = [self.name]
        for job_id in job_ids:
            words += (job_id, int(job_id in self._followers))
        records = await self._guard.call(lambda: cast(Awaitable[Any], self._script(args=words)))
        return [
            Job.from_record(job_id, _pair(words)) if words else None
            for job_id, words in zip(job_ids, records, strict=True)
        ]


async def _take(push: Any) -> Any:
    """A message as it came: redis-py's own handler prints each for a log that nobody keeps."""
    return push


def _pair(words: Sequence[Text]) -> dict[Text, Text]:
    """Fields and values in turn, as scripts give records."""
    return dict(zip(words[::2], words[1::2], strict=True))


def _give_up(end: "asyncio.Future[Job | None]") -> None:
    if not end.done():
        end.set_result(None)
