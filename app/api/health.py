"""How the service is: for people, for load balancers, for supervisors."""

from dataclasses import asdict
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from app.api import health_documentation
from app.api.direct_route import create_answer, create_router, get_service
from app.core import clock
from app.core.errors import ServiceUnavailableError
from app.jobs.service import ServiceHealth
from app.models.schemas import CacheHealth, Health, Live, Ready, WorkerHealth

router = create_router("health", prefix="/health")

# Whoever asks wants an answer in 100 ms, however long Redis takes; the rest is for the way.
_LOOK_SECONDS = 0.07

# A load balancer rather waits than takes a busy process for a broken one.
_READY_SECONDS = 1.0


@router.get("", **health_documentation.HEALTH)
async def get_health(request: Request) -> Response:
    health = await get_service(request).get_health(_LOOK_SECONDS)
    document = Health(
        status=_judge(health),
        redis_connected=health.redis_connected,
        workers_available=len(health.workers),
        timestamp=clock.now(),
        reasons=health.reasons,
        queue_length=health.backlog.jobs if health.backlog else None,
        dead_letters=health.dead_letters,
        cache=CacheHealth(**asdict(health.cache)) if health.cache else None,
        workers=[
            WorkerHealth(**worker.model_dump(exclude={"reasons"})) for worker in health.workers
        ],
    )
    if health.redis_connected:
        return create_answer(document)
    return create_answer(document, 503, ServiceUnavailableError().headers)


def _judge(health: ServiceHealth) -> Literal["healthy", "degraded", "unhealthy"]:
    if not health.redis_connected:
        return "unhealthy"
    return "degraded" if health.reasons else "healthy"


@router.get("/live", **health_documentation.LIVE)
async def get_live(request: Request) -> Response:
    return create_answer(Live())


@router.get("/ready", **health_documentation.READY)
async def get_ready(request: Request) -> Response:
    health = await get_service(request).get_health(_READY_SECONDS)
    if not health.redis_connected:
        raise ServiceUnavailableError()
    return create_answer(Ready())
