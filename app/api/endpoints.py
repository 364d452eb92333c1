"""Submitting an image, following its job, fetching its predictions."""

import contextlib
from uuid import UUID, uuid4

from starlette.requests import Request
from starlette.responses import Response

from app.api import documentation, upload_documentation
from app.api.answer_choice import read_answer_options
from app.api.cache_headers import read_cache_use
from app.api.deadline import read_cancel_after
from app.api.direct_route import (
    create_answer,
    create_json_answer,
    create_router,
    get_service,
    get_settings,
)
from app.api.job_documents import describe, render_result
from app.api.job_paths import ANONYMOUS, follow, read_job_id
from app.api.preferences import name_applied, read_priority, read_wait_seconds
from app.api.problems import create_problem_response
from app.api.uploads import announced_bytes, receive_image
from app.core.errors import JOB_ERRORS, JobFailedError, ServiceError
from app.jobs.content import ContentDigest
from app.jobs.job import Job, JobState, Reception
from app.models.schemas import JobAccepted

router = create_router("classification")


@router.post("/classify", status_code=202, **upload_documentation.CLASSIFY)
async def classify(request: Request) -> Response:
    service, settings = get_service(request), get_settings(request)
    patience_seconds = read_cancel_after(request.headers.get("cancel-after"))
    wait_seconds = read_wait_seconds(request, settings.result.wait_limit_seconds)
    priority = read_priority(request)
    cache_use = read_cache_use(request, settings)
    options = await read_answer_options(request)
    await service.admit(announced_bytes(request, settings.limits))
    job_id = uuid4()
    upload = service.create_upload(job_id)
    digest = ContentDigest(ANONYMOUS, options.to_json()) if cache_use.shares else None
    try:
        await receive_image(request, upload, settings.limits, digest)
    except BaseException:
        with contextlib.suppress(ServiceError):
            await upload.abort()
        raise
    reception, job = await service.submit(
        job_id,
        upload,
        ANONYMOUS,
        patience_seconds=patience_seconds,
        wait_seconds=wait_seconds,
        priority=priority,
        content=digest.value() if digest else "",
        is_fresh=cache_use.is_fresh,
        options=options,
    )
    headers = cache_use.describe(reception) | name_applied(wait_seconds)
    if job is not None and job.has_ended():
        return _create_end(job, headers)
    headers |= follow(request, job_id)
    if reception is Reception.ANSWERED:
        del headers["Retry-After"]
    return create_answer(JobAccepted(job_id=job_id), 202, headers)


@router.get("/status/{job_id}", **documentation.STATUS)
async def get_status(request: Request) -> Response:
    job, wait_seconds = await _find_job(request)
    return create_answer(describe(job), headers=name_applied(wait_seconds))


@router.get("/result/{job_id}", **documentation.RESULT)
async def get_result(request: Request) -> Response:
    job, wait_seconds = await _find_job(request)
    if job.has_ended():
        return _create_end(job, name_applied(wait_seconds))
    headers = follow(request, UUID(job.id)) | name_applied(wait_seconds)
    return create_answer(describe(job), 202, headers)


async def _find_job(request: Request) -> tuple[Job, int]:
    """The job in the path, and how many seconds its end was waited for at most."""
    job_id = read_job_id(request)
    limit_seconds = get_settings(request).result.wait_limit_seconds
    wait_seconds = read_wait_seconds(request, limit_seconds)
    return await get_service(request).get_job(job_id, wait_seconds), wait_seconds


def _create_end(job: Job, headers: dict[str, str]) -> Response:
    """The answer that holds what came of a job."""
    if job.state is JobState.COMPLETED:
        return create_json_answer(render_result(job), headers=headers)
    kind = JOB_ERRORS.get(job.error["code"], JobFailedError)
    error = kind(job.error["detail"], headers=headers, job_id=job.id)
    return create_problem_response(error)
