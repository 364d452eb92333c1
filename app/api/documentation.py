"""The words of /docs: what each call is for, what it may answer, an example of each.

Kept apart from the endpoints so that those can be read in one glance.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.responses import Response

from app.api import problems
from app.api.version_prefix import PREFIX
from app.core.errors import (
    InternalError,
    JobErasedError,
    JobNotFoundError,
    ServiceError,
    ServiceUnavailableError,
)
from app.core.image_errors import IMAGE_ERRORS
from app.core.job_errors import (
    AttemptsExhaustedError,
    DeadlineExceededError,
    ImageTooCostlyError,
    JobCancelledError,
    JobFailedError,
    ModelUnavailableError,
    OversizedImageError,
    PayloadLostError,
    TruncatedImageError,
    UndecodableImageError,
)
from app.models.schemas import (
    EXAMPLE_ID,
    JobResult,
    JobStatus,
    Problem,
)

DESCRIPTION = """
Classifies images in the background. Three calls:

1. **Submit** an image: `POST /classify` answers a job id at once.
2. **Follow** the job: `GET /status/{job_id}`.
3. **Fetch** the predictions: `GET /result/{job_id}`.

With the header `Prefer: wait=10` each of them answers as soon as the job has ended.

```
curl -F file=@cat.jpg http://localhost:8000/classify
curl http://localhost:8000/result/5a3bd5de-6a4c-4f4e-9d0f-0d3a3a8f4c11
```

An accepted job reaches exactly one terminal state; inference may run more than once.

Every error is `application/problem+json` (RFC 9457). Its `code` is stable, its `detail` says what
to do, and its `request_id`, also in the `X-Request-ID` header, finds the request in the log.
"""

TAGS = [
    {"name": "classification", "description": "Submit an image, follow its job, fetch its result."},
    {"name": "batches", "description": "Many images in one request, followed and read as one."},
    {
        "name": "webhooks",
        "description": "The service POSTs to your URL when a job or a batch has ended, signed "
        "after Standard Webhooks 1.0.0.",
    },
    {"name": "health", "description": "How the service is."},
    {
        "name": "administration",
        "description": "Dead letters: jobs that were given up, kept with their uploads for "
        "`DEAD_LETTER_TTL` (a week unless configured). Needs `ADMIN_TOKEN`.",
    },
]

REQUEST_ID_HEADER = {
    "X-Request-ID": {
        "description": "The request's id: yours if you sent one, else a new one.",
        "schema": {"type": "string"},
    }
}
RETRY_AFTER_HEADER = {
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}
}
LOCATION_HEADER = {
    "Location": {
        "description": "Where to follow the job.",
        "schema": {"type": "string", "example": f"/status/{EXAMPLE_ID}"},
    }
}


APPLIED_HEADER = {
    "Preference-Applied": {
        "description": "`wait=N`, as the request preferred: so long was waited at most.",
        "schema": {"type": "string", "example": "wait=10"},
    }
}


def problem_responses(*errors: type[ServiceError]) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` entries of a call that may end in these errors."""
    responses: dict[int | str, dict[str, Any]] = {}
    kinds: tuple[type[ServiceError], ...] = (*errors, InternalError)
    for error in kinds:
        response = responses.setdefault(error.status, _problem_response())
        response["description"] = (
            f"{response['description']}\n\n**{error.code}**: {error.detail}".strip()
        )
        response["content"][problems.MEDIA_TYPE]["examples"][error.code] = {
            "summary": error.title,
            "value": _example(error),
        }
        if error.retry_after_seconds is not None:
            response["headers"] = REQUEST_ID_HEADER | RETRY_AFTER_HEADER
    return responses


def _problem_response() -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        "description": "",
        "headers": REQUEST_ID_HEADER,
        "content": {problems.MEDIA_TYPE: {"schema": schema, "examples": {}}},
    }


def _example(error: type[ServiceError]) -> dict[str, Any]:
    return {
        "type": problems.problem_type(error.code),
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "request_id": "0b6c8f0e4f5f4b0c9d0a3f6f5b1f8e7d",
    }


def links(*operations: str) -> dict[str, Any]:
    """Where an answer's job id leads: tools and generated clients follow these."""
    parameters = {"job_id": "$response.body#/job_id"}
    return {name: {"operationId": name, "parameters": parameters} for name in operations}


PREFER = {
    "name": "Prefer",
    "in": "header",
    "description": "`wait=N`: answer when the job has ended, N seconds from now at the latest "
    "(RFC 7240); at most `RESULT_WAIT_LIMIT_SECONDS` (60 unless configured).",
    "schema": {"type": "string"},
    "example": "wait=10",
}

# How a job ends without predictions.
JOB_ERRORS = (
    UndecodableImageError,
    TruncatedImageError,
    OversizedImageError,
    ImageTooCostlyError,
    JobFailedError,
    PayloadLostError,
    AttemptsExhaustedError,
    ModelUnavailableError,
    DeadlineExceededError,
    JobCancelledError,
)

