"""The log of deliveries: what was sent where, what came of it, and sending it again."""

from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import redis.asyncio

from app.core import keys
from app.core.config import Settings
from app.core.webhook_errors import DeliveryNotFoundError, WebhookDisabledError
from app.jobs.redis_guard import RedisGuard
from app.webhooks.script import Rules, render_script
from app.webhooks.webhook import Delivery


class DeliveryPage(NamedTuple):
    """Some deliveries, and the number before which the next ones lie, ``None`` at the end."""

    deliveries: list[Delivery]
    next_number: int | None


class _Entry(NamedTuple):
    """A delivery in its webhook's log."""

    number: int
    delivery_id: str
    webhook_id: str


class DeliveryLog:
    """One per API process. Raises what :class:`RedisGuard` raises while Redis is away."""

    def __init__(
        self, client: "redis.asyncio.Redis", settings: Settings, guard: RedisGuard
    ) -> None:
        self._redis = client
        self._guard = guard
        script = render_script("replay", Rules.from_settings(settings))
        self._replay = client.register_script(script)

    async def list_newest(
        self, webhook_ids: Sequence[str], limit: int, before: int | None = None
    ) -> DeliveryPage:
        """The latest deliveries of these webhooks, or those ``before`` a number."""
        while True:
            entries = await self._list_entries(webhook_ids, limit + 1, before)
            page = entries[:limit]
            deliveries = await self._read([entry.delivery_id for entry in page])
            if len(deliveries) == len(page):
                break
            # Ended ones expire, and nobody else notices while nothing new comes.
            kept = {delivery.id for delivery in deliveries}
            await self._forget([entry for entry in page if entry.delivery_id not in kept])
        return DeliveryPage(deliveries, page[-1].number if len(entries) > limit else None)

    async def _list_entries(
        self, webhook_ids: Sequence[str], count: int, before: int | None
    ) -> list[_Entry]:
        newest = "+inf" if before is None else f"({before}"
        pipeline = self._redis.pipeline(transaction=False)
        for webhook_id in webhook_ids:
            pipeline.zrevrangebyscore(
                keys.WEBHOOK_LOG + webhook_id, newest, "-inf", 0, count, withscores=True
            )
        logs = await self._run(pipeline)
        entries = [
            _Entry(int(number), name.decode(), webhook_id)
            for webhook_id, log in zip(webhook_ids, logs, strict=True)
            for name, number in log
        ]
        return sorted(entries, reverse=True)[:count]

    async def _forget(self, entries: Sequence[_Entry]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for entry in entries:
            pipeline.zrem(keys.WEBHOOK_LOG + entry.webhook_id, entry.delivery_id)
        await self._run(pipeline)

    async def get(self, owner: str, delivery_id: str) -> Delivery:
        """One delivery. Raises :class:`DeliveryNotFoundError`."""
        found = await self._read([delivery_id])
        if not found or found[0].owner != owner:
            raise DeliveryNotFoundError()
        return found[0]

    async def replay(self, owner: str, delivery_id: str) -> None:
        """Send a delivery again, with all its retries.

        Raises :class:`DeliveryNotFoundError` and :class:`WebhookDisabledError`.
        """
        verdict = await self._guard.call(partial(self._replay, args=[delivery_id, owner]))
        if verdict < 0:
            raise WebhookDisabledError()
        if not verdict:
            raise DeliveryNotFoundError()

    async def _read(self, delivery_ids: Sequence[str]) -> list[Delivery]:
        pipeline = self._redis.pipeline(transaction=False)
        for delivery_id in delivery_ids:
            pipeline.hgetall(keys.DELIVERY + delivery_id)
        # Old ones have expired.
        return [
            Delivery.from_record(delivery_id, record)
            for delivery_id, record in zip(delivery_ids, await self._run(pipeline), strict=True)
            if record
        ]

    async def _run(self, pipeline: Any) -> Any:
        return await self._guard.call(lambda: cast(Awaitable[Any], pipeline.execute()))
