"""The wire's documents about batches."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from app.models.schemas import Message, Prediction, Status, UtcTime


class BatchJob(Message):
    """A job of a batch that was accepted."""

    job_id: UUID
    filename: str | None = Field(description="As the upload or the archive called it.")
    custom_id: str | None = Field(description="As you called it.")


class BatchAccepted(Message):
    """The answer to a batch: every image has a job, those that were refused a failed one."""

    batch_id: UUID = Field(description="Ask for the batch's status and results with this.")
    status: Literal["processing"] = "processing"
    total: int = Field(ge=1, description="How many images the batch has.")
    jobs: list[BatchJob] = Field(description="In the order in which the images came.")


class BatchStatus(Message):
    """Where a batch is."""

    batch_id: UUID
    status: Literal["processing", "completed", "cancelled"] = Field(
        description="`completed`: every job has ended, each in its own way. `cancelled`: the same, "
        "after the batch was cancelled."
    )
    total: int = Field(ge=1, description="How many jobs it has.")
    pending: int = Field(ge=0, description="How many of them wait.")
    processing: int = Field(ge=0, description="How many are with a worker.")
    completed: int = Field(ge=0, description="How many have predictions.")
    failed: int = Field(ge=0, description="How many have none, with a reason.")
    cancelled: int = Field(ge=0, description="How many were cancelled.")
    progress: int = Field(ge=0, le=100, description="Percent of the jobs that have ended.")
    created_at: UtcTime = Field(description="When the batch was accepted, UTC.")
    updated_at: UtcTime = Field(description="When any of this last changed, UTC.")


class BatchProblem(Message):
    """Why a job has no predictions, as `GET /result` would say it."""

    type: str
    title: str
    status: int
    detail: str
    code: str


class BatchLine(Message):
    """One line of a batch's results: a job that has ended."""

    job_id: UUID
    custom_id: str | None
    filename: str | None
    status: Status | Literal["erased"]
    predictions: list[Prediction] | None = Field(
        None, description="Most confident first; only of a completed job."
    )
    problem: BatchProblem | None = Field(None, description="Only of one that has none.")
