"""The process of a sender: what it opens and closes."""

import asyncio
import contextlib
import logging
import signal

import uvloop

from app.core.config import Settings
from app.core.errors import ConfigurationError
from app.core.redis_client import create_async_client
from app.webhooks.addresses import AddressGuard
from app.webhooks.sending.connections import create_pool
from app.webhooks.sending.courier import Courier
from app.webhooks.sending.ledger import WAIT_SECONDS, SenderLedger
from app.webhooks.sending.names import NameLookup, Resolver
from app.webhooks.sending.sender import WebhookSender

logger = logging.getLogger(__name__)


async def send(settings: Settings, resolver: Resolver | None = None) -> None:
    """Send webhooks until cancelled. ``resolver``: who to ask for names, instead of the system.

    Raises :class:`ConfigurationError` without a history.
    """
    if not settings.queue.history_length:
        raise ConfigurationError(
            "webhooks are made from the history: QUEUE_HISTORY_LENGTH must not be 0"
        )
    webhook = settings.webhook
    patience = settings.redis.timeout_seconds + WAIT_SECONDS
    async with contextlib.AsyncExitStack() as stack:
        client = create_async_client(settings.redis)
        stack.push_async_callback(client.aclose)
        waiting_client = create_async_client(
            settings.redis.model_copy(update={"timeout_seconds": patience})
        )
        stack.push_async_callback(waiting_client.aclose)
        resolver = resolver or stack.enter_context(NameLookup())
        pool = await stack.enter_async_context(create_pool(AddressGuard(webhook), resolver))
        courier = Courier(pool, webhook.timeout_seconds, webhook.service_url)
        await WebhookSender(client, SenderLedger(client, waiting_client, settings), courier).run()


def run_until_signal(settings: Settings) -> None:
    """The same until INT or TERM."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        sending = asyncio.ensure_future(send(settings))
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, sending.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await sending

    logger.info("sending webhooks")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
