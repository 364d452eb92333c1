"""What a job is: its states, its record, and what passes between ledger and worker."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class JobState(StrEnum):
    """The states of a job.

    ::

        pending ──claim──▶ processing ──finish──▶ completed | failed | cancelled
           ▲                   │
           └───lease lost──────┘          pending ──▶ failed | cancelled

    The last three are terminal: once there, a job never changes again.
    """

    PENDING = "pending"
    """Accepted and waiting; its id is in the queue."""
    PROCESSING = "processing"
    """Claimed: one worker process holds its lease and the current attempt number."""
    COMPLETED = "completed"
    """Classified; the record holds the predictions."""
    FAILED = "failed"
    """Given up; the record holds an error code and a text for the user."""
    CANCELLED = "cancelled"
    """Withdrawn by its owner."""


class Stage(StrEnum):
    """Where a job in ``processing`` is."""

    LOADING = "loading"
    DECODING = "decoding"
    CLASSIFYING = "classifying"


@dataclass(frozen=True, slots=True)
class Job:
    """A job's record as it was read. Times are Redis milliseconds; 0 where not reached."""

    id: str
    state: JobState
    owner: str
    progress: int
    stage: str
    attempts: int
    created_ms: int
    updated_ms: int
    claimed_ms: int
    finished_ms: int
    model: str
    model_version: str
    engine: str
    predictions: list[dict[str, Any]]
    error: dict[str, str]

    @classmethod
    def from_record(cls, job_id: str, record: dict[bytes, bytes]) -> "Job":
        """Read the hash that the scripts write (``HGETALL``, bytes)."""
        text = {key.decode(): value.decode() for key, value in record.items()}
        return cls(
            id=job_id,
            state=JobState(text["state"]),
            owner=text["owner"],
            progress=int(text.get("progress", 0)),
            stage=text.get("stage", ""),
            attempts=int(text.get("attempts", 0)),
            created_ms=int(text["created"]),
            updated_ms=int(text["updated"]),
            claimed_ms=int(text.get("claimed", 0)),
            finished_ms=int(text.get("finished", 0)),
            model=text.get("model", ""),
            model_version=text.get("version", ""),
            engine=text.get("engine", ""),
            predictions=json.loads(text.get("result", "[]")),
            error=json.loads(text.get("error", "{}")),
        )


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker process's right to finish one job, good while ``attempt`` is the job's latest."""

    job_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Who answers: written to the record of each job that is claimed."""

    model: str
    version: str
    engine: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a claimed job ended: ``completed`` with predictions, or ``failed`` with an error."""

    claim: Claim
    state: JobState
    body: str

    @classmethod
    def completed(cls, claim: Claim, predictions: Sequence[Mapping[str, Any]]) -> "Outcome":
        """Predictions: ``[{"class_name": str, "confidence": float}, …]``, most confident first."""
        body = json.dumps(predictions, separators=(",", ":"))
        return cls(claim, JobState.COMPLETED, body)

    @classmethod
    def failed(cls, claim: Claim, code: str, detail: str) -> "Outcome":
        """``code`` is one of :data:`app.core.errors.JOB_ERRORS`."""
        return cls(claim, JobState.FAILED, json.dumps({"code": code, "detail": detail}))
