"""What an upload says it is: its kind by the first bytes, its size in pixels by the header.

Read here byte by byte, rather than with an imaging library, because every upload passes through:
this looks at a few length fields, allocates nothing that the file asks for, and keeps decoders out
of the web process. Layouts: ITU T.81 annex B (JPEG), W3C PNG section 11.2.2 (PNG).
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal

from app.core.errors import MalformedImageError, UnsupportedImageError

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_START = b"\xff\xd8\xff"

# SOF0…SOF15 carry the dimensions, save the three numbers in between that mean other things.
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Kind and size of an image, in pixels, as its file claims."""

    kind: Literal["jpeg", "png"]
    width: int
    height: int


# A parser asks for the next n bytes (n > 0) or skips them (n < 0), and returns what it found.
_Parser = Generator[int, bytes, ImageHeader]


def _parse() -> _Parser:
    start = yield 3
    if start == _JPEG_START:
        return (yield from _parse_jpeg())
    if start == _PNG_SIGNATURE[:3] and start + (yield 5) == _PNG_SIGNATURE:
        return (yield from _parse_png())
    raise UnsupportedImageError()


def _parse_png() -> _Parser:
    chunk = yield 16
    if chunk[4:8] != b"IHDR":
        raise MalformedImageError()
    return _header("png", chunk[8:12], chunk[12:16])


def _parse_jpeg() -> _Parser:
    marker = 0xFF  # the third byte of the start: a marker's own byte follows
    while True:
        while marker == 0xFF:
            marker = (yield 1)[0]
        if marker in _START_OF_FRAME:
            frame = yield 7
            return _header("jpeg", frame[5:7], frame[3:5])
        if marker in (_START_OF_SCAN, _END_OF_IMAGE):
            raise MalformedImageError()
        if marker not in _WITHOUT_LENGTH:
            length = int.from_bytes((yield 2), "big")
            if length < 2:
                raise MalformedImageError()
            if length > 2:
                yield 2 - length
        if (yield 1) != b"\xff":
            raise MalformedImageError()
        marker = 0xFF


def _header(kind: Literal["jpeg", "png"], width: bytes, height: bytes) -> ImageHeader:
    header = ImageHeader(kind, int.from_bytes(width, "big"), int.from_bytes(height, "big"))
    if not header.width or not header.height:
        raise MalformedImageError()
    return header


class ImageHeaderReader:
    """Reads a header from a file that arrives in chunks.

    Raises :class:`UnsupportedImageError` or :class:`MalformedImageError` as soon as it can tell.
    """

    def __init__(self) -> None:
        self.header: ImageHeader | None = None
        self._parser = _parse()
        self._wanted = next(self._parser)
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the file."""
        position = 0
        while self.header is None and position < len(chunk):
            if self._wanted < 0:
                step = min(-self._wanted, len(chunk) - position)
                self._wanted += step
                position += step
                if self._wanted == 0:
                    self._advance(b"")
                continue
            step = min(self._wanted - len(self._buffer), len(chunk) - position)
            self._buffer += chunk[position : position + step]
            position += step
            if len(self._buffer) == self._wanted:
                answer = bytes(self._buffer)
                self._buffer.clear()
                self._advance(answer)

    def finish(self) -> ImageHeader:
        """The header, once the file has ended."""
        if self.header is None:
            raise MalformedImageError()
        return self.header

    def _advance(self, answer: bytes) -> None:
        try:
            self._wanted = self._parser.send(answer)
        except StopIteration as found:
            self.header = found.value
