"""The marker segments of a JPEG, walked without an imaging library. Layout: ITU T.81 annex B.

Written for files that mean harm: no step depends on more than a file's bytes, and whoever puts more
segments into one than any program does is refused.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from app.core.job_errors import (
    ImageTooCostlyError,
    TruncatedImageError,
    UndecodableImageError,
)

END = b"\xff\xd9"
"""The last marker of an image."""

_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))
# SOF0…SOF15, save the three numbers in between that mean other things.
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE, _QUANTIZATION = 0xC2, 0xDB
_JFIF, _EXIF, _ADOBE, _LAST_APP, _COMMENT = 0xE0, 0xE1, 0xEE, 0xEF, 0xFE

# A marker: other bytes in front of it are passed over, as libjpeg does. In the data of a scan FF 00
# stands for FF, and the restart markers D0 to D7 belong to the data. One byte decides each time, so
# the search is linear, however many FF follow each other.
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")

# In a whole file. A hundred scans with tables between them make 300; the longest profile has 255,
# and 10 MB of extended XMP 160.
_MOST_SEGMENTS = 1000


class Segment(NamedTuple):
    """``data[start:end]``, from the marker's FF up to the next segment."""

    marker: int
    start: int
    end: int


class JpegHeader(NamedTuple):
    """Everything before the first scan.

    ``samplings``: horizontal × vertical factors of each component. ``end``: where the scan begins.
    """

    kind: int
    width: int
    height: int
    samplings: Sequence[tuple[int, int]]
    segments: Sequence[Segment]
    end: int
    components_in_scan: int

    @property
    def has_several_scans(self) -> bool:
        """Whether decoders keep coefficients of the whole image, and read on after a scan."""
        return self.kind == _PROGRESSIVE or self.components_in_scan < len(self.samplings)

    @property
    def coefficient_bytes(self) -> int:
        """The size of the coefficients that decoders keep of several scans: two bytes each."""
        across = max((factors[0] for factors in self.samplings), default=0) or 1
        down = max((factors[1] for factors in self.samplings), default=0) or 1
        samples = sum(x * y for x, y in self.samplings) * self.width * self.height
        return 2 * samples // (across * down)

    @property
    def stray_bytes(self) -> int:
        """Bytes that belong to no segment: padding, or damage."""
        return self.end - 2 - sum(segment.end - segment.start for segment in self.segments)

    @property
    def quantization_bytes(self) -> int:
        """The length of all quantisation tables together; four of them have 516 bytes."""
        return sum(item.end - item.start for item in self.segments if item.marker == _QUANTIZATION)


def read_header(data: bytes) -> JpegHeader:
    """The header. Raises :class:`UndecodableImageError` where there is no frame or no scan.

    Raises :class:`ImageTooCostlyError` for more segments than any program writes.
    """
    segments: list[Segment] = []
    frame = None
    for segment in _walk(data, 2, _MARKER):
        if segment.end > len(data):
            raise TruncatedImageError()
        if segment.marker == _START_OF_SCAN:
            return _parse(data, frame, segments, segment)
        if segment.marker in _START_OF_FRAME:
            # Pillow would believe the second, which nobody has looked at; libjpeg takes none.
            if frame is not None:
                raise UndecodableImageError()
            frame = segment
        segments.append(segment)
    raise UndecodableImageError() if END in data else TruncatedImageError()


def count_scans(data: bytes, header: JpegHeader, most: int) -> int:
    """Count the scans of the image, up to its end and not in what lies behind it.

    Raises :class:`ImageTooCostlyError` for more than ``most``.
    """
    count = 0
    for segment in _walk(data, header.end, _MARKER_IN_SCAN):
        count += segment.marker == _START_OF_SCAN
        if count > most:
            raise ImageTooCostlyError()
    return count


def drop_metadata(data: bytes, header: JpegHeader) -> bytes:
    """Return the image without stray bytes, and without what decoding does not need.

    Kept are what says how colours are stored, and the first piece of EXIF data: it has the
    orientation.
    """
    kept = []
    has_exif = False
    for segment in header.segments:
        content = data[segment.start + 4 : segment.start + 10]
        if segment.marker == _EXIF and not has_exif:
            has_exif = is_needed = content == b"Exif\0\0"
        elif segment.marker in (_JFIF, _ADOBE):
            is_needed = content.startswith((b"JFIF", b"Adobe"))
        else:
            is_needed = not _JFIF <= segment.marker <= _LAST_APP and segment.marker != _COMMENT
        if is_needed:
            kept.append(data[segment.start : segment.end])
    return b"".join((data[:2], *kept, data[header.end :]))


def _walk(data: bytes, position: int, pattern: re.Pattern[bytes]) -> Iterator[Segment]:
    """Segment by segment, from ``position`` to the end of the image or of what can be read.

    The last may end beyond the data.
    """
    search = pattern.search
    for _ in range(_MOST_SEGMENTS):
        found = search(data, position)
        if found is None:
            return
        start = found.start()
        marker = data[start + 1]
        if marker == _END_OF_IMAGE:
            return
        position = start + 2
        if marker not in _WITHOUT_LENGTH:
            length = int.from_bytes(data[position : position + 2], "big")
            position += length
            if length < 2:
                return
        yield Segment(marker, start, position)
    raise ImageTooCostlyError()


def _parse(
    data: bytes, frame: Segment | None, segments: Sequence[Segment], scan: Segment
) -> JpegHeader:
    content = b"" if frame is None else data[frame.start + 4 : frame.end]
    if frame is None or len(content) < 6 or len(content) != 6 + 3 * content[5]:
        raise UndecodableImageError()
    return JpegHeader(
        kind=frame.marker,
        width=int.from_bytes(content[3:5], "big"),
        height=int.from_bytes(content[1:3], "big"),
        samplings=[(factors >> 4, factors & 15) for factors in content[7::3]],
        segments=segments,
        end=scan.start,
        components_in_scan=int.from_bytes(data[scan.start + 4 : scan.start + 5], "big"),
    )
