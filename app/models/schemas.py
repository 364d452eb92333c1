"""The wire: what requests and answers look like. Field texts and examples appear in /docs."""

from datetime import datetime
from typing import Annotated, Literal, get_args
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue, PlainSerializer, WithJsonSchema

from app.core.clock import format_utc
from app.core.errors import JobNotFoundError

UtcTime = Annotated[
    datetime,
    PlainSerializer(format_utc, return_type=str, when_used="json-unless-none"),
    # The serializer's type hides it, and generated clients would get text.
    WithJsonSchema({"type": "string", "format": "date-time"}),
]

EXAMPLE_ID = "5a3bd5de-6a4c-4f4e-9d0f-0d3a3a8f4c11"
_EXAMPLE_TIME = "2026-11-23T12:00:00.125Z"
_EXAMPLE_PREDICTIONS: list[JsonValue] = [
    {"class_name": "Egyptian cat", "confidence": 0.431},
    {"class_name": "tabby", "confidence": 0.212},
    {"class_name": "tiger cat", "confidence": 0.14},
    {"class_name": "lynx", "confidence": 0.031},
    {"class_name": "carton", "confidence": 0.009},
]

Status = Literal["pending", "processing", "completed", "failed", "cancelled"]


class Message(BaseModel):
    """A document that the API answers with."""

    model_config = ConfigDict(frozen=True)


class JobAccepted(Message):
    """The answer to an upload: the job is recorded and will reach exactly one terminal state."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"job_id": EXAMPLE_ID, "status": "pending"}]}
    )

    job_id: UUID = Field(description="Ask for the job's status and result with this.")
    status: Literal["pending"] = "pending"


class JobStatus(Message):
    """Where a job is."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "job_id": EXAMPLE_ID,
                    "status": "processing",
                    "progress": 40,
                    "updated_at": _EXAMPLE_TIME,
                    "stage": "decoding",
                }
            ]
        }
    )

    job_id: UUID
    status: Status = Field(
        description="`pending` waits for a worker, `processing` is with one; `completed`, `failed` "
        "and `cancelled` never change again."
    )
    progress: int = Field(ge=0, le=100, description="Percent of the work done.")
    updated_at: UtcTime = Field(description="When the status or the progress last changed, UTC.")
    stage: str | None = Field(
        None,
        description="What a job in `processing` is doing: `loading`, `decoding`, `classifying`.",
    )


class ListedJob(JobStatus):
    """A job in a list."""

    created_at: UtcTime = Field(description="When the job was accepted, UTC.")


class JobList(Message):
    """Some of the caller's jobs."""

    jobs: list[ListedJob] = Field(description="The newest first.")
    next_cursor: str | None = Field(
        description="Ask for what follows with this; null at the end. A page may hold fewer jobs "
        "than it could, even none, and yet not be the last."
    )


class Prediction(Message):
    """One class and how sure the model is of it."""

    class_name: str
    confidence: float = Field(
        ge=0, le=1, description="Softmax probability over all classes of the model."
    )


class ModelUsed(Message):
    """The model that answered."""

    name: str
    version: str
    engine: str = Field(description="What ran it: `torch`, `onnxruntime`, `openvino`, …")


class JobResult(Message):
    """The predictions of a completed job."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "job_id": EXAMPLE_ID,
                    "predictions": _EXAMPLE_PREDICTIONS,
                    "processing_time": 0.021,
                    "created_at": _EXAMPLE_TIME,
                    "queue_time": 0.004,
                    "completed_at": "2026-11-23T12:00:00.150Z",
                    "model": {
                        "name": "efficientnet-lite0",
                        "version": "1",
                        "engine": "openvino",
                    },
                }
            ]
        }
    )

    job_id: UUID
    predictions: list[Prediction] = Field(
        description="Most confident first: five, unless `top_k` and `threshold` chose otherwise."
    )
    processing_time: float = Field(ge=0, description="Seconds from a worker's claim to completion.")
    created_at: UtcTime = Field(description="When the job was accepted, UTC.")
    queue_time: float = Field(ge=0, description="Seconds from acceptance to that claim.")
    completed_at: UtcTime = Field(description="When the job was completed, UTC.")
    model: ModelUsed


class DeadLetterError(Message):
    """What the job's sender is told."""

    code: str
    detail: str


