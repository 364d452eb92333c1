"""Idempotency keys: a request that is sent again is the same request.

While an upload arrives its key is only reserved, so that one sent at the same time is told to come
again. The script that accepts the job or batch binds the key to it in the same step: whatever dies
in between, there is never one without its key, nor a key without its job or batch.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import redis.asyncio

from app.core.config import Settings
from app.core.errors import ServiceError
from app.jobs.redis_guard import RedisGuard
from app.jobs.script import Rules, render_script

# For so long a key is blocked by a process that was killed while it took the upload; a slow upload
# renews it in time. The Python client asks again for twice as long.
_RESERVATION_SECONDS = 15
_RENEWAL_SECONDS = 5


# Before the fingerprint of a batch, which so is never that of a job.
_BATCH = "batch:"


@dataclass(frozen=True, slots=True)
class BoundKey:
    """What a key is bound to: the ``id`` of a job or a batch.

    ``fingerprint``: tells whether the same was sent; empty while the upload still arrives.
    """

    id: str
    fingerprint: str

    @property
    def is_batch(self) -> bool:
        """Whether a batch was accepted under it."""
        return self.fingerprint.startswith(_BATCH)


def create_batch_fingerprint(digest: str) -> str:
    """What binds a key to a batch; ``digest``: of all that makes two batches the same."""
    return _BATCH + digest


class IdempotencyKeys:
    """One per API process. Raises what :class:`RedisGuard` raises while Redis is away.

    Names of keys are those of :func:`app.core.keys.name_idempotency_key`.
    """

    def __init__(
        self, client: "redis.asyncio.Redis", settings: Settings, guard: RedisGuard
    ) -> None:
        rules = Rules.from_settings(settings)
        self._guard = guard
        self._reserve = client.register_script(render_script("reserve", rules))
        self._forgo = client.register_script(render_script("forgo", rules))

    async def reserve(self, name: str, own_id: str) -> BoundKey | None:
        """Take a key for a job or a batch; returns what it is bound to if another has it."""
        words: list[str | int] = [name, own_id, _RESERVATION_SECONDS * 1000]
        holder = await self._guard.call(lambda: cast(Any, self._reserve(args=words)))
        return BoundKey(*holder.decode().partition(" ")[::2]) if holder else None

    @asynccontextmanager
    async def keep(self, name: str, own_id: str) -> AsyncIterator[None]:
        """While an upload arrives: keep its key, and free it if the upload is not accepted."""
        renewal = asyncio.create_task(self._renew(name, own_id))
        try:
            yield
        except BaseException:
            renewal.cancel()
            with contextlib.suppress(ServiceError):
                await self._guard.call(lambda: cast(Any, self._forgo(args=[name, own_id])))
            raise
        finally:
            renewal.cancel()

    async def _renew(self, name: str, own_id: str) -> None:
        """Until the key is bound, which also ends it."""
        is_ours = True
        while is_ours:
            await asyncio.sleep(_RENEWAL_SECONDS)
            with contextlib.suppress(ServiceError):
                is_ours = await self.reserve(name, own_id) is None
