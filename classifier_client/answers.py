"""What the service answers, as frozen dataclasses. Times are UTC.

Each keeps the ``document`` that it was made from, for members that only a newer service knows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal, Self

State = Literal["pending", "processing", "completed", "failed", "cancelled"]
Document = Mapping[str, Any]

_UNFINISHED = frozenset({"pending", "processing"})


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the service."""

    document: Document = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Job(Answer):
    """A job that was accepted: it will reach exactly one terminal state."""

    job_id: str

    @classmethod
    def from_document(cls, document: Document) -> Self:
        return cls(document, job_id=document["job_id"])


@dataclass(frozen=True, slots=True)
class Status(Answer):
    """Where a job is. ``progress``: percent of the work done. ``stage``: what it is doing."""

    job_id: str
    status: State
    progress: int
    updated_at: datetime
    stage: str | None

    @classmethod
    def from_document(cls, document: Document) -> Self:
        return cls(
            document,
            job_id=document["job_id"],
            status=document["status"],
            progress=document["progress"],
            updated_at=datetime.fromisoformat(document["updated_at"]),
            stage=document.get("stage"),
        )

    def has_ended(self) -> bool:
        """Whether it will never change again."""
        return self.status not in _UNFINISHED


@dataclass(frozen=True, slots=True)
class ListedJob(Status):
    """A job in a list: where it is, and when it was accepted."""

    created_at: datetime

    @classmethod
    def from_document(cls, document: Document) -> Self:
        status = Status.from_document(document)
        created_at = datetime.fromisoformat(document["created_at"])
        return cls(
            **{item.name: getattr(status, item.name) for item in fields(status)},
            created_at=created_at,
        )


@dataclass(frozen=True, slots=True)
class JobPage(Answer):
    """Some jobs, and where those after them are: ``None`` behind the last."""

    jobs: tuple[ListedJob, ...]
    next_cursor: str | None

    @classmethod
    def from_document(cls, document: Document) -> Self:
        jobs = tuple(ListedJob.from_document(job) for job in document["jobs"])
        return cls(document, jobs, document["next_cursor"])


@dataclass(frozen=True, slots=True)
class Prediction:
    """One class and how sure the model is of it, 0 to 1."""

    class_name: str
    confidence: float


def read_predictions(documents: Iterable[Document]) -> tuple[Prediction, ...]:
    """In the service's order, the most confident first."""
    return tuple(Prediction(item["class_name"], item["confidence"]) for item in documents)


@dataclass(frozen=True, slots=True)
class Model:
    """The model that answered, and the engine that ran it."""

    name: str
    version: str
    engine: str


@dataclass(frozen=True, slots=True)
class Result(Answer):
    """The predictions of a completed job, most confident first.

    ``processing_time``: seconds from a worker's claim to completion; ``queue_time``: seconds from
    acceptance to that claim.
    """

    job_id: str
    predictions: tuple[Prediction, ...]
    processing_time: float
    queue_time: float
    created_at: datetime
    completed_at: datetime
    model: Model

    @classmethod
    def from_document(cls, document: Document) -> Self:
        model = document["model"]
        return cls(
            document,
            job_id=document["job_id"],
            predictions=read_predictions(document["predictions"]),
            processing_time=document["processing_time"],
            queue_time=document["queue_time"],
            created_at=datetime.fromisoformat(document["created_at"]),
            completed_at=datetime.fromisoformat(document["completed_at"]),
            model=Model(model["name"], model["version"], model["engine"]),
        )


@dataclass(frozen=True, slots=True)
class Health(Answer):
    """The state of the service: ``healthy``, ``degraded`` or ``unhealthy``, and why."""

    status: str
    redis_connected: bool
    workers_available: int
    reasons: tuple[str, ...]

    @classmethod
    def from_document(cls, document: Document) -> Self:
        return cls(
            document,
            status=document["status"],
            redis_connected=document["redis_connected"],
            workers_available=document["workers_available"],
            reasons=tuple(document["reasons"]),
        )