class DeadLetterAttempt(Message):
    """An attempt that came to nothing."""

    attempt: int = Field(ge=1, description="Counted over the job's whole life.")
    worker: str = Field(description="The worker process: its worker's name and its process id.")
    started_at: UtcTime
    ended_at: UtcTime
    reason: str = Field(description="Why it came to nothing.")


class DeadLetter(Message):
    """A job that was given up, kept with its upload."""

    job_id: UUID
    reason: Literal["retries_exhausted", "worker_lost", "timed_out", "unprocessable"] = Field(
        description="`retries_exhausted`: what should have passed did not, however often it was "
        "tried. `worker_lost`: its workers died or went silent. `timed_out`: the same, and the "
        "last one took too long. `unprocessable`: the engine refused the image."
    )
    died_at: UtcTime = Field(description="When the job was given up, UTC.")
    created_at: UtcTime = Field(description="When the job was accepted, UTC.")
    error: DeadLetterError
    upload_bytes: int = Field(ge=0, description="Size of the upload, in bytes.")
    attempts: list[DeadLetterAttempt] = Field(description="What was tried, oldest first.")


class DeadLetterList(Message):
    """Some of the dead letters."""

    total: int = Field(ge=0, description="How many there are.")
    dead_letters: list[DeadLetter] = Field(description="The latest death first.")


class DeadLettersRetried(Message):
    """Dead letters are pending jobs again."""

    retried: int = Field(ge=0, description="How many.")


class DeadLettersPurged(Message):
    """Dead letters are erased, their uploads too."""

    purged: int = Field(ge=0, description="How many.")


_EXAMPLE_WEBHOOK: dict[str, JsonValue] = {
    "webhook_id": "8d2e1f5c-7b0a-4c55-9a86-0a8b3c6e2f41",
    "url": "https://example.com/hooks/images",
    "events": ["job.completed", "job.failed"],
    "enabled": True,
    "created_at": _EXAMPLE_TIME,
}
EXAMPLE_DELIVERY_ID = "msg_3b0c44298fc1c149afbf4c8996fb9242"

EventName = Literal[
    "job.completed", "job.failed", "job.cancelled", "batch.completed", "batch.cancelled"
]
ALL_EVENTS: tuple[EventName, ...] = get_args(EventName)


class WebhookRequest(BaseModel):
    """What to register."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"url": "https://example.com/hooks/images"}]},
    )

    url: str = Field(
        max_length=2000,
        # Documented alone: the check of addresses refuses the rest in words.
        json_schema_extra={"pattern": "^[Hh][Tt][Tt][Pp][Ss]?://"},
        description="Where to POST events: `http://` or `https://`, at a public address, without "
        "a user name or password.",
    )
    events: list[EventName] = Field(
        list(ALL_EVENTS),
        min_length=1,
        description="What to tell of; everything by default: each job, those of batches "
        "included, and each batch.",
    )


class Webhook(Message):
    """Where events go."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE_WEBHOOK]})

    webhook_id: UUID
    url: str
    events: list[EventName]
    enabled: bool = Field(
        description="`false` once the receiver has answered 410 Gone: it gets nothing any more. "
        "Delete it, and register it anew if that was a mistake."
    )
    created_at: UtcTime
    dropped: int = Field(
        0, ge=0, description="Events that it missed because `WEBHOOK_MAX_PENDING` waited already."
    )


class WebhookCreated(Webhook):
    """A new webhook with its secret, which is never shown again."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                _EXAMPLE_WEBHOOK | {"secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDwBPzsVzKZZE="}
            ]
        }
    )

    secret: str = Field(description="What deliveries are signed with, and receivers check.")


class WebhookSecret(Message):
    """A webhook's new secret, which is never shown again."""

    webhook_id: UUID
    secret: str


class WebhookList(Message):
    """All webhooks."""

    webhooks: list[Webhook] = Field(description="The oldest first.")


class DeliveryAttempt(Message):
    """One request to the receiver."""

    attempt: int = Field(ge=1, description="Counted over the delivery's whole life.")
    started_at: UtcTime
    duration_ms: int = Field(ge=0)
    status_code: int | None = Field(None, description="What the receiver answered, if it did.")
    error: str | None = Field(
        None,
        description="Why there was no answer, or none that counts: `timed-out`, "
        "`name-not-resolved`, `address-refused`, `port-refused`, `connection-failed`, "
        "`redirect-refused`, `unexpected-error`.",
    )


