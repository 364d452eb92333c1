"""The words of /docs about cancelling and erasing jobs."""

from typing import Any

from starlette.responses import Response

from app.api.documentation import (
    JOB_ID,
    LOCATION_HEADER,
    REQUEST_ID_HEADER,
    RETRY_AFTER_HEADER,
    problem_responses,
)
from app.core.errors import (
    CrossOriginError,
    JobEndedError,
    JobErasedError,
    JobNotFoundError,
    ServiceUnavailableError,
)
from app.models.schemas import JobStatus

CANCEL: dict[str, Any] = {
    "summary": "Cancel a job",
    "description": "A job that waits is cancelled at once. A worker that has it stops before its "
    "next step; a result that comes first counts, so follow the job to its end.",
    "response_description": "The job is cancelled.",
    "response_model": JobStatus,
    "openapi_extra": JOB_ID,
    "responses": {
        200: {"headers": REQUEST_ID_HEADER},
        202: {
            "model": JobStatus,
            "description": "A worker has the job and will stop, unless it is done before.",
            "headers": LOCATION_HEADER | RETRY_AFTER_HEADER | REQUEST_ID_HEADER,
        },
    }
    | problem_responses(
        CrossOriginError, JobNotFoundError, JobEndedError, JobErasedError, ServiceUnavailableError
    ),
}

ERASE: dict[str, Any] = {
    "summary": "Erase a job",
    "description": "Erases the job, its image and its result, whatever its state; one that has "
    "not ended is cancelled. For `RESULT_TTL` seconds its id answers 410.",
    "response_description": "The job is erased.",
    "response_class": Response,
    "openapi_extra": JOB_ID,
    "responses": {204: {"headers": REQUEST_ID_HEADER}}
    | problem_responses(
        CrossOriginError, JobNotFoundError, JobErasedError, ServiceUnavailableError
    ),
}
