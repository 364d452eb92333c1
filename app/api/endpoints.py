"""Submitting an image, following its job, fetching its predictions."""

import contextlib
from typing import Any
from uuid import UUID, uuid4

from starlette.requests import Request
from starlette.responses import Response

from app.api import documentation
from app.api.direct_route import create_answer, create_router, get_service, get_settings
from app.api.deadline import read_cancel_after
from app.api.problems import create_problem_response
from app.api.uploads import announced_bytes, receive_image
from app.core.clock import to_datetime
from app.core.errors import JOB_ERRORS, JobFailedError, JobNotFoundError, ServiceError
from app.jobs.job import Job, JobState
from app.models.schemas import JobAccepted, JobResult, JobStatus, ModelUsed, Prediction

router = create_router("classification")

# Everybody, as long as nobody has to say who they are.
ANONYMOUS = "anonymous"

# Classifying takes milliseconds; a second is the least that the header can say.
_RETRY_AFTER_SECONDS = "1"


def _follow(job_id: UUID) -> dict[str, str]:
    return {"Location": f"/status/{job_id}", "Retry-After": _RETRY_AFTER_SECONDS}


@router.post("/classify", status_code=202, **documentation.CLASSIFY)
async def classify(request: Request) -> Response:
    service, limits = get_service(request), get_settings(request).limits
    patience_seconds = read_cancel_after(request.headers.get("cancel-after"))
    await service.admit(announced_bytes(request, limits))
    job_id = uuid4()
    upload = service.create_upload(job_id)
    try:
        await receive_image(request, upload, limits)
    except BaseException:
        with contextlib.suppress(ServiceError):
            await upload.abort()
        raise
    await service.submit(job_id, upload, ANONYMOUS, patience_seconds)
    return create_answer(JobAccepted(job_id=job_id), 202, _follow(job_id))


@router.get("/status/{job_id}", **documentation.STATUS)
async def get_status(request: Request) -> Response:
    return create_answer(_describe(await _get_job(request)))


@router.get("/result/{job_id}", **documentation.RESULT)
async def get_result(request: Request) -> Response:
    job = await _get_job(request)
    if job.state is JobState.COMPLETED:
        return create_answer(_report(job))
    if job.state is JobState.FAILED:
        error = JOB_ERRORS.get(job.error["code"], JobFailedError)
        return create_problem_response(error(job.error["detail"]), job_id=job.id)
    return create_answer(_describe(job), 202, _follow(UUID(job.id)))


async def _get_job(request: Request) -> Job:
    try:
        job_id = UUID(request.path_params["job_id"])
    except ValueError:
        # What can't be an id was never given out.
        raise JobNotFoundError() from None
    return await get_service(request).get_job(job_id)


def _describe(job: Job) -> JobStatus:
    fields: dict[str, Any] = {"status": job.state.value, "progress": job.progress}
    return JobStatus(
        job_id=UUID(job.id),
        updated_at=to_datetime(job.updated_ms),
        stage=job.stage or None,
        **fields,
    )


def _report(job: Job) -> JobResult:
    return JobResult(
        job_id=UUID(job.id),
        predictions=[Prediction.model_validate(item) for item in job.predictions],
        # Redis's clock may be set back; a time is never less than nothing.
        processing_time=max(job.finished_ms - job.claimed_ms, 0) / 1000,
        created_at=to_datetime(job.created_ms),
        queue_time=max(job.claimed_ms - job.created_ms, 0) / 1000,
        completed_at=to_datetime(job.finished_ms),
        model=ModelUsed(name=job.model, version=job.model_version, engine=job.engine),
    )
