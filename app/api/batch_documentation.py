"""The words of /docs about batches."""

from typing import Any

from starlette.responses import Response

from app.api.archives import HARMLESS_BYTES, LARGEST_LIST_BYTES, LARGEST_RATIO
from app.api.batch_parts import LONGEST_CUSTOM_ID
from app.api.documentation import (
    ENTITY_TAG_HEADER,
    IF_NONE_MATCH,
    LAST_EVENT_ID,
    LOCATION_HEADER,
    REQUEST_ID_HEADER,
    RETRY_AFTER_HEADER,
    event_schema,
    problem_responses,
)
from app.api.upload_documentation import (
    ANSWER_PARAMETERS,
    CACHE_CONTROL,
    IDEMPOTENCY_KEY,
    REPLAYED_HEADER,
)
from app.core.errors import (
    BatchEndedError,
    BatchErasedError,
    BatchExpiredError,
    BatchNotFoundError,
    BatchTooLargeError,
    CrossOriginError,
    IdempotencyKeyInUseError,
    IdempotencyKeyReusedError,
    InvalidIdempotencyKeyError,
    InvalidRequestError,
    MalformedArchiveError,
    MalformedUploadError,
    MissingImagesError,
    NotMultipartError,
    QueueFullError,
    ResultsFullError,
    ServiceUnavailableError,
    SlowUploadError,
    StorageFullError,
    TooManyImagesError,
    UnreadPartsError,
    UnsafeArchiveError,
)
from app.jobs.batch import MOST_IMAGES
from app.models.batch_schemas import BatchAccepted, BatchLine, BatchStatus
from app.models.schemas import EXAMPLE_ID

LARGEST_AFTER = MOST_IMAGES

_ID: dict[str, Any] = {
    "parameters": [
        {
            "name": "batch_id",
            "in": "path",
            "required": True,
            "description": "As the answer to the batch named it.",
            "schema": {"type": "string", "format": "uuid"},
            "example": EXAMPLE_ID,
        }
    ]
}

_FOLLOW_HEADERS = (
    {
        "Location": LOCATION_HEADER["Location"]
        | {
            "description": "Where to follow the batch.",
            "schema": {"type": "string", "example": f"/batches/{EXAMPLE_ID}"},
        }
    }
    | RETRY_AFTER_HEADER
    | REQUEST_ID_HEADER
)

_ARCHIVE = (
    f"Instead: one zip file of up to {MOST_IMAGES:,} images, stored or deflated, unencrypted. It "
    f"may unpack to {LARGEST_RATIO} times its size (or to {HARMLESS_BYTES >> 20} MiB, if that is "
    "more), but to no more than `QUEUE_MAX_BYTES`, and its list of contents may have "
    f"{LARGEST_LIST_BYTES >> 10} KiB. An entry that is damaged or larger than `MAX_FILE_SIZE` "
    "(10 MiB unless configured) fails alone. Folders and what file managers add are passed over."
)

_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "file": {
                        "type": "array",
                        "items": {"type": "string", "format": "binary"},
                        "maxItems": MOST_IMAGES,
                        "description": "JPEG and PNG images, each within the limits of "
                        "`POST /classify`.",
                    },
                    "archive": {
                        "type": "string",
                        "format": "binary",
                        "description": _ARCHIVE,
                    },
                    "custom_id": {
                        "type": "array",
                        "items": {
                            "type": "string",
                            "minLength": 1,
                            "maxLength": LONGEST_CUSTOM_ID,
                        },
                        "uniqueItems": True,
                        "maxItems": MOST_IMAGES,
                        "description": "What you call each image: none, or one for each in the "
                        "same order.",
                    },
                },
            }
        }
    },
}


def _links(*operations: str) -> dict[str, Any]:
    parameters = {"batch_id": "$response.body#/batch_id"}
    return {name: {"operationId": name, "parameters": parameters} for name in operations}


SUBMIT: dict[str, Any] = {
    "summary": "Submit a batch",
    "description": f"Up to {MOST_IMAGES:,} images in one request, which wait as `bulk` jobs. All "
    "are accepted or, where there is no room for all, none. An image that is refused does not "
    "refuse the others: its job is there and has failed. Together they may have "
    "`QUEUE_MAX_BYTES` at most (2 GiB unless configured). Where `QUEUE_MAX_JOBS` is less than "
    f"{MOST_IMAGES:,}, so is their number. All must arrive within half an hour.",
    "response_description": "The batch is accepted and durable.",
    "response_model": BatchAccepted,
    "openapi_extra": {
        "parameters": [*ANSWER_PARAMETERS, CACHE_CONTROL, IDEMPOTENCY_KEY],
        "requestBody": _BODY,
    },
    "responses": {
        202: {
            "headers": _FOLLOW_HEADERS | REPLAYED_HEADER,
            "links": _links("get_batch", "get_batch_results", "cancel_batch", "erase_batch"),
        }
    }
    | problem_responses(
        CrossOriginError,
        MalformedUploadError,
        SlowUploadError,
        BatchTooLargeError,
        NotMultipartError,
        MissingImagesError,
        TooManyImagesError,
        UnreadPartsError,
        MalformedArchiveError,
        UnsafeArchiveError,
        InvalidRequestError,
        InvalidIdempotencyKeyError,
        IdempotencyKeyInUseError,
        IdempotencyKeyReusedError,
        BatchErasedError,
        BatchExpiredError,
        QueueFullError,
        ResultsFullError,
        StorageFullError,
        ServiceUnavailableError,
    ),
}

