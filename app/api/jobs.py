"""What an owner can do with a job that was submitted: cancel it, erase it."""

from starlette.requests import Request
from starlette.responses import Response

from app.api import job_documentation as documentation
from app.api.direct_route import create_answer, create_router, get_service
from app.api.job_documents import describe
from app.api.job_paths import ANONYMOUS, follow, read_job_id

router = create_router("classification", prefix="/jobs")


@router.post("/{job_id}/cancel", **documentation.CANCEL)
async def cancel_job(request: Request) -> Response:
    job_id = read_job_id(request)
    job = await get_service(request).cancel_job(job_id, ANONYMOUS)
    if job.has_ended():
        return create_answer(describe(job))
    return create_answer(describe(job), 202, follow(request, job_id))


@router.delete("/{job_id}", status_code=204, **documentation.ERASE)
async def erase_job(request: Request) -> Response:
    await get_service(request).erase_job(read_job_id(request), ANONYMOUS)
    return Response(status_code=204)
