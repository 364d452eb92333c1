"""A job as the API shows it."""

import json
from typing import Any
from uuid import UUID

from app.core.clock import format_milliseconds, to_datetime
from app.core.errors import ServiceError
from app.core.job_errors import JOB_ERRORS, JobFailedError
from app.jobs.job import Job
from app.models.schemas import JobStatus, ListedJob

# What json.dumps would make anew for every answer.
render_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def read_error(job: Job) -> ServiceError:
    """Why a job has ended without predictions, as the error that an answer says it by."""
    kind = JOB_ERRORS.get(job.error["code"], JobFailedError)
    return kind(job.error["detail"], job_id=job.id)


def describe(job: Job) -> JobStatus:
    """Where it is."""
    fields: dict[str, Any] = {"status": job.state.value, "progress": job.progress}
    return JobStatus(
        job_id=UUID(job.id),
        updated_at=to_datetime(job.updated_ms),
        stage=job.stage or None,
        **fields,
    )


def describe_listed(job: Job) -> ListedJob:
    """The same in a list, where nobody has its answer to the upload beside it."""
    status = describe(job)
    return ListedJob(**dict(status), created_at=to_datetime(job.created_ms))


def render_result(job: Job) -> str:
    """What came of a completed job: the JSON of a :class:`app.models.schemas.JobResult`.

    The predictions are passed on as the worker wrote them, not read and written again.
    """
    document = {
        # Redis's clock may be set back; a time is never less than nothing.
        "processing_time": max(job.finished_ms - job.claimed_ms, 0) / 1000,
        "created_at": format_milliseconds(job.created_ms),
        "queue_time": max(job.claimed_ms - job.created_ms, 0) / 1000,
        "completed_at": format_milliseconds(job.finished_ms),
        "model": {"name": job.model, "version": job.model_version, "engine": job.engine},
    }
    rest = render_json(document)
    return f'{{"job_id":"{job.id}","predictions":{job.predictions_json},{rest[1:]}'
