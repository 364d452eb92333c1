"""A batch as the API shows it."""

from typing import Any
from uuid import UUID

from app.api.job_documents import read_error, render_json
from app.api.problems import problem_type
from app.core.clock import to_datetime
from app.core.errors import JobErasedError, ServiceError
from app.jobs.batch import Batch, BatchImage
from app.jobs.job import Job, JobState
from app.models.batch_schemas import BatchAccepted, BatchJob, BatchStatus


def describe_accepted(batch_id: UUID, images: list[BatchImage]) -> BatchAccepted:
    """The answer to who sent it."""
    jobs = [
        BatchJob(
            job_id=UUID(image.job_id),
            filename=image.file_name or None,
            custom_id=image.custom_id or None,
        )
        for image in images
    ]
    return BatchAccepted(batch_id=batch_id, total=len(jobs), jobs=jobs)


def describe_batch(batch: Batch) -> BatchStatus:
    """Where it is."""
    counts: dict[str, int] = {state.value: count for state, count in batch.counts.items()}
    return BatchStatus(
        batch_id=UUID(batch.id),
        status=batch.state.value,
        total=batch.total,
        progress=batch.progress,
        created_at=to_datetime(batch.created_ms),
        updated_at=to_datetime(batch.updated_ms),
        **counts,
    )


def render_line(job_id: str, job: Job | None) -> str:
    """The JSON of a :class:`app.models.batch_schemas.BatchLine`, with its line break.

    Without a record the job was erased, how it ended included. The predictions are passed on
    as the worker wrote them.
    """
    if job is None:
        document = {"job_id": job_id, "custom_id": None, "filename": None, "status": "erased"}
        return render_json(document | {"problem": _describe_problem(JobErasedError())}) + "\n"
    document = {
        "job_id": job_id,
        "custom_id": job.custom_id or None,
        "filename": job.file_name or None,
        "status": job.state.value,
    }
    if job.state is JobState.COMPLETED:
        return f'{render_json(document)[:-1]},"predictions":{job.predictions_json}}}\n'
    if job.error:
        problem = _describe_problem(read_error(job))
        return render_json(document | {"problem": problem}) + "\n"
    # A dead letter that an operator has retried.
    return render_json(document) + "\n"


def _describe_problem(error: ServiceError) -> dict[str, Any]:
    return {
        "type": problem_type(error.code),
        "title": error.title,
        "status": error.status,
        "detail": error.text,
        "code": error.code,
    }
