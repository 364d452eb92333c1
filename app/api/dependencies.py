"""What endpoints ask for: the service and the settings that ``lifespan`` put in place."""

from typing import Annotated, cast

from fastapi import Depends
from starlette.requests import Request

from app.core.config import Settings
from app.jobs.service import JobService


# Asynchronous although they wait for nothing: FastAPI runs plain functions in a thread.
async def _get_service(request: Request) -> JobService:
    return cast(JobService, request.app.state.service)


async def _get_settings(request: Request) -> Settings:
    return cast(Settings, request.app.state.settings)


ServiceDependency = Annotated[JobService, Depends(_get_service)]
SettingsDependency = Annotated[Settings, Depends(_get_settings)]
