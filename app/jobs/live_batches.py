"""Following batches: their part of the live channel."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import redis.asyncio

from app.core.config import Settings
from app.jobs.batch import Batch
from app.jobs.redis_guard import RedisGuard
from app.jobs.script import Rules, render_script

BatchFollower = Callable[[Batch | None], None]
"""Is told a batch's record after each change, and ``None`` once there is no such batch any more."""

# In one script, which holds Redis up.
_LARGEST_GROUP = 128


class LiveBatches:
    """One per API process; ``channel`` is the name of its live channel."""

    def __init__(
        self, client: "redis.asyncio.Redis", settings: Settings, guard: RedisGuard, channel: str
    ) -> None:
        self._guard = guard
        self._channel = channel
        rules = Rules.from_settings(settings)
        self._script = client.register_script(render_script("watch_batch", rules))
        self._followers: dict[str, BatchFollower] = {}

    def follow(self, batch_id: str, follower: BatchFollower) -> None:
        """Tell ``follower`` of each change, as soon as :meth:`look` was called for the batch."""
        self._followers[batch_id] = follower

    def unfollow(self, batch_id: str) -> None:
        """Tell the batch's follower nothing more."""
        self._followers.pop(batch_id, None)

    async def look(self, batch_id: str) -> Batch | None:
        """The record of a batch that is followed, ``None`` if there is no such batch."""
        (words,) = await self._watch([batch_id])
        texts = [word.decode() for word in words]
        return _read(batch_id, texts) if texts else None

    def hear(self, batch_id: str, words: Sequence[str]) -> None:
        """What a script has said on the live channel; nothing where nobody follows."""
        follower = self._followers.get(batch_id)
        if follower is not None:
            follower(_read(batch_id, words) if words else None)

    async def look_again(self) -> None:
        """The channel was cut: see what has become of all that are followed."""
        batch_ids = list(self._followers)
        for start in range(0, len(batch_ids), _LARGEST_GROUP):
            group = batch_ids[start : start + _LARGEST_GROUP]
            for batch_id, words in zip(group, await self._watch(group), strict=True):
                self.hear(batch_id, [word.decode() for word in words])

    async def _watch(self, batch_ids: list[str]) -> list[list[bytes]]:
        words = [self._channel, *batch_ids]
        records = await self._guard.call(lambda: cast(Awaitable[Any], self._script(args=words)))
        return cast(list[list[bytes]], records)


def _read(batch_id: str, words: Sequence[str]) -> Batch:
    return Batch.from_fields(batch_id, dict(zip(words[::2], words[1::2], strict=True)))
