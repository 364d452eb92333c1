"""The answers that say what became of a job."""

from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from app.api.direct_route import create_answer, create_json_answer
from app.api.job_documents import read_error, render_result
from app.api.job_paths import follow
from app.api.problems import create_problem_response
from app.jobs.job import Job, JobState
from app.models.schemas import JobAccepted


def create_accepted(
    request: Request, job_id: UUID, headers: dict[str, str], is_answered: bool
) -> Response:
    """The answer to an upload; ``is_answered``: its result is there already."""
    headers |= follow(request, job_id)
    if is_answered:
        del headers["Retry-After"]
    return create_answer(JobAccepted(job_id=job_id), 202, headers)


def create_end(job: Job, headers: dict[str, str]) -> Response:
    """The answer that holds what came of a job that has ended."""
    if job.state is JobState.COMPLETED:
        return create_json_answer(render_result(job), headers=headers)
    error = read_error(job)
    error.headers |= headers
    return create_problem_response(error)
