"""The words of /docs about uploads."""

from typing import Any

from app.api.deadline import DURATION
from app.api.documentation import (
    APPLIED_HEADER,
    JOB_ERRORS,
    LOCATION_HEADER,
    PREFER,
    REQUEST_ID_HEADER,
    RETRY_AFTER_HEADER,
    links,
    problem_responses,
)
from app.core.errors import (
    CrossOriginError,
    IdempotencyKeyInUseError,
    IdempotencyKeyReusedError,
    InvalidIdempotencyKeyError,
    InvalidRequestError,
    JobErasedError,
    JobExpiredError,
    MalformedUploadError,
    MissingFileError,
    NotMultipartError,
    QueueFullError,
    ResultsFullError,
    ServiceUnavailableError,
    SlowUploadError,
    StorageFullError,
    UnreadPartsError,
)
from app.core.image_errors import (
    EmptyFileError,
    FileTooLargeError,
    ImageTooLargeError,
    MalformedImageError,
    UnsupportedCodingError,
    UnsupportedImageError,
)
from app.jobs.answer_options import DEFAULT_TOP_K, LARGEST_TOP_K
from app.jobs.job import Priority
from app.models.schemas import JobAccepted, JobResult

_CACHE_HEADER = {
    "Cache-Status": {
        "description": "`classifier; hit`: the answer was known. `collapsed`: the same image is "
        "under way (RFC 9211).",
        "schema": {"type": "string", "example": "classifier; hit"},
    }
}

# How the answer shall look.
ANSWER_PARAMETERS: list[dict[str, Any]] = [
    {
        "name": "top_k",
        "in": "query",
        "description": "How many predictions to answer at most.",
        "schema": {
            "type": "integer",
            "minimum": 1,
            "maximum": LARGEST_TOP_K,
            "default": DEFAULT_TOP_K,
        },
    },
    {
        "name": "threshold",
        "in": "query",
        "description": "Leaves out predictions of a smaller confidence; none may be left.",
        "schema": {"type": "number", "minimum": 0, "maximum": 1, "default": 0},
    },
    {
        "name": "model",
        "in": "query",
        "description": "The name of the model that shall answer: one in `GET /health`.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 100},
    },
]

CACHE_CONTROL: dict[str, Any] = {
    "name": "Cache-Control",
    "in": "header",
    "description": "`no-cache`: classify the image anew, though its answer is known. "
    "`no-store`: the same, and do not keep the answer for others.",
    "schema": {"type": "string"},
    "example": "no-cache",
}

IDEMPOTENCY_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "A key of your own for this upload, new for each, such as a UUID in quotes. "
    "Sent again with the same images and choices within 24 hours it begins nothing twice.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 512},
    "example": '"8e03978e-40d5-43dd-bc93-6894a57f9324"',
}

REPLAYED_HEADER = {
    "Idempotency-Replayed": {
        "description": "`true`: the key came before, and this is about what it began.",
        "schema": {"type": "string", "enum": ["true"]},
    }
}

_UPLOAD = {
    "parameters": [
        PREFER,
        {
            "name": "priority",
            "in": "query",
            "description": "`bulk` jobs wait while `interactive` ones do, but for every eighth "
            "batch.",
            "schema": {
                "type": "string",
                "enum": list(Priority),
                "default": Priority.INTERACTIVE,
            },
        },
        *ANSWER_PARAMETERS,
        CACHE_CONTROL,
        IDEMPOTENCY_KEY,
        {
            "name": "Cancel-After",
            "in": "header",
            "description": "How long the job may wait for a worker, such as `30s`, `1m30s` or "
            "`2h`; more than nothing, at most seven days. One that no worker came to by then "
            "*fails*, with `deadline-exceeded`, and never runs. A job that has begun is not "
            "stopped.",
            "schema": {"type": "string", "minLength": 1, "pattern": DURATION},
            "example": "30s",
        },
    ],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "A JPEG or PNG image, told by its first bytes; at most "
                            "`MAX_FILE_SIZE` bytes (10 MiB unless configured), 16,384 pixels a "
                            "side and 50 million in all.",
                        }
                    },
                }
            }
        },
    },
}

CLASSIFY: dict[str, Any] = {
    "summary": "Submit an image",
    "description": "Stores the image and answers at once with the id of a job that will classify "
    "it. `Location` says where to follow the job. With `Prefer: wait=10` the answer is what "
    "`GET /result` would say, if the job ends within ten seconds. An image that was classified "
    "before is answered from the cache, and identical images under way are classified once.",
    "response_description": "The job is accepted and durable.",
    "response_model": JobAccepted,
    "openapi_extra": _UPLOAD,
    "responses": {
        200: {
            "model": JobResult,
            "description": "The job is completed already, as `Prefer: wait` asked for.",
            "headers": APPLIED_HEADER | _CACHE_HEADER | REPLAYED_HEADER | REQUEST_ID_HEADER,
        },
        202: {
            "headers": LOCATION_HEADER
            | RETRY_AFTER_HEADER
            | APPLIED_HEADER
            | _CACHE_HEADER
            | REPLAYED_HEADER
            | REQUEST_ID_HEADER,
            "links": links("get_status", "get_result"),
        },
    }
    | problem_responses(
        *JOB_ERRORS,
        CrossOriginError,
        MalformedUploadError,
        SlowUploadError,
        FileTooLargeError,
        ImageTooLargeError,
        NotMultipartError,
        UnsupportedImageError,
        UnsupportedCodingError,
        MissingFileError,
        UnreadPartsError,
        EmptyFileError,
        MalformedImageError,
        InvalidRequestError,
        InvalidIdempotencyKeyError,
        IdempotencyKeyInUseError,
        IdempotencyKeyReusedError,
        JobErasedError,
        JobExpiredError,
        QueueFullError,
        ResultsFullError,
        StorageFullError,
        ServiceUnavailableError,
    ),
}
