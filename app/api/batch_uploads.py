"""Receiving a batch: images as parts of a form or in a zip file, and what the sender calls them."""

import asyncio
import contextlib
import json
from collections import Counter
from types import TracebackType
from typing import Self
from uuid import uuid4
from zipfile import ZipInfo

from multipart import MultipartError, MultipartSegment, PushMultipartParser
from starlette.requests import ClientDisconnect, Request

from app.api.archives import Archive, open_archive, read_piece
from app.api.batch_images import IncomingImage
from app.api.batch_intakes import BatchIntake
from app.api.batch_parts import CustomId, Nowhere, Sink, Spool
from app.api.bodies import read_body
from app.api.image_inspection import ImageInspector, create_size_error
from app.api.uploads import FIELD, MOST_UNREAD_PARTS, read_boundary, read_length
from app.core.config import Settings
from app.core.errors import (
    BatchTooLargeError,
    InvalidRequestError,
    MalformedUploadError,
    MissingImagesError,
    ServiceError,
    SlowUploadError,
    TooManyImagesError,
    UnreadPartsError,
)
from app.core.image_errors import MalformedImageError
from app.jobs.batch import MOST_IMAGES, BatchImage
from app.jobs.content import ContentDigest
from app.jobs.idempotency import create_batch_fingerprint
from app.jobs.in_flight import create_unbounded
from app.jobs.payloads import PIECE_BYTES

ARCHIVE_FIELD = "archive"
CUSTOM_ID_FIELD = "custom_id"

# All that is no image: two thousand parts' boundaries and headers, custom_ids, and small fields
# that nobody reads.
_OVERHEAD_BYTES = 4 * 1024 * 1024

# What may arrive between two looks whether there is room.
_LOOK_BYTES = 8 * 1024 * 1024

# A chunk may hold a thousand small parts, and many such batches may arrive at once: after so many,
# half a millisecond's work, others' requests have their turn.
_PARTS_IN_A_ROW = 16

# For receiving and unpacking, on slow disks too: uploads without a job are erased after an hour, by
# whoever sweeps.
_LONGEST_SECONDS = 3300.0