class Delivery(Message):
    """One event for one webhook."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "delivery_id": EXAMPLE_DELIVERY_ID,
                    "webhook_id": "8d2e1f5c-7b0a-4c55-9a86-0a8b3c6e2f41",
                    "type": "job.completed",
                    "job_id": EXAMPLE_ID,
                    "status": "delivered",
                    "created_at": _EXAMPLE_TIME,
                    "ended_at": _EXAMPLE_TIME,
                    "attempts": [
                        {
                            "attempt": 1,
                            "started_at": _EXAMPLE_TIME,
                            "duration_ms": 12,
                            "status_code": 204,
                        }
                    ],
                }
            ]
        }
    )

    delivery_id: str = Field(description="The header `webhook-id` of every attempt.")
    webhook_id: UUID
    type: EventName
    job_id: UUID | None = Field(None, description="The job that has ended; null for a batch.")
    batch_id: UUID | None = Field(None, description="The batch that has ended; null for a job.")
    status: Literal["pending", "delivered", "failed"]
    reason: str | None = Field(
        None, description="Why it has failed: `attempts-exhausted` or `webhook-disabled`."
    )
    created_at: UtcTime
    next_attempt_at: UtcTime | None = Field(None, description="When the next attempt is due.")
    ended_at: UtcTime | None = None
    attempts: list[DeliveryAttempt] = Field(description="The latest, oldest first.")


class DeliveryList(Message):
    """Some of the deliveries."""

    deliveries: list[Delivery] = Field(description="The newest first.")
    next_cursor: str | None = Field(description="Asks for the ones after these; null at the end.")


class WorkerHealth(Message):
    """A worker by its last heartbeat."""

    name: str
    model: str
    engine: str
    processes: int


class CacheHealth(Message):
    """The result cache, since Redis was empty."""

    answered: int = Field(ge=0, description="Uploads whose answer was known.")
    joined: int = Field(ge=0, description="Uploads whose image was under way already.")
    classified: int = Field(ge=0, description="Uploads that had to be classified.")
    entries: int = Field(ge=0, description="Answers that can be found again.")


class Health(Message):
    """The state of the service."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "status": "healthy",
                    "redis_connected": True,
                    "workers_available": 1,
                    "timestamp": _EXAMPLE_TIME,
                    "reasons": [],
                    "queue_length": 0,
                    "dead_letters": 0,
                    "cache": {"answered": 3, "joined": 1, "classified": 20, "entries": 20},
                    "workers": [
                        {
                            "name": "celery@host/4711",
                            "model": "efficientnet-lite0",
                            "engine": "openvino",
                            "processes": 2,
                        }
                    ],
                }
            ]
        }
    )

    status: Literal["healthy", "degraded", "unhealthy"] = Field(
        description="`degraded`: jobs are accepted but something needs attention, see `reasons`. "
        "`unhealthy`: no job can be accepted."
    )
    redis_connected: bool
    workers_available: int = Field(ge=0, description="Workers whose heartbeat is fresh.")
    timestamp: UtcTime
    reasons: list[str] = Field(description="Why the status is not `healthy`, in words.")
    queue_length: int | None = Field(None, description="Jobs that wait; null if unknown.")
    dead_letters: int | None = Field(
        None, description="Jobs that were given up and are kept to be looked at; null if unknown."
    )
    cache: CacheHealth | None = Field(
        None, description="What the result cache saved; null while it is off."
    )
    workers: list[WorkerHealth] = []


class Live(Message):
    """The process runs."""

    status: Literal["live"] = "live"


class Ready(Message):
    """The process can accept jobs."""

    status: Literal["ready"] = "ready"


class Problem(Message):
    """What went wrong (RFC 9457). `code` is stable; compare that, not the texts."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "/problems/job-not-found",
                    "title": "Job not found",
                    "status": 404,
                    "detail": JobNotFoundError.detail,
                    "code": "job-not-found",
                    "request_id": "0b6c8f0e4f5f4b0c9d0a3f6f5b1f8e7d",
                }
            ]
        }
    )

    type: str = Field(
        description="Stable identifier of this kind of problem, whatever prefix the caller uses; "
        "`GET` explains it at this path below the service's root."
    )
    title: str
    status: int
    detail: str = Field(description="What happened and what to do, for a person.")
    code: str = Field(description="Stable name of this kind of problem, for programs.")
    request_id: str = Field(description="The same as in X-Request-ID and in the service's log.")
    job_id: UUID | None = Field(None, description="The job in question, where there is one.")
    batch_id: UUID | None = Field(None, description="The batch in question, where there is one.")
