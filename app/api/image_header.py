"""What an upload says it is: its kind by the first bytes, its size in pixels by the header.

Read here byte by byte, rather than with an imaging library, because every upload passes through:
this looks at a few length fields, allocates nothing that the file asks for, and keeps decoders out
of the web process. Layouts: ITU T.81 annex B (JPEG), W3C PNG section 11.2.2 (PNG).
"""

from dataclasses import dataclass
from typing import Literal

from app.core.errors import MalformedImageError, UnsupportedImageError

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_START = b"\xff\xd8\xff"

# SOF0…SOF15 carry the dimensions, save the three numbers in between that mean other things.
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))

# Up to the end of the dimensions: in the segment that has them, and in a PNG file.
_FRAME_BYTES, _PNG_BYTES = 9, 24


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Kind and size of an image, in pixels, as its file claims."""

    kind: Literal["jpeg", "png"]
    width: int
    height: int


class ImageHeaderReader:
    """Reads a header from a file that arrives in chunks.

    Raises :class:`UnsupportedImageError` or :class:`MalformedImageError` as soon as it can tell.
    """

    def __init__(self) -> None:
        self.header: ImageHeader | None = None
        self._is_jpeg = False
        # What has come and could not be told yet, and how much is to be passed over behind it.
        self._rest = b""
        self._skip = 0

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the file. Not to be called once the header is there."""
        skipped = min(self._skip, len(chunk))
        self._skip -= skipped
        if self._skip:
            return
        data = self._rest + chunk[skipped:]
        if self._is_jpeg:
            self._read_segments(data, 0)
        elif data.startswith(_JPEG_START):
            self._is_jpeg = True
            # The third byte is the first of a marker.
            self._read_segments(data, 2)
        elif len(data) >= _PNG_BYTES and data.startswith(_PNG_SIGNATURE):
            if data[12:16] != b"IHDR":
                raise MalformedImageError()
            self.header = _create_header("png", data[16:20], data[20:24])
        elif _JPEG_START.startswith(data) or _PNG_SIGNATURE.startswith(data[:8]):
            self._rest = data
        else:
            raise UnsupportedImageError()

    def finish(self) -> ImageHeader:
        """The header, once the file has ended."""
        if self.header is None:
            raise MalformedImageError()
        return self.header

    def _read_segments(self, data: bytes, position: int) -> None:
        """Go from segment to segment of a JPEG; one begins at ``position``."""
        while position + _FRAME_BYTES <= len(data):
            mark, marker = data[position], data[position + 1]
            if mark != 0xFF or marker in (_START_OF_SCAN, _END_OF_IMAGE):
                raise MalformedImageError()
            if marker in _START_OF_FRAME:
                height, width = data[position + 5 : position + 7], data[position + 7 : position + 9]
                self.header = _create_header("jpeg", width, height)
                return
            if marker == 0xFF:
                position += 1
            elif marker in _WITHOUT_LENGTH:
                position += 2
            else:
                length = int.from_bytes(data[position + 2 : position + 4], "big")
                if length < 2:
                    raise MalformedImageError()
                position += 2 + length
        self._rest = data[position:]
        self._skip = max(position - len(data), 0)


def _create_header(kind: Literal["jpeg", "png"], width: bytes, height: bytes) -> ImageHeader:
    header = ImageHeader(kind, int.from_bytes(width, "big"), int.from_bytes(height, "big"))
    if not header.width or not header.height:
        raise MalformedImageError()
    return header
