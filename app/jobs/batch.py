"""What a batch is: many images that are submitted together and followed as one."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from app.jobs.job import JobState

MOST_IMAGES = 1000
"""Redis runs nothing else while it accepts a batch: up to 40 ms for so many (docs/api.md)."""


class BatchState(StrEnum):
    """The states of a batch, told by those of its jobs."""

    PROCESSING = "processing"
    """Some of its jobs have not ended."""
    COMPLETED = "completed"
    """All have, each in its own way."""
    CANCELLED = "cancelled"
    """All have, and some because the batch was cancelled."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch's record as it was read. Times are Redis milliseconds."""

    id: str
    owner: str
    total: int
    counts: Mapping[JobState, int]
    """How many of its jobs are in each state."""
    is_withdrawn: bool
    created_ms: int
    updated_ms: int
    changes: int
    """How often it has changed: of two records the one with more is newer."""

    @classmethod
    def from_record(cls, batch_id: str, record: Mapping[bytes, bytes]) -> "Batch":
        """Read the hash that the scripts write, as ``HGETALL`` gives it."""
        return cls.from_fields(
            batch_id, {name.decode(): value.decode() for name, value in record.items()}
        )

    @classmethod
    def from_fields(cls, batch_id: str, fields: Mapping[str, str]) -> "Batch":
        """Read the same once it is text."""
        return cls(
            id=batch_id,
            owner=fields["owner"],
            total=int(fields["total"]),
            counts={state: int(fields.get(state, 0)) for state in JobState},
            is_withdrawn="cancel" in fields,
            created_ms=int(fields["created"]),
            updated_ms=int(fields["updated"]),
            changes=int(fields["changes"]),
        )

    @property
    def left(self) -> int:
        """How many of its jobs have not ended."""
        return self.counts[JobState.PENDING] + self.counts[JobState.PROCESSING]

    @property
    def progress(self) -> int:
        """Percent of its jobs that have ended."""
        return 100 * (self.total - self.left) // self.total

    @property
    def state(self) -> BatchState:
        """What its jobs make of it."""
        if self.left:
            return BatchState.PROCESSING
        if self.is_withdrawn and self.counts[JobState.CANCELLED]:
            return BatchState.CANCELLED
        return BatchState.COMPLETED

    def has_ended(self) -> bool:
        """Whether all of its jobs have."""
        return not self.left


@dataclass(frozen=True, slots=True)
class BatchImage:
    """One image of a batch that is to be accepted.

    ``content`` as in :class:`app.jobs.job.Submission`. ``error``: why it was refused on its way, as
    :func:`app.jobs.job.render_error` writes it; empty if it was not.
    """

    job_id: str
    upload_bytes: int
    content: str
    file_name: str
    custom_id: str
    error: str
