"""Zip files from strangers: what is in them, within limits that hold before anything is unpacked.

Entries are read one after another and never become files of their own names. An archive within an
archive is an entry like any other, and no image.
"""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, BinaryIO
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from app.core.errors import MalformedArchiveError, TooManyImagesError, UnsafeArchiveError
from app.core.image_errors import MalformedImageError

_ENCRYPTED = 0x1

# The list of contents is read at once: room for a thousand entries with names of 400 bytes. More
# entries than that would fill memory before anybody could count them.
LARGEST_LIST_BYTES = 512 * 1024

# Images are compressed already; drawings and screenshots may shrink a few times more. Deflate can
# make a thousand bytes of one, and entries that overlap any number.
LARGEST_RATIO = 100
# So much may come of the smallest archive.
HARMLESS_BYTES = 10 * 1024 * 1024

# What ``zipfile`` raises where an archive makes no sense: its own, and whatever Python says of a
# name that is no text, an offset that fits no file, a structure that ends too early.
_DAMAGES = (
    BadZipFile,
    zlib.error,
    struct.error,
    ArithmeticError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    ValueError,
)


class _CarefulFile:
    """A file that ``zipfile`` may read in small pieces only, whatever the archive tells it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        """Raises :class:`TooManyImagesError` for more than the list of contents may have."""
        most = LARGEST_LIST_BYTES + 1
        data = self._file.read(most if size < 0 else min(size, most))
        if len(data) > LARGEST_LIST_BYTES:
            raise TooManyImagesError("The archive has too many entries. Send several archives.")
        return data


class Archive:
    """An archive whose list of contents is acceptable; ``entries`` are its files in order."""

    def __init__(self, archive: ZipFile, entries: list[ZipInfo]) -> None:
        self._archive = archive
        self.entries = entries

    def open(self, entry: ZipInfo) -> IO[bytes]:
        """An entry's content: at most what the list of contents says.

        Raises :class:`MalformedImageError` if that is damaged, and so does :func:`read_piece`.
        """
        with _find_damage():
            return self._archive.open(entry)


def read_piece(content: IO[bytes], size_bytes: int) -> bytes:
    """The next bytes of an entry, none at its end."""
    with _find_damage():
        return content.read(size_bytes)


@contextmanager
def _find_damage() -> Iterator[None]:
    try:
        yield
    except _DAMAGES as error:
        raise MalformedImageError("The image is damaged within the archive.") from error


@contextmanager
def open_archive(
    file: BinaryIO, archive_bytes: int, most_entries: int, most_bytes: int
) -> Iterator[Archive]:
    """An archive of at most so many files that unpack to at most so many bytes.

    Raises :class:`MalformedArchiveError`, :class:`UnsafeArchiveError` and
    :class:`TooManyImagesError`.
    """
    try:
        archive = ZipFile(_CarefulFile(file))
    except _DAMAGES as error:
        raise MalformedArchiveError() from error
    with archive:
        if not all(entry.filename for entry in archive.infolist()):
            raise MalformedArchiveError()
        entries = [entry for entry in archive.infolist() if not _is_by_the_way(entry)]
        if len(entries) > most_entries:
            raise TooManyImagesError(f"A batch may have {most_entries:,} images at most.")
        if any(entry.flag_bits & _ENCRYPTED for entry in entries):
            raise UnsafeArchiveError("The archive is encrypted. Send it without a password.")
        if any(entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED) for entry in entries):
            raise UnsafeArchiveError("The archive is packed in an unusual way. Use deflate.")
        unpacked_bytes = sum(entry.file_size for entry in entries)
        if unpacked_bytes > most_bytes:
            raise UnsafeArchiveError(f"The archive unpacks to more than {most_bytes:,} bytes.")
        if unpacked_bytes > max(LARGEST_RATIO * archive_bytes, HARMLESS_BYTES):
            raise UnsafeArchiveError(
                f"The archive unpacks to more than {LARGEST_RATIO} times its size."
            )
        yield Archive(archive, entries)


def _is_by_the_way(entry: ZipInfo) -> bool:
    """Folders, and what file managers put beside files."""
    top, name = entry.filename.split("/")[0], entry.filename.split("/")[-1]
    return not name or top == "__MACOSX" or name.startswith(".") or name == "Thumbs.db"
