"""Connections to Redis, with every wait bounded and every retry chosen.

Pools built by hand get no retries from redis-py and ``Redis(...)`` gets ten; here it is one, at
once: enough for a connection that Redis closed while it was idle, and what is still broken after
that is reported rather than waited for. All scripts may be retried: sent twice, they leave the
ledger as they would sent once.
"""

import logging
from typing import Any
from urllib.parse import quote, urlencode

import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from app.core.config import RedisSettings
from app.core.redis_connections import create_pool
from app.core.sentinel_pools import (
    create_async_master_pool,
    create_master_pool,
    sentinel_options,
)
from app.core.sentinel_url import find_sentinel_url

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
    retry = Retry(NoBackoff(), retries=1)
    url = find_sentinel_url(settings.url)
    if url is None:
        return redis.Redis.from_url(settings.url, retry=retry, **_options(settings))
    return redis.Redis.from_pool(create_master_pool(url, retry, _options(settings)))


def create_async_client(settings: RedisSettings) -> "redis.asyncio.Redis":
    """Open a pool for one event loop.

    It has no bound: those who use it share their round trips, so a handful of connections is made.
    """
    retry = AsyncRetry(NoBackoff(), retries=1)
    url = find_sentinel_url(settings.url)
    if url is None:
        pool = create_pool(settings.url, retry=retry, **_options(settings))
        return redis.asyncio.Redis.from_pool(pool)
    return redis.asyncio.Redis.from_pool(create_async_master_pool(url, retry, _options(settings)))


def broker_url(settings: RedisSettings) -> str:
    """The same Redis in kombu's spelling.

    Its Unix sockets are ``redis+socket://``, each sentinel is a URL of its own, and a database or
    a password in the query, which redis-py takes, make kombu fail or are overlooked.
    """
    url = find_sentinel_url(settings.url)
    if url is not None:
        login = _render_login(url.username, url.password)
        hosts = [f"{_render_host(host)}:{port}" for host, port in url.sentinels]
        return ";".join(f"sentinel://{login}{host}/{url.db}" for host in hosts)
    parts = parse_url(settings.url)  # type: ignore[no-untyped-call]
    login = _render_login(parts.get("username"), parts.get("password"))
    db = parts.get("db", 0)
    if settings.url.startswith("unix://"):
        return f"redis+socket://{login}{quote(parts['path'])}?virtual_host={db}"
    host = f"{_render_host(parts.get('host', 'localhost'))}:{parts.get('port', 6379)}"
    if settings.url.startswith("redis://"):
        return f"redis://{login}{host}/{db}"
    # redis-py checks the server's certificate unless told otherwise; kombu does not.
    tls = {"ssl_cert_reqs": "required"}
    tls |= {name: str(value) for name, value in parts.items() if name.startswith("ssl_")}
    return f"rediss://{login}{host}/{db}?{urlencode(tls)}"


def broker_transport_options(settings: RedisSettings) -> dict[str, Any]:
    """What kombu can't read from the URL: nothing, unless Sentinel chooses the master."""
    url = find_sentinel_url(settings.url)
    if url is None:
        return {}
    return {
        "master_name": url.master_name,
        "sentinel_kwargs": sentinel_options(url, _options(settings)),
    }


def _render_login(username: str | None, password: str | None) -> str:
    if not (username or password):
        return ""
    return f"{quote(username or '', safe='')}:{quote(password or '', safe='')}@"


def _render_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def find_policy_warning(memory: dict[str, Any]) -> str | None:
    """What is wrong with the eviction policy in an ``INFO memory`` answer, or ``None``."""
    policy = memory.get("maxmemory_policy", SAFE_EVICTION_POLICY)
    if policy == SAFE_EVICTION_POLICY:
        return None
    return (
        f"Redis may delete queued jobs: maxmemory-policy is {policy}, "
        f"set it to {SAFE_EVICTION_POLICY}"
    )
