"""Who takes the images of a batch that arrives: the service, or nobody."""

from typing import Protocol
from uuid import UUID

from app.jobs.payloads import DiscardingWriter, PayloadWriter


class BatchIntake(Protocol):
    """The part of :class:`app.jobs.service.JobService` that a batch on its way in needs."""

    async def admit(self, upload_bytes: int) -> None:
        """Raises :class:`QueueFullError` or :class:`StorageFullError` when there is no room."""

    def create_upload(self, job_id: UUID) -> PayloadWriter:
        """Begin the upload of a job that is not accepted yet."""


class DiscardingIntake:
    """Keeps nothing: for a batch that is only looked at."""

    async def admit(self, upload_bytes: int) -> None:
        """It needs no room."""

    def create_upload(self, job_id: UUID) -> PayloadWriter:
        """Nothing is stored."""
        return DiscardingWriter()
