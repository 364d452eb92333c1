"""Connections to Redis, with every wait bounded and every retry chosen.

Pools built by hand get no retries from redis-py and ``Redis(...)`` gets ten; here it is one, at
once: enough for a connection that Redis closed while it was idle, and what is still broken after
that is reported rather than waited for. All scripts may be retried: each is idempotent.
"""

import logging
from typing import Any

import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.core.config import RedisSettings

logger = logging.getLogger(__name__)

# The only policy under which Redis refuses writes instead of deleting queued jobs.
SAFE_EVICTION_POLICY = "noeviction"


def _options(settings: RedisSettings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "socket_timeout": settings.timeout_seconds,
        "socket_connect_timeout": settings.timeout_seconds,
        "health_check_interval": 15,
    }
    if not settings.url.startswith("unix://"):
        options["socket_keepalive"] = True
    return options


def create_client(settings: RedisSettings) -> "redis.Redis":
    """Open a pool for blocking callers: workers, tools. The caller closes it."""
    return redis.Redis.from_url(
        settings.url, retry=Retry(NoBackoff(), retries=1), **_options(settings)
    )


def create_async_client(settings: RedisSettings) -> "redis.asyncio.Redis":
    """Open a pool for one event loop.

    It has no bound: those who use it share their round trips, so a handful of connections is made.
    """
    pool = redis.asyncio.ConnectionPool.from_url(
        settings.url,
        retry=AsyncRetry(NoBackoff(), retries=1),
        **_options(settings),
    )
    return redis.asyncio.Redis.from_pool(pool)


def broker_url(settings: RedisSettings) -> str:
    """The same Redis in kombu's spelling, whose Unix sockets are ``redis+socket://``."""
    if settings.url.startswith("unix://"):
        return "redis+socket://" + settings.url.removeprefix("unix://")
    return settings.url


def find_policy_warning(memory: dict[str, Any]) -> str | None:
    """What is wrong with the eviction policy in an ``INFO memory`` answer, or ``None``."""
    policy = memory.get("maxmemory_policy", SAFE_EVICTION_POLICY)
    if policy == SAFE_EVICTION_POLICY:
        return None
    return (
        f"Redis may delete queued jobs: maxmemory-policy is {policy}, "
        f"set it to {SAFE_EVICTION_POLICY}"
    )
