"""Looking at an image while it arrives, and refusing it as soon as anything is wrong with it."""

from app.api.image_header import ImageHeader, ImageHeaderReader
from app.core.config import LimitSettings
from app.core.image_errors import EmptyFileError, FileTooLargeError, ImageTooLargeError


def create_size_error(limits: LimitSettings) -> FileTooLargeError:
    """The error for a file of too many bytes."""
    return FileTooLargeError(f"The image file may have {limits.file_size:,} bytes at most.")


class ImageInspector:
    """Takes one file piece by piece. Raises :data:`app.core.image_errors.IMAGE_ERRORS`."""

    def __init__(self, limits: LimitSettings) -> None:
        self._limits = limits
        self._file_bytes = 0
        self._reader = ImageHeaderReader()

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file."""
        self._file_bytes += len(data)
        if self._file_bytes > self._limits.file_size:
            raise create_size_error(self._limits)
        if not self._reader.is_done and data:
            self._reader.feed(data)
            if self._reader.header is not None:
                _check_dimensions(self._reader.header, self._limits)

    def finish(self) -> None:
        """The file has ended."""
        if not self._file_bytes:
            raise EmptyFileError()
        self._reader.finish()


def _check_dimensions(header: ImageHeader, limits: LimitSettings) -> None:
    width, height = header.width, header.height
    if max(width, height) > limits.image_side or width * height > limits.image_pixels:
        raise ImageTooLargeError(
            f"The image has {width} × {height} pixels; allowed are {limits.image_side:,} a side "
            f"and {limits.image_pixels:,} in all. Scale it down."
        )
