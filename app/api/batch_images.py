"""One image of a batch on its way in: stored, or refused without the rest of the batch."""

from uuid import UUID

from app.api.image_inspection import ImageInspector
from app.core.errors import ServiceError
from app.jobs.batch import BatchImage
from app.jobs.content import ContentDigest
from app.jobs.job import render_error
from app.jobs.payloads import PayloadWriter

# As long as a name may be on the usual file systems.
_LONGEST_NAME = 255


class IncomingImage:
    """Takes an image piece by piece. ``name`` is a label and nothing else.

    Raises what :class:`PayloadWriter` raises; a fault of the image ends up in its job.
    """

    holds_images = True

    def __init__(
        self,
        job_id: UUID,
        name: str,
        upload: PayloadWriter,
        inspector: ImageInspector,
        digest: ContentDigest,
    ) -> None:
        self._job_id = job_id
        self._name = name[:_LONGEST_NAME]
        self._upload = upload
        self._inspector = inspector
        self._digest = digest
        self._error: ServiceError | None = None
        self._upload_bytes = 0

    async def write(self, data: bytes) -> None:
        """Take the next bytes."""
        # Of a refused image too: that another was refused makes another batch.
        self._digest.update(data)
        if self._error is not None:
            return
        try:
            self._inspector.feed(data)
        except ServiceError as error:
            await self.refuse(error)
            return
        await self._upload.write(data)

    async def finish(self) -> None:
        """The image is whole."""
        if self._error is not None:
            return
        try:
            self._inspector.finish()
        except ServiceError as error:
            await self.refuse(error)
            return
        self._upload_bytes = await self._upload.commit()

    async def refuse(self, error: ServiceError) -> None:
        """The image is not taken: its job will fail with this."""
        # Its traceback would hold the last piece of the upload.
        self._error = error.with_traceback(None)
        await self._upload.abort()

    async def abort(self) -> None:
        """Erase it: its batch is not accepted."""
        await self._upload.abort()

    def identify(self) -> tuple[str, str]:
        """What tells whether another is the same: its name, and the digest of its content."""
        return self._name, self._digest.value()

    def describe(self, custom_id: str, shares: bool) -> BatchImage:
        """What the ledger needs of it; ``shares``: whether others may have its answer."""
        error = self._error
        return BatchImage(
            job_id=str(self._job_id),
            upload_bytes=self._upload_bytes,
            content="" if error or not shares else self._digest.value(),
            file_name=self._name,
            custom_id=custom_id,
            error="" if error is None else _record_error(error),
        )


def _record_error(error: ServiceError) -> str:
    return render_error(error.record_code or error.code, error.text)
