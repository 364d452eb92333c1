"""The words of /docs about dead letters."""

from typing import Any

from starlette.responses import Response

from app.api.documentation import (
    ADMIN_TOKEN_SCHEME,
    JOB_ID,
    REQUEST_ID_HEADER,
    problem_responses,
)
from app.core.errors import (
    AdminClosedError,
    CrossOriginError,
    DeadLetterNotFoundError,
    InvalidRequestError,
    ServiceError,
    ServiceUnavailableError,
    UnauthorizedError,
)
from app.models.schemas import DeadLetter, DeadLetterList, DeadLettersPurged, DeadLettersRetried

DEFAULT_LIMIT = 100
LARGEST_LIMIT = 1000
LARGEST_OFFSET = 1_000_000_000

_SECURITY: dict[str, Any] = {"security": [{ADMIN_TOKEN_SCHEME: []}]}

_CHALLENGE_HEADER = {
    "WWW-Authenticate": {
        "description": "How to say who you are.",
        "schema": {"type": "string", "example": "Bearer"},
    }
}

_PAGE = {
    "parameters": [
        {
            "name": "limit",
            "in": "query",
            "description": "How many to list.",
            "schema": {
                "type": "integer",
                "minimum": 1,
                "maximum": LARGEST_LIMIT,
                "default": DEFAULT_LIMIT,
            },
        },
        {
            "name": "offset",
            "in": "query",
            "description": "How many to pass over first.",
            "schema": {"type": "integer", "minimum": 0, "maximum": LARGEST_OFFSET, "default": 0},
        },
    ]
}


def _responses(
    status: int, *errors: type[ServiceError], **about_success: Any
) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a call that needs the admin token."""
    problems = problem_responses(
        UnauthorizedError, AdminClosedError, *errors, ServiceUnavailableError
    )
    problems[UnauthorizedError.status]["headers"] = REQUEST_ID_HEADER | _CHALLENGE_HEADER
    return {status: {"headers": REQUEST_ID_HEADER, **about_success}} | problems


LIST: dict[str, Any] = {
    "summary": "List dead letters",
    "description": "Jobs that were given up, the latest death first.",
    "response_description": "Some of the dead letters, and how many there are.",
    "response_model": DeadLetterList,
    "openapi_extra": _SECURITY | _PAGE,
    "responses": _responses(200, InvalidRequestError),
}

GET: dict[str, Any] = {
    "summary": "Show a dead letter",
    "description": "Why the job was given up, and what was tried: when, and by which worker.",
    "response_description": "The dead letter.",
    "response_model": DeadLetter,
    "openapi_extra": _SECURITY | JOB_ID,
    "responses": _responses(200, DeadLetterNotFoundError),
}

_BINARY = {"schema": {"type": "string", "format": "binary"}}

UPLOAD: dict[str, Any] = {
    "summary": "Fetch a dead letter's image",
    "description": "The file as it was uploaded.",
    "response_description": "The image.",
    "response_class": Response,
    "openapi_extra": _SECURITY | JOB_ID,
    "responses": _responses(
        200, DeadLetterNotFoundError, content={"image/jpeg": _BINARY, "image/png": _BINARY}
    ),
}

RETRY: dict[str, Any] = {
    "summary": "Retry a dead letter",
    "description": "The job is pending again under its id, as if it had never failed; it runs "
    "alone, and its deadline no longer counts.",
    "response_description": "The job is in the queue.",
    "response_model": DeadLettersRetried,
    "openapi_extra": _SECURITY | JOB_ID,
    "responses": _responses(202, CrossOriginError, DeadLetterNotFoundError),
}

RETRY_ALL: dict[str, Any] = {
    "summary": "Retry all dead letters",
    "description": "The same for every dead letter that there is now.",
    "response_description": "The jobs are in the queue.",
    "response_model": DeadLettersRetried,
    "openapi_extra": _SECURITY,
    "responses": _responses(202, CrossOriginError),
}

PURGE: dict[str, Any] = {
    "summary": "Purge a dead letter",
    "description": "Erases the job and its upload for good.",
    "response_description": "The dead letter is erased.",
    "response_model": DeadLettersPurged,
    "openapi_extra": _SECURITY | JOB_ID,
    "responses": _responses(200, CrossOriginError, DeadLetterNotFoundError),
}

PURGE_ALL: dict[str, Any] = {
    "summary": "Purge all dead letters",
    "description": "Erases every dead letter that there is now, uploads included, for good.",
    "response_description": "The dead letters are erased.",
    "response_model": DeadLettersPurged,
    "openapi_extra": _SECURITY,
    "responses": _responses(200, CrossOriginError),
}
