"""The caller's jobs, in pages."""

from starlette.requests import Request
from starlette.responses import Response

from app.api import job_list_documentation as documentation
from app.api.direct_route import create_answer, create_router, get_service
from app.api.job_documents import describe_listed
from app.api.job_paths import ANONYMOUS
from app.api.query_parameters import read_choice, read_number
from app.jobs.job import JobState
from app.jobs.job_lists import Position
from app.models.schemas import JobList

router = create_router("classification")


@router.get("/jobs", **documentation.LIST)
async def list_jobs(request: Request) -> Response:
    limit = read_number(
        request, "limit", documentation.DEFAULT_LIMIT, 1, documentation.LARGEST_LIMIT
    )
    state = read_choice(request, "status", JobState)
    cursor = request.query_params.get("cursor")
    after = None if cursor is None else Position.parse(cursor)
    jobs, follows = await get_service(request).job_lists.read_page(ANONYMOUS, limit, state, after)
    document = JobList(
        jobs=[describe_listed(job) for job in jobs],
        next_cursor=None if follows is None else follows.render(),
    )
    return create_answer(document)
