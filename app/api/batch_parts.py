"""Where the parts of a batch's form go, but for its images."""

import errno
import logging
import tempfile
from pathlib import Path
from typing import BinaryIO, Protocol

from app.core.errors import (
    InvalidRequestError,
    ServiceError,
    ServiceUnavailableError,
    StorageFullError,
)

logger = logging.getLogger(__name__)

LONGEST_CUSTOM_ID = 128

_LONGEST_CHARACTER_BYTES = 4  # in UTF-8


class Sink(Protocol):
    """The destination of a part of the form. ``holds_images``: whether parts there are images."""

    holds_images: bool

    async def write(self, data: bytes) -> None:
        """Take the next bytes."""

    async def finish(self) -> None:
        """The part is whole."""


class Nowhere:
    """Parts with other names."""

    holds_images = False

    async def write(self, data: bytes) -> None:
        """Nobody reads this."""

    async def finish(self) -> None:
        """Nobody waits for this."""


class CustomId:
    """What the sender calls an image; goes to the end of ``custom_ids``.

    Raises :class:`InvalidRequestError` for one that is empty, too long or no text.
    """

    holds_images = False

    def __init__(self, custom_ids: list[str]) -> None:
        self._custom_ids = custom_ids
        self._text = bytearray()

    async def write(self, data: bytes) -> None:
        self._text += data
        if len(self._text) > LONGEST_CUSTOM_ID * _LONGEST_CHARACTER_BYTES:
            raise _create_id_error()

    async def finish(self) -> None:
        try:
            text = self._text.decode()
        except UnicodeDecodeError:
            text = ""
        if not 0 < len(text) <= LONGEST_CUSTOM_ID:
            raise _create_id_error()
        self._custom_ids.append(text)


def _create_id_error() -> InvalidRequestError:
    return InvalidRequestError(
        f"Each custom_id must have 1 to {LONGEST_CUSTOM_ID} characters of UTF-8."
    )


class Spool:
    """An archive that waits on the disk until it is whole: its contents are listed at its end.

    Raises :class:`StorageFullError` or :class:`ServiceUnavailableError` when it can't.
    """

    holds_images = True

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Without a name: it is gone with the process.
            self.file: BinaryIO = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        except OSError as error:
            raise _storage_error(error) from error
        self.size_bytes = 0

    async def write(self, data: bytes) -> None:
        self.size_bytes += len(data)
        try:
            # On the event loop, as uploads are (docs/decisions/0003-uploads-on-the-event-loop.md).
            self.file.write(data)
        except OSError as error:
            raise _storage_error(error) from error

    async def finish(self) -> None:
        """It is read when all parts are there."""


def _storage_error(error: OSError) -> ServiceError:
    logger.error("archive not stored: %s", error)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return StorageFullError() if full else ServiceUnavailableError()
