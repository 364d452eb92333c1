"""The sender's half of the deliveries' records. Every method is one atomic script."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import redis.asyncio

from app.core import keys
from app.core.config import Settings
from app.webhooks.script import Rules, render_script

# Redis runs nothing else meanwhile: a few milliseconds if all of these are ends.
PLAN_SIZE = 200

# A wait for the history is done again after this, so that a dead connection is noticed.
WAIT_SECONDS = 5.0

_CLAIM_WORDS = 11


@dataclass(frozen=True, slots=True)
class Plan:
    """What the history held: see ``scripts/plan.lua``."""

    registered: int
    read: int
    cursor: str
    made: int
    is_told: bool
    """Whether the senders were told to look, because something can be sent at once."""
    dropped: int
    lost_since_ms: int | None

    @property
    def is_behind(self) -> bool:
        """Whether the history may hold more."""
        return self.read == PLAN_SIZE

    @property
    def is_all_held_up(self) -> bool:
        """Whether deliveries were made and none of them can be sent yet."""
        return self.made > 0 and not self.is_told


@dataclass(frozen=True, slots=True)
class DeliveryClaim:
    """A delivery that is this sender's to attempt, until its lease runs out."""

    delivery_id: str
    webhook_id: str
    attempt: int
    """The fencing token: a report takes effect only while it is current."""
    failed_before: int
    """Attempts that failed since it was made or replayed."""
    url: str
    secrets: tuple[str, ...]
    type: str
    time_ms: int
    subject_id: str
    """The job or the batch that has ended."""
    counts: str
    """How a batch's jobs ended, as a JSON object; empty for a job."""


class Due(NamedTuple):
    """What a look for due deliveries brought.

    ``pause_seconds``: until something else is due, ``None`` if nothing is. ``is_limited``: more was
    due than the sender may take at once.
    """

    pause_seconds: float | None
    is_limited: bool
    claims: list[DeliveryClaim]


class Verdict(StrEnum):
    """What follows from an attempt."""

    DELIVERED = "delivered"
    RETRY = "retry"
    FAILED = "failed"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class AttemptReport:
    """An attempt that was made. ``delay_seconds`` until the next one, ``silence_seconds`` in which
    the receiver wants nothing at all."""

    claim: DeliveryClaim
    verdict: Verdict
    started_ms: int
    duration_ms: int
    status_code: int | None
    error: str | None
    delay_seconds: float = 0
    silence_seconds: float = 0

    def words(self) -> list[str | int]:
        """As ``scripts/finish.lua`` takes it."""
        note = {
            "attempt": self.claim.attempt,
            "started_ms": self.started_ms,
            "duration_ms": self.duration_ms,
            "status_code": self.status_code,
            "error": self.error,
        }
        return [
            self.claim.delivery_id,
            self.claim.webhook_id,
            self.claim.attempt,
            self.verdict,
            json.dumps(note),
            int(self.delay_seconds * 1000),
            int(self.silence_seconds * 1000),
        ]


class SenderLedger:
    """One per sender. ``waiting_client`` allows answers :data:`WAIT_SECONDS` more time."""

    def __init__(
        self,
        client: "redis.asyncio.Redis",
        waiting_client: "redis.asyncio.Redis",
        settings: Settings,
    ) -> None:
        rules = Rules.from_settings(settings)
        self._waiting_client = waiting_client
        self._plan = client.register_script(render_script("plan", rules))
        self._claim = client.register_script(render_script("claim", rules))
        self._finish = client.register_script(render_script("finish", rules))

    async def wait_for_history(self, cursor: str) -> None:
        """Return when the history goes on behind ``cursor``, or after :data:`WAIT_SECONDS`."""
        await self._waiting_client.xread(
            {keys.HISTORY: cursor}, count=1, block=int(WAIT_SECONDS * 1000)
        )

    async def plan(self) -> Plan:
        """Make deliveries of the next ends in the history."""
        answer = await self._run(self._plan, [PLAN_SIZE])
        registered, read, cursor, made, is_told, dropped, *lost = answer
        return Plan(
            registered, read, cursor.decode(), made, bool(is_told), dropped, *lost or [None]
        )

    async def claim(self, free: int, most_of_one: int, busy: Mapping[str, int]) -> Due:
        """Take deliveries that are due: ``free`` at most, and of one webhook ``most_of_one`` less
        those that are ``busy`` already."""
        pairs = [word for pair in busy.items() for word in pair]
        pause_ms, is_limited, words = await self._run(self._claim, [free, most_of_one, *pairs])
        claims = [
            _read_claim([word.decode() if isinstance(word, bytes) else word for word in item])
            for item in zip(*[iter(words)] * _CLAIM_WORDS, strict=True)
        ]
        return Due(None if pause_ms < 0 else pause_ms / 1000, bool(is_limited), claims)

    async def finish(self, reports: Sequence[AttemptReport]) -> None:
        """Report what came of attempts."""
        await self._run(self._finish, [word for report in reports for word in report.words()])

    async def _run(self, script: Any, words: Sequence[str | int]) -> Any:
        return await script(args=words)


def _read_claim(words: Sequence[Any]) -> DeliveryClaim:
    delivery_id, webhook_id, attempt, tries, url, secret, former, *event = words
    kind, time_ms, subject_id, counts = event
    now_ms = time.time() * 1000
    valid = (pair.partition(":") for pair in former.split())
    return DeliveryClaim(
        delivery_id=delivery_id,
        webhook_id=webhook_id,
        attempt=int(attempt),
        failed_before=int(tries),
        url=url,
        secrets=(secret, *(text for text, _, until_ms in valid if int(until_ms) > now_ms)),
        type=kind,
        time_ms=int(time_ms),
        subject_id=subject_id,
        counts=counts,
    )
