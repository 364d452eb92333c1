"""What a job is: its states, its record, and what passes between ledger and worker."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any

from app.jobs.answer_options import DEFAULT_OPTIONS, AnswerOptions


class JobState(StrEnum):
    """The states of a job.

    ::

        pending ──claim──▶ processing ──finish──▶ completed | failed | cancelled
           ▲                   │
           └──claim lost, or───┘          pending ──deadline──▶ failed
              to try again                pending ──▶ cancelled, at once

    The last three are terminal: once there, a job never changes again. The one exception is made
    by an operator's hand: a dead letter (failed, and kept) that is retried is pending again.
    """

    PENDING = "pending"
    """Accepted and waiting: for a worker, another try, or a job of the same content."""
    PROCESSING = "processing"
    """Claimed: one worker process holds its lease and the current attempt number."""
    COMPLETED = "completed"
    """Classified; the record holds the predictions."""
    FAILED = "failed"
    """Given up; the record holds an error code and a text for the user."""
    CANCELLED = "cancelled"
    """Withdrawn by its owner."""


TERMINAL_STATES = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})


class DeathReason(StrEnum):
    """Why a job was given up and is kept as a dead letter."""

    RETRIES_EXHAUSTED = "retries_exhausted"
    """What should have passed did not, however often it was tried."""
    WORKER_LOST = "worker_lost"
    """Its workers died or went silent, one after another."""
    TIMED_OUT = "timed_out"
    """The same, and the last one was stopped because it took too long."""
    UNPROCESSABLE = "unprocessable"
    """The engine refused this very image, which decodes."""


class Priority(StrEnum):
    """Which jobs go first."""

    INTERACTIVE = "interactive"
    """Somebody waits for it: before all bulk jobs."""
    BULK = "bulk"
    """It has time: every eighth batch, or whenever nothing else waits."""


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
    predictions_json: str
    """As the worker wrote them: ``[{"class_name": str, "confidence": float}, …]``, or empty."""
    error: dict[str, str]
    upload_bytes: int
    death_reason: str
    trail: list[dict[str, Any]]
    """Attempts that came to nothing: ``attempt``, ``worker``, ``started_ms``, ``ended_ms``,
    ``reason``."""
    file_name: str = ""
    """What the sender called the file, for jobs of a batch."""
    custom_id: str = ""
    """What the sender calls the job, for jobs of a batch."""

    @classmethod
    def from_record(cls, job_id: str, record: Mapping[bytes, bytes]) -> "Job":
        """Read the hash that the scripts write, as ``HGETALL`` gives it."""
        return cls.from_fields(
            job_id, {name.decode(): value.decode() for name, value in record.items()}
        )

    @classmethod
    def from_fields(cls, job_id: str, record: Mapping[str, str]) -> "Job":
        """Read the same once it is text."""
        find = record.get
        return cls(
            id=job_id,
            state=JobState(record["state"]),
            owner=record["owner"],
            progress=int(find("progress", 0)),
            stage=find("stage", ""),
            attempts=int(find("attempts", 0)),
            created_ms=int(record["created"]),
            updated_ms=int(record["updated"]),
            claimed_ms=int(find("claimed", 0)),
            finished_ms=int(find("finished", 0)),
            model=find("model", ""),
            model_version=find("version", ""),
            engine=find("engine", ""),
            predictions_json=find("result", ""),
            error=json.loads(record["error"]) if "error" in record else {},
            upload_bytes=int(find("size", 0)),
            death_reason=find("dead", ""),
            trail=json.loads(f"[{record['trail']}]") if "trail" in record else [],
            file_name=find("name", ""),
            custom_id=find("label", ""),
        )

    @property
    def predictions(self) -> list[dict[str, Any]]:
        """Most confident first; empty unless the job is completed."""
        predictions: list[dict[str, Any]] = json.loads(self.predictions_json or "[]")
        return predictions

    @property
    def version(self) -> str:
        """Another one whenever what is shown of the job is another; the same in every process."""
        return f"{self.updated_ms}-{self.attempts}-{self.progress}-{self.state}"

    @property
    def position(self) -> tuple[int, int, int]:
        """Where it is on its way, to tell which of two records is newer: Redis's clock, which may
        be set back, could not. Only an operator who retries a dead letter makes it smaller."""
        if self.has_ended():
            return self.attempts, 2, 0
        if self.state is JobState.PROCESSING:
            return self.attempts, 0, self.progress
        # The attempt that a pending job's record counts is behind it.
        return self.attempts, 1, 0

    def has_ended(self) -> bool:
        """Whether its state is terminal."""
        return self.state in TERMINAL_STATES


@dataclass(frozen=True, slots=True)
class Submission:
    """What the ledger needs to accept a job.

    ``patience_ms``: until its deadline; 0 for none. ``is_watched``: the sender wants to hear of its
    end. ``content``: the digest by which jobs share their answer, empty if it shall not;
    ``is_fresh``: it takes none, but may give one. ``key_name``: of the idempotency key that is to
    be bound to the job, if any; ``fingerprint``: tells what was sent under it.
    """

    job_id: str
    owner: str
    upload_bytes: int
    patience_ms: int = 0
    is_watched: bool = False
    priority: Priority = Priority.INTERACTIVE
    content: str = ""
    is_fresh: bool = False
    options: AnswerOptions = DEFAULT_OPTIONS
    key_name: str = ""
    fingerprint: str = ""


class Reception(IntEnum):
    """What became of a submission."""

    REFUSED = 0
    """There was no room."""
    ACCEPTED = 1
    """It waits for a worker."""
    ANSWERED = 2
    """It is completed: the same content was classified before."""
    JOINED = 3
    """It ends with another job of the same content, or takes its own turn if that one fails."""
    TAKEN = 4
    """Another job or batch has its idempotency key by now."""
    CROWDED = 5
    """Its owner keeps as many jobs as allowed."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """The work that waits: jobs, bytes of uploads, and how many jobs end per second meanwhile.

    ``drain_rate`` is ``None`` until it was measured. ``free_bytes``: of Redis's memory, for new
    jobs; the rest is for the ends of those there are. ``relief_seconds``: until a record expires,
    where that is what has to happen before more are accepted.
    """

    jobs: int
    upload_bytes: int
    drain_rate: float | None
    free_bytes: float = math.inf
    relief_seconds: float | None = None

    @property
    def memory_full(self) -> bool:
        """Whether Redis takes no more jobs."""
        return self.free_bytes <= 0


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker process's right to finish one job, good while ``attempt`` is the job's latest.

    ``patience_ms``: how long after the claim the deadline is; ``None`` without one. ``retries``:
    how often the job was put off so far. ``options``: how its answer shall look. ``is_suspect``:
    a worker was lost over it, or over one of its batch.
    """

    job_id: str
    attempt: int
    patience_ms: int | None = None
    retries: int = 0
    options: AnswerOptions = DEFAULT_OPTIONS
    is_suspect: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """Who answers: written to the record of each job that is claimed.

    ``identity`` tells models whose answers may differ; empty: its answers are not kept for others.
    """

    model: str
    version: str
    engine: str
    identity: str = ""


