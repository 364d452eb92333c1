"""The payload store that the settings name."""

from pathlib import Path

import redis
import redis.asyncio

from app.core.config import Settings
from app.jobs.file_payloads import FilePayloads
from app.jobs.payloads import PayloadIntake, PayloadStore
from app.jobs.redis_guard import RedisGuard
from app.jobs.redis_payloads import RedisPayloadIntake, RedisPayloadStore


def payload_folder(settings: Settings) -> Path:
    """Where uploads wait with PAYLOAD_STORE=files."""
    return settings.data_dir / "payloads"


def create_payload_intake(
    settings: Settings, client: "redis.asyncio.Redis", guard: RedisGuard
) -> PayloadIntake:
    """The API's half of the store that PAYLOAD_STORE names."""
    if settings.payload.store == "redis":
        return RedisPayloadIntake(client, guard)
    return FilePayloads(
        payload_folder(settings),
        settings.payload.reserve_bytes,
        sync_first=settings.durability == "always",
    )


def create_payload_store(settings: Settings, client: "redis.Redis") -> PayloadStore:
    """The worker's half of the store that PAYLOAD_STORE names."""
    if settings.payload.store == "redis":
        return RedisPayloadStore(client)
    return FilePayloads(payload_folder(settings))
