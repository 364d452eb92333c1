"""What the service answers about batches, as frozen dataclasses. Times are UTC."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Self

from classifier_client.answers import Answer, Document, Prediction, State, read_predictions
from classifier_client.errors import ProblemError

BatchState = Literal["processing", "completed", "cancelled"]


@dataclass(frozen=True, slots=True)
class BatchJob:
    """The job of one image of a batch, and what the image was called."""

    job_id: str
    filename: str | None
    custom_id: str | None


@dataclass(frozen=True, slots=True)
class Batch(Answer):
    """A batch that was accepted. ``jobs``: one for each image, in the images' order."""

    batch_id: str
    total: int
    jobs: tuple[BatchJob, ...]

    @classmethod
    def from_document(cls, document: Document) -> Self:
        return cls(
            document,
            batch_id=document["batch_id"],
            total=document["total"],
            jobs=tuple(
                BatchJob(job["job_id"], job["filename"], job["custom_id"])
                for job in document["jobs"]
            ),
        )


@dataclass(frozen=True, slots=True)
class BatchStatus(Answer):
    """Where a batch is: how many of its jobs are in each state.

    ``status``: ``completed`` once every job has ended, each in its own way; ``cancelled`` if that
    was because the batch was. ``progress``: percent of the jobs that have ended.
    """

    batch_id: str
    status: BatchState
    total: int
    pending: int
    processing: int
    completed: int
    failed: int
    cancelled: int
    progress: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def from_document(cls, document: Document) -> Self:
        return cls(
            document,
            batch_id=document["batch_id"],
            status=document["status"],
            total=document["total"],
            pending=document["pending"],
            processing=document["processing"],
            completed=document["completed"],
            failed=document["failed"],
            cancelled=document["cancelled"],
            progress=document["progress"],
            created_at=datetime.fromisoformat(document["created_at"]),
            updated_at=datetime.fromisoformat(document["updated_at"]),
        )

    @property
    def ended(self) -> int:
        """How many of its jobs have ended."""
        return self.total - self.pending - self.processing

    def has_ended(self) -> bool:
        """Whether all of its jobs have."""
        return self.status != "processing"


@dataclass(frozen=True, slots=True)
class BatchResult(Answer):
    """What came of one image of a batch: predictions, most confident first, or a problem.

    ``status``: ``erased`` where the job was, and then its names are gone too. A job that an
    operator tries again has neither predictions nor a problem until it ends.
    """

    job_id: str
    custom_id: str | None
    filename: str | None
    status: State | Literal["erased"]
    predictions: tuple[Prediction, ...]
    # Errors are never equal, but two readings of the same line are.
    problem: ProblemError | None = field(compare=False)

    @classmethod
    def from_document(cls, document: Document) -> Self:
        job_id, problem = document["job_id"], document.get("problem")
        return cls(
            document,
            job_id=job_id,
            custom_id=document["custom_id"],
            filename=document["filename"],
            status=document["status"],
            predictions=read_predictions(document.get("predictions") or ()),
            problem=problem and ProblemError(problem["status"], {**problem, "job_id": job_id}),
        )
