"""What an upload says it is: its kind by the first bytes, its size in pixels by the header.

Read here byte by byte, rather than with an imaging library, because every upload passes through:
this looks at a few length fields, allocates nothing that the file asks for, and keeps decoders out
of the web process. Layouts: ITU T.81 annex B (JPEG), W3C PNG section 11.2.2 (PNG).
"""

from dataclasses import dataclass
from typing import Literal

from app.core.image_errors import MalformedImageError, UnsupportedCodingError, UnsupportedImageError

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_START = b"\xff\xd8\xff"

# SOF0, 1 and 2 are what every program reads, and carry the dimensions. The others are lossless,
# hierarchical or arithmetic-coded: hardly anybody reads those, and an arithmetic-coded scan costs a
# decoder ten times what it costs to send. DAC, DHP and EXP belong to them.
_START_OF_FRAME = frozenset((0xC0, 0xC1, 0xC2))
_UNSUPPORTED = frozenset(range(0xC3, 0xD0)) - {0xC4, 0xC8} | {0xDE, 0xDF}
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))

# Up to the end of the dimensions: in the segment that has them, and in a PNG file.
_FRAME_BYTES, _PNG_BYTES = 9, 24

# Before the first scan. Cameras and editors write a dozen segments, 255 for the longest colour
# profile, 160 when extended XMP with a depth map or a second photograph fills 10 MB. Their bytes
# need no bound of their own: whatever a segment holds is passed over in one step.
_MOST_SEGMENTS = 500

# Encoders that align segments write up to fifteen between two of them.
_MOST_FILL_BYTES = 64


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
        self.is_done = False
        """Whether the rest of the file says nothing more."""
        self._is_jpeg = False
        # What has come and could not be told yet, and how much is to be passed over behind it.
        self._rest = b""
        self._skip = 0
        self._segments = self._fill_bytes = 0

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the file. Not to be called any more once it is done."""
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
            self.is_done = True
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
        """Go from segment to segment of a JPEG, up to the first scan; one begins at ``position``.

        Behind the frame damage is left to the worker, which has the whole file.
        """
        while position + _FRAME_BYTES <= len(data):
            mark, marker = data[position], data[position + 1]
            length = int.from_bytes(data[position + 2 : position + 4], "big")
            if marker == 0xFF == mark:
                self._pass_fill_byte()
                position += 1
            elif mark == 0xFF and marker in _WITHOUT_LENGTH:
                self._pass_segment()
                position += 2
            elif mark != 0xFF or marker in (_START_OF_SCAN, _END_OF_IMAGE) or length < 2:
                self.finish()
                self.is_done = True
                return
            else:
                self._pass_segment()
                if marker in _UNSUPPORTED:
                    raise UnsupportedCodingError()
                if marker in _START_OF_FRAME and self.header is None:
                    height = data[position + 5 : position + 7]
                    width = data[position + 7 : position + 9]
                    self.header = _create_header("jpeg", width, height)
                position += 2 + length
        self._rest = data[position:]
        self._skip = max(position - len(data), 0)

    def _pass_segment(self) -> None:
        self._segments += 1
        if self._segments > _MOST_SEGMENTS:
            raise MalformedImageError(
                f"The JPEG has more than {_MOST_SEGMENTS} segments before its picture. Export it "
                "without metadata."
            )

    def _pass_fill_byte(self) -> None:
        self._fill_bytes += 1
        if self._fill_bytes > _MOST_FILL_BYTES:
            raise MalformedImageError(
                f"The JPEG has more than {_MOST_FILL_BYTES} fill bytes between its segments. "
                "Export it again."
            )


def _create_header(kind: Literal["jpeg", "png"], width: bytes, height: bytes) -> ImageHeader:
    header = ImageHeader(kind, int.from_bytes(width, "big"), int.from_bytes(height, "big"))
    if not header.width or not header.height:
        raise MalformedImageError()
    return header
