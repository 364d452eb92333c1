"""Who takes the images of a batch that arrives: the service, or nobody."""

from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from app.jobs.in_flight import InFlightUpload
from app.jobs.payloads import DiscardingWriter, PayloadWriter


class BatchIntake(Protocol):
    """The part of :class:`app.jobs.service.JobService` that a batch on its way in needs."""

    async def admit(self, upload_bytes: int) -> InFlightUpload:
        """Raises :class:`QueueFullError` or :class:`StorageFullError` when there is no room."""

    async def check_room(self) -> None:
        """Look once more while it arrives. Raises as :meth:`admit`."""

    def create_upload(self, job_id: UUID) -> PayloadWriter:
        """Begin the upload of a job that is not accepted yet."""


class DiscardingIntake:
    """Keeps nothing: for a batch that is only looked at.

    ``begin_upload``: that of the service, for an archive takes room until it is looked through.
    """

    def __init__(self, begin_upload: Callable[[], InFlightUpload]) -> None:
        self._begin_upload = begin_upload

    async def admit(self, upload_bytes: int) -> InFlightUpload:
        """Jobs need no room: there will be none."""
        return self._begin_upload()

    async def check_room(self) -> None:
        """Nor do they later."""

    def create_upload(self, job_id: UUID) -> PayloadWriter:
        """Nothing is stored."""
        return DiscardingWriter()