class IncomingBatch:
    """A batch on its way in. Left without :meth:`keep`, its uploads are erased."""

    def __init__(
        self, intake: BatchIntake, settings: Settings, owner: str, options: str, shares: bool
    ) -> None:
        """``options``, ``shares``: how images share their answers, as in ``POST /classify``."""
        self._intake = intake
        self._settings = settings
        self._owner = owner
        self._options = options
        self._shares = shares
        self._images: list[IncomingImage] = []
        self._custom_ids: list[str] = []
        self._spool: Spool | None = None
        self._unread_parts = 0
        self._is_kept = False
        # Until the ledger counts them, or they are erased.
        self._in_flight = create_unbounded()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._spool is not None:
            self._spool.file.close()
        if not self._is_kept:
            for image in self._images:
                with contextlib.suppress(ServiceError):
                    await image.abort()
        self._in_flight.release()

    def keep(self) -> None:
        """The batch is accepted, or may be: its uploads are the ledger's."""
        self._is_kept = True

    async def receive(self, request: Request) -> list[BatchImage]:
        """Take the whole request. Raises the 4xx errors of :mod:`app.core.errors`.

        An image that is refused is among the rest, with its error.
        """
        length = read_length(request)
        self._check_size(length)
        try:
            self._in_flight = await self._intake.admit(max(length - _OVERHEAD_BYTES, 0))
            async with asyncio.timeout(_LONGEST_SECONDS):
                await self._receive_parts(request)
                if self._spool is not None:
                    await self._unpack(self._spool)
        except TimeoutError:
            raise SlowUploadError() from None
        except (MultipartError, ClientDisconnect) as error:
            raise MalformedUploadError() from error
        if not self._images:
            raise MissingImagesError()
        described: list[BatchImage] = []
        for image, custom_id in zip(self._images, self._check_custom_ids(), strict=True):
            if len(described) % _PARTS_IN_A_ROW == 0:
                await asyncio.sleep(0)
            described.append(image.describe(custom_id, self._shares))
        return described

    def fingerprint(self) -> str:
        """What tells whether another batch is the same, once this one is received.

        The images with their names and order, your names for them, the owner, the options, and
        whether they came in an archive.
        """
        digest = ContentDigest(self._owner, self._options)
        images = [image.identify() for image in self._images]
        digest.update(json.dumps([self._spool is not None, images, self._custom_ids]).encode())
        return create_batch_fingerprint(digest.value())

    def _check_size(self, body_bytes: int) -> None:
        most = self._settings.queue.max_bytes
        if body_bytes > most + _OVERHEAD_BYTES:
            raise BatchTooLargeError(
                f"The images of a batch may have {most:,} bytes together at most. Send several "
                "batches."
            )

    async def _receive_parts(self, request: Request) -> None:
        parser = PushMultipartParser(read_boundary(request))
        body_bytes = looked_at = image_bytes = parts = 0
        sink: Sink = Nowhere()
        async for chunk in read_body(request, self._settings.http.batch_seconds):
            body_bytes += len(chunk)
            self._check_size(body_bytes)
            if body_bytes - looked_at > _LOOK_BYTES:
                # Others fill disk and queue as well, and a body may not announce its length.
                await self._intake.check_room()
                looked_at = body_bytes
            for event in parser.parse(chunk):
                if isinstance(event, MultipartSegment):
                    parts += 1
                    if parts % _PARTS_IN_A_ROW == 0:
                        await asyncio.sleep(0)
                    sink = await self._open(event)
                elif event is None:
                    await sink.finish()
                else:
                    if sink.holds_images:
                        image_bytes += len(event)
                        # Others may make it wait; what never fits is refused by what it is.
                        self._in_flight.reach(min(image_bytes, self._settings.queue.max_bytes))
                    await sink.write(event)
            if body_bytes - image_bytes > _OVERHEAD_BYTES:
                raise UnreadPartsError() if image_bytes else MissingImagesError()
        parser.close()

    async def _open(self, part: MultipartSegment) -> Sink:
        if part.name in (FIELD, ARCHIVE_FIELD) and self._spool is not None:
            raise InvalidRequestError("Send images, or one archive of images, not both.")
        if part.name == FIELD:
            return await self._begin_image(part.filename or "")
        if part.name == CUSTOM_ID_FIELD:
            if len(self._custom_ids) == MOST_IMAGES:
                raise TooManyImagesError(f"A batch may have {MOST_IMAGES:,} images at most.")
            return CustomId(self._custom_ids)
        if part.name == ARCHIVE_FIELD:
            if self._images:
                raise InvalidRequestError("Send images, or one archive of images, not both.")
            self._spool = Spool(self._settings.data_dir / "spool")
            return self._spool
        self._unread_parts += 1
        if self._unread_parts > MOST_UNREAD_PARTS:
            raise UnreadPartsError()
        return Nowhere()

    async def _begin_image(self, name: str) -> IncomingImage:
        most = min(MOST_IMAGES, self._settings.queue.max_jobs)
        if len(self._images) == most:
            raise TooManyImagesError(f"A batch may have {most:,} images at most.")
        # Much may have come from others since the batch began.
        await self._intake.check_room()
        job_id = uuid4()
        image = IncomingImage(
            job_id,
            name,
            self._intake.create_upload(job_id),
            ImageInspector(self._settings.limits),
            ContentDigest(self._owner, self._options),
        )
        self._images.append(image)
        return image

    async def _unpack(self, spool: Spool) -> None:
        queue = self._settings.queue
        opened = open_archive(
            spool.file, spool.size_bytes, min(MOST_IMAGES, queue.max_jobs), queue.max_bytes
        )
        # In a thread, as all that reads from it: lists and inflates what a stranger has packed.
        archive = await asyncio.to_thread(opened.__enter__)
        with contextlib.ExitStack() as stack:
            stack.push(opened)
            unpacked_bytes = 0
            for entry in archive.entries:
                unpacked_bytes += entry.file_size
                # The archive itself is counted already, and goes before its images are worked on.
                self._in_flight.reach(unpacked_bytes)
                await self._unpack_entry(archive, entry)

    async def _unpack_entry(self, archive: Archive, entry: ZipInfo) -> None:
        image = await self._begin_image(entry.filename)
        if entry.file_size > self._settings.limits.file_size:
            await image.refuse(create_size_error(self._settings.limits))
            # It is not unpacked: its checksum tells whether another is the same.
            await image.write(entry.CRC.to_bytes(4, "big"))
            return
        try:
            with await asyncio.to_thread(archive.open, entry) as content:
                while data := await asyncio.to_thread(read_piece, content, PIECE_BYTES):
                    await image.write(data)
        except MalformedImageError as error:
            await image.refuse(error)
            return
        await image.finish()

    def _check_custom_ids(self) -> list[str]:
        """One for each image; empty where the sender gave none."""
        if not self._custom_ids:
            return [""] * len(self._images)
        if len(self._custom_ids) != len(self._images):
            raise InvalidRequestError(
                f"There are {len(self._custom_ids):,} fields custom_id for {len(self._images):,} "
                "images. Send one for each image, in the same order, or none."
            )
        (custom_id, count), *_ = Counter(self._custom_ids).most_common(1)
        if count > 1:
            raise InvalidRequestError(f"The custom_id {custom_id!r} is there {count} times.")
        return self._custom_ids
