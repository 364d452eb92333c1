"""The webhooks of every owner: register, look at, delete, give a new secret."""

from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Any, cast
from uuid import uuid4

import redis.asyncio

from app.core import keys
from app.core.config import Settings
from app.core.webhook_errors import TooManyWebhooksError, WebhookNotFoundError, WebhooksClosedError
from app.jobs.redis_guard import RedisGuard
from app.webhooks.addresses import AddressGuard
from app.webhooks.script import Rules, render_script
from app.webhooks.signing import ROTATION_SECONDS, create_secret
from app.webhooks.webhook import EventType, Webhook


class WebhookRegistry:
    """One per API process. Raises what :class:`RedisGuard` raises while Redis is away."""

    def __init__(
        self, client: "redis.asyncio.Redis", settings: Settings, guard: RedisGuard
    ) -> None:
        rules = Rules.from_settings(settings)
        self._redis = client
        self._guard = guard
        self._addresses = AddressGuard(settings.webhook)
        self._has_history = rules.history_length > 0
        self._register = client.register_script(render_script("register", rules))
        self._remove = client.register_script(render_script("remove", rules))
        self._rotate = client.register_script(render_script("rotate", rules))

    def check(self) -> None:
        """Raises :class:`WebhooksClosedError` when nothing could ever be delivered."""
        if not self._has_history:
            raise WebhooksClosedError()

    async def create(
        self, owner: str, url: str, events: Sequence[EventType]
    ) -> tuple[Webhook, str]:
        """Register a webhook for what happens from now on; gives its secret, too.

        Raises :class:`InvalidRequestError`, :class:`WebhookAddressError`,
        :class:`WebhookPortError`, :class:`TooManyWebhooksError`.
        """
        self.check()
        url = self._addresses.read_url(url)
        webhook_id, secret = str(uuid4()), create_secret()
        words = [webhook_id, owner, url, " ".join(events), secret]
        created_ms = await self._run(self._register, words)
        if created_ms is None:
            raise TooManyWebhooksError()
        webhook = Webhook(webhook_id, owner, url, tuple(events), int(created_ms), True, 0)
        return webhook, secret

    async def list_all(self, owner: str) -> list[Webhook]:
        """An owner's webhooks, the oldest first."""
        ids = await self._guard.call(lambda: self._redis.zrange(keys.OWNER_WEBHOOKS + owner, 0, -1))
        return await self._read(owner, [webhook_id.decode() for webhook_id in cast(Any, ids)])

    async def get(self, owner: str, webhook_id: str) -> Webhook:
        """Return one of them. Raises :class:`WebhookNotFoundError`."""
        found = await self._read(owner, [webhook_id])
        if not found:
            raise WebhookNotFoundError()
        return found[0]

    async def delete(self, owner: str, webhook_id: str) -> None:
        """Forget a webhook and what waits for it. Raises :class:`WebhookNotFoundError`."""
        if not await self._run(self._remove, [webhook_id, owner]):
            raise WebhookNotFoundError()

    async def rotate_secret(self, owner: str, webhook_id: str) -> str:
        """Make a new secret; the old one signs too for :data:`ROTATION_SECONDS`.

        Raises :class:`WebhookNotFoundError`.
        """
        secret = create_secret()
        words: list[str | int] = [webhook_id, owner, secret, ROTATION_SECONDS * 1000]
        if not await self._run(self._rotate, words):
            raise WebhookNotFoundError()
        return secret

    async def _run(self, script: Any, words: Sequence[str | int]) -> Any:
        return await self._guard.call(partial(script, args=words))

    async def _read(self, owner: str, webhook_ids: Sequence[str]) -> list[Webhook]:
        pipeline = self._redis.pipeline(transaction=False)
        for webhook_id in webhook_ids:
            pipeline.hmget(keys.WEBHOOK + webhook_id, *Webhook.FIELDS)
        records = await self._guard.call(lambda: cast(Awaitable[Any], pipeline.execute()))
        # One may have been deleted in between; others belong to others.
        return [
            Webhook.from_fields(webhook_id, values)
            for webhook_id, values in zip(webhook_ids, records, strict=True)
            if values[0] == owner.encode()
        ]
