"""Following a job live: its status as Server-Sent Events."""

from starlette.requests import Request

from app.api import documentation
from app.api.direct_route import create_router
from app.api.event_feeds import Event, Tell, render_event
from app.api.event_stream import EventStream
from app.api.job_documents import describe
from app.api.job_paths import read_job_id
from app.jobs.job import Job
from app.jobs.service import JobService

router = create_router("classification")


class JobSource:
    """The changes of jobs, by their ids."""

    def __init__(self, service: JobService) -> None:
        self._service = service

    def follow(self, key: str, tell: Tell) -> None:
        self._service.follow(key, lambda job: tell(None if job is None else _render(job)))

    def unfollow(self, key: str) -> None:
        self._service.unfollow(key)

    async def look(self, key: str) -> Event:
        return _render(await self._service.look(key))


def _render(job: Job) -> Event:
    document = describe(job).model_dump_json()
    return render_event("status", job.version, job.position, document, job.has_ended())


@router.get("/status/{job_id}/events", **documentation.STATUS_EVENTS)
async def get_status_events(request: Request) -> EventStream:
    return EventStream(request, request.app.state.status_feeds, str(read_job_id(request)))
