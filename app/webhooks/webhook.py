"""What a webhook and a delivery are: their records in Redis."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self


class EventType(StrEnum):
    """What a webhook can tell of."""

    JOB_COMPLETED = "job.completed"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    BATCH_COMPLETED = "batch.completed"
    BATCH_CANCELLED = "batch.cancelled"


class DeliveryState(StrEnum):
    """Where a delivery is. A replay makes an ended one pending again."""

    PENDING = "pending"
    """Its next attempt is due, or will be."""
    DELIVERED = "delivered"
    """The receiver has answered 2xx."""
    FAILED = "failed"
    """Given up: too many attempts, or the webhook is disabled."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where an owner's events go. Without its secrets: only the sender needs those."""

    id: str
    owner: str
    url: str
    events: tuple[EventType, ...]
    created_ms: int
    is_enabled: bool
    dropped: int
    """Events that it missed because too many waited already."""

    FIELDS = ("owner", "url", "events", "created", "enabled", "dropped")

    @classmethod
    def from_fields(cls, webhook_id: str, values: list[bytes | None]) -> Self:
        """Read the values of :attr:`FIELDS`."""
        owner, url, events, created, enabled, dropped = (
            value.decode() if value else "" for value in values
        )
        return cls(
            id=webhook_id,
            owner=owner,
            url=url,
            events=tuple(map(EventType, events.split())),
            created_ms=int(created),
            is_enabled=enabled == "1",
            dropped=int(dropped or 0),
        )


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one webhook. Times are Redis milliseconds; 0 where not reached."""

    id: str
    owner: str
    webhook_id: str
    job_id: str
    """What has ended; empty if that was a batch."""
    batch_id: str
    """The same the other way round."""
    type: EventType
    state: DeliveryState
    reason: str
    created_ms: int
    ended_ms: int
    due_ms: int
    trail: list[dict[str, Any]]
    """Attempts: ``attempt``, ``started_ms``, ``duration_ms``, ``status_code``, ``error``."""

    @classmethod
    def from_record(cls, delivery_id: str, record: Mapping[bytes, bytes]) -> Self:
        """Read the hash that the scripts write, as ``HGETALL`` gives it."""
        fields = {name.decode(): value.decode() for name, value in record.items()}
        return cls(
            id=delivery_id,
            owner=fields["owner"],
            webhook_id=fields["webhook"],
            job_id=fields.get("job", ""),
            batch_id=fields.get("batch", ""),
            type=EventType(fields["type"]),
            state=DeliveryState(fields["state"]),
            reason=fields.get("reason", ""),
            created_ms=int(fields["created"]),
            ended_ms=int(fields.get("ended", 0)),
            due_ms=int(fields.get("due", 0)),
            trail=json.loads(fields.get("trail", "[]")),
        )