STATUS: dict[str, Any] = {
    "summary": "Follow a batch",
    "description": "How many jobs of the batch are in which state. A batch is kept for "
    "`RESULT_TTL` seconds after its last job has ended, and so are the results of all its jobs.",
    "response_description": "Where the batch is.",
    "response_model": BatchStatus,
    "openapi_extra": {"parameters": [*_ID["parameters"], IF_NONE_MATCH]},
    "responses": {
        200: {
            "headers": ENTITY_TAG_HEADER | REQUEST_ID_HEADER,
            "links": _links("get_batch_results"),
        },
        304: {
            "description": "Nothing has changed.",
            "headers": ENTITY_TAG_HEADER | REQUEST_ID_HEADER,
        },
    }
    | problem_responses(BatchNotFoundError, BatchErasedError, ServiceUnavailableError),
}

EVENTS: dict[str, Any] = {
    "summary": "Follow a batch live",
    "description": "What `GET /batches/{batch_id}` answers as Server-Sent Events, "
    "`event: batch`, by the same rules as `GET /status/{job_id}/events`: first how it is now, then "
    "each change, until all jobs have ended.",
    "response_description": "The events.",
    "response_class": Response,
    "openapi_extra": {"parameters": [*_ID["parameters"], LAST_EVENT_ID]},
    "responses": {
        200: {
            "headers": REQUEST_ID_HEADER,
            "content": {
                "text/event-stream": {
                    "itemSchema": event_schema("batch", "BatchStatus"),
                    "example": f'id: 7\nevent: batch\ndata: {{"batch_id":"{EXAMPLE_ID}",…}}\n\n',
                }
            },
        },
        204: {
            "description": "You have the last event: nothing more will come.",
            "headers": REQUEST_ID_HEADER,
        },
    }
    | problem_responses(BatchNotFoundError, BatchErasedError, ServiceUnavailableError),
}

RESULTS: dict[str, Any] = {
    "summary": "Fetch a batch's results",
    "description": "A line of JSON for each job that has ended so far, in the order in which they "
    "ended. A batch that runs has fewer: ask again with `after` set to the number of lines that "
    "you have.",
    "response_description": "What has ended.",
    "response_class": Response,
    "openapi_extra": {
        "parameters": [
            *_ID["parameters"],
            {
                "name": "after",
                "in": "query",
                "description": "How many lines to pass over.",
                "schema": {
                    "type": "integer",
                    "minimum": 0,
                    "maximum": LARGEST_AFTER,
                    "default": 0,
                },
            },
        ]
    },
    "responses": {
        200: {
            "headers": REQUEST_ID_HEADER,
            "content": {
                "application/x-ndjson": {
                    "schema": {
                        "type": "string",
                        "description": "Lines of: " + ", ".join(BatchLine.model_fields) + ".",
                    },
                    "example": '{"job_id":"' + EXAMPLE_ID + '","custom_id":"a-17","filename":'
                    '"cat.jpg","status":"completed","predictions":[{"class_name":"tabby",'
                    '"confidence":0.61}]}\n',
                }
            },
        }
    }
    | problem_responses(
        BatchNotFoundError, BatchErasedError, InvalidRequestError, ServiceUnavailableError
    ),
}

CANCEL: dict[str, Any] = {
    "summary": "Cancel a batch",
    "description": "Jobs that wait are cancelled at once; workers stop before the next step of "
    "those that they have, unless results come first. What has ended stays, and can be read.",
    "response_description": "Every job has ended.",
    "response_model": BatchStatus,
    "openapi_extra": _ID,
    "responses": {
        200: {"headers": REQUEST_ID_HEADER},
        202: {
            "model": BatchStatus,
            "description": "Workers have some of the jobs and will stop, unless they are done "
            "before.",
            "headers": _FOLLOW_HEADERS,
        },
    }
    | problem_responses(
        CrossOriginError,
        BatchNotFoundError,
        BatchEndedError,
        BatchErasedError,
        ServiceUnavailableError,
    ),
}

ERASE: dict[str, Any] = {
    "summary": "Erase a batch",
    "description": "Erases the batch, its jobs, their images and results, whatever their states. "
    "For `RESULT_TTL` seconds their ids answer 410.",
    "response_description": "The batch is erased.",
    "response_class": Response,
    "openapi_extra": _ID,
    "responses": {204: {"headers": REQUEST_ID_HEADER}}
    | problem_responses(
        CrossOriginError, BatchNotFoundError, BatchErasedError, ServiceUnavailableError
    ),
}
