"""The web application: what is opened, what wraps a request, which routes there are."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.routing import APIRoute
from redis.exceptions import RedisError
from starlette.middleware.exceptions import ExceptionMiddleware

from app.api import (
    batches,
    dead_letters,
    documentation,
    endpoints,
    health,
    job_list,
    jobs,
    problems,
    reference_pages,
    status_events,
    web_page,
    webhooks,
)
from app.api.answer_headers import AnswerHeaders
from app.api.batch_events import BatchSource
from app.api.bodies import BodyWatch
from app.api.compression import CompressionMiddleware
from app.api.cross_origin import CrossOriginGuard, allow_origins
from app.api.direct_route import DirectRoute
from app.api.event_feeds import EventFeeds
from app.api.forwarding import follow_proxies
from app.api.hosts import HostGuard
from app.api.request_context import RequestContextMiddleware, RequestIdFilter
from app.api.stop_signals import call_at_stop_signal
from app.api.version_prefix import VersionPrefixMiddleware
from app.core.config import Settings, get_settings
from app.core.logs import configure_logging
from app.core.redis_client import create_async_client, find_policy_warning
from app.jobs.redis_guard import RedisGuard
from app.jobs.service import JobService
from app.webhooks.deliveries import DeliveryLog
from app.webhooks.registry import WebhookRegistry

logger = logging.getLogger(__name__)

_ROUTED = (
    endpoints,
    status_events,
    jobs,
    job_list,
    batches,
    health,
    dead_letters,
    webhooks,
    problems,
    reference_pages,
    web_page,
)


def _end_if_failed(background: "asyncio.Task[None]") -> None:
    """Nobody would notice that uploads are not synced, or waiters not woken: better start anew."""
    error = None if background.cancelled() else background.exception()
    if error is not None:
        logger.critical("what runs beside the requests has failed, stopping", exc_info=error)
        signal.raise_signal(signal.SIGTERM)


async def _run(service: JobService, feeds: Sequence[EventFeeds]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(service.run())
        for kind in feeds:
            group.create_task(kind.run())


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open what requests share, close it when the server stops."""
    settings: Settings = app.state.settings
    configure_logging(settings.log.level, RequestIdFilter())
    client = create_async_client(settings.redis)
    guard = RedisGuard()
    service = app.state.service = JobService(client, settings, guard)
    app.state.status_feeds = EventFeeds(status_events.JobSource(service))
    app.state.batch_feeds = EventFeeds(BatchSource(service.batches))
    feeds = (app.state.status_feeds, app.state.batch_feeds)
    app.state.webhooks = WebhookRegistry(client, settings, guard)
    app.state.deliveries = DeliveryLog(client, settings, guard)
    background = asyncio.create_task(_run(service, feeds))
    background.add_done_callback(_end_if_failed)
    try:
        warning = find_policy_warning(await client.info("memory"))
        if warning:
            logger.warning(warning)
    except RedisError as error:
        # Not fatal: the API answers 503 until Redis is there.
        logger.warning("Redis is not reachable yet: %s", error)

    def stop_waiting() -> None:
        for kind in feeds:
            kind.stop()
        service.stop_waiting()

    with call_at_stop_signal(stop_waiting):
        yield
    background.cancel()
    await client.aclose()


def create_app(settings: Settings) -> FastAPI:
    """Build the application. Connects to nothing until it is started."""
    app = FastAPI(
        title="Image classification",
        version=version("image-classifier-service"),
        description=documentation.DESCRIPTION,
        openapi_tags=documentation.TAGS,
        # Not FastAPI's pages, nor its route to the contract: see reference_pages.
        openapi_url=None,
        redirect_slashes=False,
        # Nothing collects it here, and to find that out costs every request as much as its route.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        # Given as they are instead of included, which costs every request a second match.
        routes=[route for module in _ROUTED for route in module.router.routes],
        lifespan=lifespan,
    )
    app.state.settings = settings
    app.state.body_watch = BodyWatch()
    problems.install_problem_handlers(app)
    documentation.install_openapi(app)
    # Instead of FastAPI's own stack, which costs every request three layers more: error pages and a
    # body limit, which are this middleware's and the upload's own here, and telemetry.
    answering = ExceptionMiddleware(app.router, handlers=app.exception_handlers)
    for route in app.routes:
        # What explains problems is made by FastAPI's machinery, which wants this.
        if isinstance(route, APIRoute) and not isinstance(route, DirectRoute):
            route.app = AsyncExitStackMiddleware(route.app)
    guarded = CrossOriginGuard(
        VersionPrefixMiddleware(CompressionMiddleware(answering)), settings.cors
    )
    named = RequestContextMiddleware(
        HostGuard(allow_origins(guarded, settings.cors), settings),
        answer_unexpected=allow_origins(problems.answer_internal_error, settings.cors),
        headers=AnswerHeaders(settings.cors),
    )
    app.middleware_stack = follow_proxies(named, settings.trusted)
    return app


app = create_app(get_settings())
