"""How the service is: for people, for load balancers, for supervisors."""

from fastapi import APIRouter
from starlette.responses import Response

from app.api import documentation
from app.api.dependencies import ServiceDependency
from app.core import clock
from app.core.errors import ServiceUnavailableError
from app.models.schemas import Health, Live, Ready, WorkerHealth

router = APIRouter(prefix="/health", tags=["health"])

# Whoever asks wants an answer in 100 ms, however long Redis takes; the rest is for the way.
_LOOK_SECONDS = 0.07


@router.get("", **documentation.HEALTH)
async def get_health(service: ServiceDependency, response: Response) -> Health:
    health = await service.get_health(_LOOK_SECONDS)
    if not health.redis_connected:
        response.status_code = 503
    return Health(
        status=(
            "unhealthy"
            if not health.redis_connected
            else "degraded" if health.reasons else "healthy"
        ),
        redis_connected=health.redis_connected,
        workers_available=len(health.workers),
        timestamp=clock.now(),
        reasons=health.reasons,
        queue_length=health.queue_length,
        workers=[
            WorkerHealth(**worker.model_dump(exclude={"reasons"})) for worker in health.workers
        ],
    )


@router.get("/live", **documentation.LIVE)
async def get_live() -> Live:
    return Live()


@router.get("/ready", **documentation.READY)
async def get_ready(service: ServiceDependency) -> Ready:
    health = await service.get_health(_LOOK_SECONDS)
    if not health.redis_connected:
        raise ServiceUnavailableError()
    return Ready()