JOB_ID = {
    "parameters": [
        {
            "name": "job_id",
            "in": "path",
            "required": True,
            "description": "As the upload's answer named it.",
            "schema": {"type": "string", "format": "uuid"},
            "example": EXAMPLE_ID,
        }
    ]
}

_FOLLOW = {"parameters": [*JOB_ID["parameters"], PREFER]}

ENTITY_TAG_HEADER = {
    "ETag": {
        "description": "Another one whenever the answer is another.",
        "schema": {"type": "string", "example": '"1795435200125-1-40-processing"'},
    }
}

IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "description": "The `ETag` of an earlier answer: 304 while nothing has changed since.",
    "schema": {"type": "string"},
}

_STATUS_HEADERS = ENTITY_TAG_HEADER | APPLIED_HEADER | REQUEST_ID_HEADER

STATUS: dict[str, Any] = {
    "summary": "Follow a job",
    "description": "Status and progress of a job. Ended jobs are kept for `RESULT_TTL` seconds "
    "(one hour unless configured).",
    "response_description": "Where the job is.",
    "response_model": JobStatus,
    "openapi_extra": {"parameters": [*_FOLLOW["parameters"], IF_NONE_MATCH]},
    "responses": {
        200: {"headers": _STATUS_HEADERS, "links": links("get_result")},
        304: {"description": "Nothing has changed.", "headers": _STATUS_HEADERS},
    }
    | problem_responses(JobNotFoundError, JobErasedError, ServiceUnavailableError),
}

LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The `id` of the last event that you have: it is not sent again.",
    "schema": {"type": "string"},
}

_STREAM_EXAMPLE = f"""retry: 2000

id: 1795435200125-1-40-processing
event: status
data: {{"job_id":"{EXAMPLE_ID}","status":"processing","progress":40,…}}

"""


def event_schema(name: str, document: str) -> dict[str, Any]:
    """Each event of a stream, as OpenAPI 3.2 has it; ``document``: the schema of its data."""
    return {
        "type": "object",
        "required": ["id", "event", "data"],
        "properties": {
            "id": {"type": "string", "description": "The version: another one for another status."},
            "event": {"const": name},
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": {"$ref": f"#/components/schemas/{document}"},
            },
        },
    }


STATUS_EVENTS: dict[str, Any] = {
    "summary": "Follow a job live",
    "description": "The job's status as Server-Sent Events, as `EventSource` in browsers reads "
    "them: `event: status`, and as `data` the answer of `GET /status/{job_id}` in one line. The "
    "first is where the job is now, each further one a change; the stream ends behind the event "
    "of a terminal status, and without one when the job is erased. Comments every 15 seconds keep "
    "the connection alive. A client that comes back sends `Last-Event-ID` and gets what is new.",
    "response_description": "The events.",
    "response_class": Response,
    "openapi_extra": {"parameters": [*JOB_ID["parameters"], LAST_EVENT_ID]},
    "responses": {
        200: {
            "headers": REQUEST_ID_HEADER,
            "content": {
                "text/event-stream": {
                    "itemSchema": event_schema("status", "JobStatus"),
                    "example": _STREAM_EXAMPLE,
                }
            },
        },
        204: {
            "description": "You have the last event: nothing more will come.",
            "headers": REQUEST_ID_HEADER,
        },
    }
    | problem_responses(JobNotFoundError, JobErasedError, ServiceUnavailableError),
}

RESULT: dict[str, Any] = {
    "summary": "Fetch the predictions",
    "description": "The predictions of a completed job. A job that has not ended answers 202 with "
    "its status; a failed one answers 422 when the image was at fault, 504 when its deadline "
    "passed, and 500 when we were at fault; a cancelled one 410.",
    "response_description": "The job is completed.",
    "response_model": JobResult,
    "openapi_extra": _FOLLOW,
    "responses": {
        200: {"headers": APPLIED_HEADER | REQUEST_ID_HEADER},
        202: {
            "model": JobStatus,
            "description": "The job has not ended yet; ask again.",
            "headers": LOCATION_HEADER | RETRY_AFTER_HEADER | APPLIED_HEADER | REQUEST_ID_HEADER,
        },
    }
    | problem_responses(
        JobNotFoundError,
        JobErasedError,
        *IMAGE_ERRORS,
        *JOB_ERRORS,
        ServiceUnavailableError,
    ),
}

ADMIN_TOKEN_SCHEME = "admin_token"

_SECURITY_SCHEMES = {
    ADMIN_TOKEN_SCHEME: {
        "type": "http",
        "scheme": "bearer",
        "description": "The service's `ADMIN_TOKEN`. `classifier up` makes one: it is in "
        "`admin.token` in the data folder.",
    }
}


_SERVERS: list[dict[str, Any]] = [
    {"url": PREFIX, "description": "This version of the contract."},
    {"url": "/", "description": "The same, by the specification's bare paths."},
]


def install_openapi(app: FastAPI) -> None:
    """Complete the generated schema with what FastAPI can't know: problems, the admin token."""

    def create_schema() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
                servers=_SERVERS,
            )
            components = schema.setdefault("components", {})
            components.setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
            components["securitySchemes"] = _SECURITY_SCHEMES
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = create_schema  # type: ignore[method-assign]
