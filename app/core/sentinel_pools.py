"""Connections to the master that Redis Sentinel names, now and after every failover."""

import re
from typing import Any

from redis import sentinel
from redis.asyncio import sentinel as async_sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.core.redis_connections import ResetAware
from app.core.sentinel_url import SentinelUrl

# How redis-py names a sentinel in an error: with every option of its client, a thousand characters.
_WORDY_SENTINEL = re.compile(r"<redis\..*?\bhost=([^,]*),port=(\d+).*?\)>\)>\)>")


def _shorten(error: Exception) -> sentinel.MasterNotFoundError:
    """The same error with each sentinel's host and port for its name."""
    return sentinel.MasterNotFoundError(_WORDY_SENTINEL.sub(r"\1:\2", str(error)))


class _Sentinels(sentinel.Sentinel):
    """Knows the master, or says in one line of bearable length why not."""

    def discover_master(self, service_name: str) -> tuple[str, int]:
        try:
            address: tuple[str, int] = super().discover_master(  # type: ignore[no-untyped-call]
                service_name
            )
        except sentinel.MasterNotFoundError as error:
            raise _shorten(error) from None
        return address


class _AsyncSentinels(async_sentinel.Sentinel):
    """The same for an event loop."""

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        try:
            address: tuple[str, int] = await super().discover_master(service_name)
        except async_sentinel.MasterNotFoundError as error:
            raise _shorten(error) from None
        return address


class _MasterConnection(sentinel.SentinelManagedConnection):
    """Asks who the master is before every way to connect.

    redis-py (issue 3874) sends what it retries to the address that it knew, which may be a replica
    by now: a write would be refused, a read would be answered, and from then on always from there.
    """

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        if not self.is_connected:
            self.connect()  # type: ignore[no-untyped-call]
        super().send_packed_command(command, check_health)  # type: ignore[no-untyped-call]


class _AsyncMasterConnection(ResetAware, async_sentinel.SentinelManagedConnection):
    """The same for an event loop."""

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        if not self.is_connected:
            await self.connect()  # type: ignore[no-untyped-call]
        await super().send_packed_command(command, check_health)


class _MasterPool(sentinel.SentinelConnectionPool):
    """Connections to the master that are closed together with those to the sentinels."""

    def close(self) -> None:
        super().close()
        self.sentinel_manager.close()


class _AsyncMasterPool(async_sentinel.SentinelConnectionPool):
    """The same for an event loop."""

    async def aclose(self) -> None:
        await super().aclose()
        await self.sentinel_manager.aclose()


def create_master_pool(
    url: SentinelUrl, retry: Retry, options: dict[str, Any]
) -> sentinel.SentinelConnectionPool:
    """A pool for blocking callers. ``options`` bound the waits, for Redis and the sentinels."""
    sentinels = _Sentinels(  # type: ignore[no-untyped-call]
        url.sentinels, sentinel_kwargs=sentinel_options(url, options)
    )
    return _MasterPool(  # type: ignore[no-untyped-call]
        url.master_name,
        sentinels,
        connection_class=_MasterConnection,
        retry=retry,
        **_master_options(url, options),
    )


def create_async_master_pool(
    url: SentinelUrl, retry: AsyncRetry, options: dict[str, Any]
) -> async_sentinel.SentinelConnectionPool:
    """The same for an event loop."""
    asking = options | {"password": url.sentinel_password}
    sentinels = _AsyncSentinels(  # type: ignore[no-untyped-call]
        url.sentinels, sentinel_kwargs=asking | {"retry": AsyncRetry(NoBackoff(), retries=0)}
    )
    return _AsyncMasterPool(  # type: ignore[no-untyped-call]
        url.master_name,
        sentinels,
        connection_class=_AsyncMasterConnection,
        retry=retry,
        **_master_options(url, options),
    )


def sentinel_options(url: SentinelUrl, options: dict[str, Any]) -> dict[str, Any]:
    """For blocking connections to the sentinels.

    They are not retried, where redis-py would do so ten times: the next sentinel is the retry.
    """
    retry = Retry(NoBackoff(), retries=0)
    return options | {"password": url.sentinel_password, "retry": retry}


def _master_options(url: SentinelUrl, options: dict[str, Any]) -> dict[str, Any]:
    return options | {"username": url.username, "password": url.password, "db": url.db}