class Verdict(StrEnum):
    """What came of a claim."""

    COMPLETED = "completed"
    FAILED = "failed"
    """For good, and nothing to look into: the image is at fault, or its time is up."""
    UNPROCESSABLE = "unprocessable"
    """For good, and worth a look: a dead letter."""
    CANCELLED = "cancelled"
    """Left, since its owner has asked for that."""
    RETRY = "retry"
    """Not now; perhaps later."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a claim, as the ledger gets it."""

    claim: Claim
    verdict: Verdict
    body: str
    reason: str = ""
    delay_ms: int = 0

    @classmethod
    def completed(cls, claim: Claim, predictions: Sequence[Mapping[str, Any]]) -> "Outcome":
        """Predictions: ``[{"class_name": str, "confidence": float}, …]``, most confident first."""
        body = json.dumps(predictions, separators=(",", ":"))
        return cls(claim, Verdict.COMPLETED, body)

    @classmethod
    def failed(cls, claim: Claim, code: str, detail: str) -> "Outcome":
        """``code`` is one of :data:`app.core.job_errors.JOB_ERRORS`."""
        return cls(claim, Verdict.FAILED, render_error(code, detail))

    @classmethod
    def unprocessable(cls, claim: Claim, code: str, detail: str, reason: str) -> "Outcome":
        """``reason`` is for the operator who looks into it."""
        return cls(claim, Verdict.UNPROCESSABLE, render_error(code, detail), reason)

    @classmethod
    def cancelled(cls, claim: Claim) -> "Outcome":
        """Its owner has asked for that; if the job is somebody else's by now, this says nothing."""
        return cls(claim, Verdict.CANCELLED, "")

    @classmethod
    def retry(
        cls, claim: Claim, code: str, detail: str, *, reason: str, delay_ms: int
    ) -> "Outcome":
        """Again after ``delay_ms``; ``code`` and ``detail`` are for when that was so too often."""
        return cls(claim, Verdict.RETRY, render_error(code, detail), reason, delay_ms)


def render_error(code: str, detail: str) -> str:
    """An error as a job's record holds it."""
    return json.dumps({"code": code, "detail": detail})
