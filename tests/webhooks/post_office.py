"""A running API, a sender beside it, and a hand that does a worker's work."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from httpx2 import Client

from app.core import keys
from app.core.config import Settings
from app.jobs.job import Answer, Outcome
from app.jobs.ledger import RedisLedger
from app.webhooks.sending.names import Resolver
from app.webhooks.sending.process import send
from tests.api_client import submit
from tests.service import wait_until
from tests.test_dead_letters import PREDICTIONS

ANSWER = Answer("a-model", "1", "torch")
HOUR_MS = 3_600_000


class PostOffice:
    """What a user can do, and what time does."""

    def __init__(self, url: str, settings: Settings) -> None:
        self.client = Client(base_url=url)
        self.settings = settings
        # Any: redis-py's types allow each answer to be nearly everything.
        self.redis: Any = redis.Redis.from_url(settings.redis.url)
        self.ledger = RedisLedger(self.redis, settings)

    def register(self, url: str, *events: str) -> dict[str, Any]:
        """The new webhook's document, its secret included."""
        wish = {"url": url} | ({"events": list(events)} if events else {})
        answer = self.client.post("/webhooks", json=wish)
        assert answer.status_code == 201, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def submit(self) -> str:
        answer = submit(self.client)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    def complete(self) -> str:
        """A job that completes."""
        job_id = self.submit()
        (claim,) = self.ledger.claim("w", ANSWER).claims
        self.ledger.finish([Outcome.completed(claim, PREDICTIONS)])
        return job_id

    def fail(self) -> str:
        """A job that fails through its image."""
        job_id = self.submit()
        (claim,) = self.ledger.claim("w", ANSWER).claims
        self.ledger.finish([Outcome.failed(claim, "truncated-image", "Send the whole file.")])
        return job_id

    def deliveries(self, **query: Any) -> list[dict[str, Any]]:
        """The log, newest first."""
        answer = self.client.get("/webhooks/deliveries", params=query)
        assert answer.status_code == 200, answer.text
        documents: list[dict[str, Any]] = answer.json()["deliveries"]
        return documents

    def delivery(self, delivery_id: str) -> dict[str, Any]:
        document: dict[str, Any] = self.client.get(f"/webhooks/deliveries/{delivery_id}").json()
        return document

    def only_delivery(self) -> str:
        """The id of the one delivery, as soon as there is one."""
        wait_until(lambda: bool(self.deliveries()))
        (delivery,) = self.deliveries()
        return str(delivery["delivery_id"])

    def wait_for_attempts(self, delivery_id: str, count: int) -> dict[str, Any]:
        """The delivery once so many attempts are reported."""
        wait_until(lambda: len(self.delivery(delivery_id)["attempts"]) == count)
        return self.delivery(delivery_id)

    def wait_for_end(self, delivery_id: str) -> dict[str, Any]:
        """The delivery once nothing more will be tried."""
        wait_until(lambda: self.delivery(delivery_id)["status"] != "pending")
        return self.delivery(delivery_id)

    def reasons(self) -> list[str]:
        """What /health says of webhooks."""
        reasons = self.client.get("/health").json()["reasons"]
        return [reason for reason in reasons if "webhook" in reason]

    def senders(self) -> int:
        return int(self.redis.pubsub_numsub(keys.WEBHOOK_BELL)[0][1])

    def let_time_pass(self, milliseconds: int) -> None:
        """Redis's clock can't be set; what it is compared with can."""
        for key in self.redis.keys(keys.WEBHOOK_DUE + "*"):
            for name, score in self.redis.zrange(key, 0, -1, withscores=True):
                self.redis.zadd(key, {name: score - milliseconds})
        for name, score in self.redis.zrange(keys.WEBHOOKS_DUE, 0, -1, withscores=True):
            self.redis.zadd(keys.WEBHOOKS_DUE, {name: score - milliseconds})
        for name in self.redis.zrange(keys.WEBHOOKS, 0, -1):
            key = keys.WEBHOOK + name.decode()
            if paused := self.redis.hget(key, "paused"):
                self.redis.hset(key, "paused", int(paused) - milliseconds)
        self.redis.publish(keys.WEBHOOK_BELL, "")


@contextmanager
def run_sender(settings: Settings, resolver: Resolver | None = None) -> Iterator[None]:
    """A sender in a thread, stopped as TERM stops one."""
    loop = asyncio.new_event_loop()
    sending = loop.create_task(send(settings, resolver))

    def run() -> None:
        try:
            loop.run_until_complete(sending)
        except asyncio.CancelledError:
            pass
        finally:
            loop.close()

    with redis.Redis.from_url(settings.redis.url) as connection:
        before = _count_senders(connection)
        thread = threading.Thread(target=run)
        thread.start()
        wait_until(lambda: _count_senders(connection) > before or not thread.is_alive())
    try:
        assert thread.is_alive()
        yield
    finally:
        loop.call_soon_threadsafe(sending.cancel)
        thread.join(30)
        assert not thread.is_alive()


def _count_senders(connection: Any) -> int:
    return int(connection.pubsub_numsub(keys.WEBHOOK_BELL)[0][1])
