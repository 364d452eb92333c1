"""The sender: makes deliveries of what ends, and attempts each when it is due.

Nothing here asks again and again. It waits for the history to go on, for the bell that other
processes ring, and for the moment at which the next delivery is due.
"""

import asyncio
import contextlib
import logging
from collections import Counter

import redis.asyncio
from redis.exceptions import RedisError

from app.core import keys
from app.core.clock import format_milliseconds
from app.jobs.grouped_calls import GroupedCall
from app.webhooks.sending.courier import Courier
from app.webhooks.sending.ledger import AttemptReport, DeliveryClaim, Plan, SenderLedger, Verdict

logger = logging.getLogger(__name__)

# Requests under way, in all and to one receiver: one that is slow keeps its own places busy, and it
# takes 32 such receivers to keep all.
MOST_AT_ONCE = 256
MOST_OF_ONE = 8

# A job makes three entries within milliseconds: after a plan so long is waited, and all that came
# meanwhile is one plan.
_PLAN_GAP_SECONDS = 0.01
# Where only receivers that fail or are behind are concerned, nobody waits for the plan.
_LONG_PLAN_GAP_SECONDS = 0.2

_RETRY_SECONDS = 1.0
_SILENCE_SECONDS = 5.0  # after which the bell's connection is tried, and then counts as dead
_GRACE_SECONDS = 5.0  # for attempts under way; the rest is attempted again when its lease runs out
_LARGEST_REPORT = 100
_CANCEL_SECONDS = 0.1


class WebhookSender:
    """One per process; several processes may send at the same time."""

    def __init__(
        self, client: "redis.asyncio.Redis", ledger: SenderLedger, courier: Courier
    ) -> None:
        self._redis = client
        self._ledger = ledger
        self._courier = courier
        self._finish = GroupedCall(self._finish_group, _LARGEST_REPORT)
        self._registered = asyncio.Event()
        self._due = asyncio.Event()
        self._busy: Counter[str] = Counter()
        self._attempts: set[asyncio.Task[None]] = set()
        self._is_limited = False
        self._is_away = False

    async def run(self) -> None:
        """Send until cancelled; then wait a little for what is under way."""
        parts = [asyncio.create_task(part()) for part in (self._listen, self._plan, self._dispatch)]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_EXCEPTION)
            for part in done:
                part.result()
        finally:
            await _cancel(parts)
            if self._attempts:
                await asyncio.wait(self._attempts, timeout=_GRACE_SECONDS)
            for attempt in self._attempts:
                attempt.cancel()

    # --- The bell -------------------------------------------------------------------------------

    async def _listen(self) -> None:
        while True:
            try:
                async with self._redis.pubsub() as channel:
                    await channel.subscribe(keys.WEBHOOK_BELL)
                    await self._hear(channel)
            except (RedisError, OSError) as error:
                await self._wait_for_redis(error)

    async def _hear(self, channel: "redis.asyncio.client.PubSub") -> None:
        is_tried = False
        while True:
            message = await channel.get_message(timeout=_SILENCE_SECONDS)
            if message is None:
                if is_tried:
                    raise TimeoutError("no answer")
                await channel.ping()
            elif message["type"] in ("subscribe", "message"):
                # With the subscription, too: who rang before it was not heard.
                self._registered.set()
                self._due.set()
            is_tried = message is None

    # --- Planning -------------------------------------------------------------------------------

    async def _plan(self) -> None:
        while True:
            self._registered.clear()
            try:
                plan = await self._ledger.plan()
                self._note(plan)
                if not plan.registered:
                    await self._registered.wait()
                elif not plan.read:
                    await self._ledger.wait_for_history(plan.cursor)
                elif not plan.is_behind:
                    await asyncio.sleep(
                        _LONG_PLAN_GAP_SECONDS if plan.is_all_held_up else _PLAN_GAP_SECONDS
                    )
            except (RedisError, OSError) as error:
                await self._wait_for_redis(error)

    def _note(self, plan: Plan) -> None:
        if self._is_away:
            logger.warning("Redis can be used again")
            self._is_away = False
        if plan.lost_since_ms is not None:
            since = format_milliseconds(plan.lost_since_ms)
            logger.error("events were lost: the history no longer reaches back to %s", since)
        if plan.dropped:
            logger.warning("%d events dropped: too many wait for their webhook", plan.dropped)

    async def _wait_for_redis(self, error: Exception) -> None:
        if not self._is_away:
            logger.warning("Redis can't be used, deliveries wait until it can: %s", error)
            self._is_away = True
        await asyncio.sleep(_RETRY_SECONDS)

    # --- Sending --------------------------------------------------------------------------------

    async def _dispatch(self) -> None:
        while True:
            self._due.clear()
            try:
                pause_seconds = await self._start_attempts()
            except (RedisError, OSError) as error:
                await self._wait_for_redis(error)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_seconds):
                    await self._due.wait()

    async def _start_attempts(self) -> float | None:
        """Begin what is due; returns the seconds until more is, ``None`` if nothing waits."""
        # Places that become free while the script runs are not in its answer.
        self._is_limited = True
        free = MOST_AT_ONCE - len(self._attempts)
        due = await self._ledger.claim(free, MOST_OF_ONE, self._busy)
        self._is_limited = due.is_limited
        for claim in due.claims:
            self._busy[claim.webhook_id] += 1
            attempt = asyncio.create_task(self._attempt(claim))
            self._attempts.add(attempt)
            attempt.add_done_callback(self._attempts.discard)
        return due.pause_seconds

    async def _attempt(self, claim: DeliveryClaim) -> None:
        try:
            await self._finish(await self._courier.deliver(claim))
        except (RedisError, OSError) as error:
            # Its lease runs out, and it is sent again.
            logger.warning("can't report on delivery %s: %s", claim.delivery_id, error)
        finally:
            self._busy[claim.webhook_id] -= 1
            if not self._busy[claim.webhook_id]:
                del self._busy[claim.webhook_id]
            if self._is_limited:
                self._due.set()

    async def _finish_group(self, reports: list[AttemptReport]) -> list[None]:
        await self._ledger.finish(reports)
        for report in reports:
            if report.verdict is Verdict.GONE:
                logger.warning("webhook %s is gone and disabled", report.claim.webhook_id)
        return [None] * len(reports)


async def _cancel(tasks: "list[asyncio.Task[None]]") -> None:
    """Cancel until all have ended: redis-py sends within ``asyncio.wait_for``, which before Python
    3.12 loses a cancellation that comes just when it is done."""
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=_CANCEL_SECONDS)
