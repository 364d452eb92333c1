"""JPEG files made segment by segment, whatever encoders would never write. ITU T.81 annex B."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

BASELINE, PROGRESSIVE = 0xC0, 0xC2
SOI, EOI = b"\xff\xd8", b"\xff\xd9"


class Scan(NamedTuple):
    """One scan: the numbers of its components, its band, its bits, and what it is coded as."""

    components: Sequence[int] = (1, 2, 3)
    first: int = 0
    last: int = 0
    high: int = 0
    low: int = 0
    data: bytes = b""


def segment(marker: int, content: bytes = b"") -> bytes:
    """A marker segment with its length."""
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2, "big") + content


def render_frame(
    width: int, height: int, kind: int = BASELINE, sampling: Sequence[int] = (0x11, 0x11, 0x11)
) -> bytes:
    """The frame header; ``sampling``: horizontal and vertical, four bits each, by component."""
    components = bytes(
        value for number, factors in enumerate(sampling, 1) for value in (number, factors, 0)
    )
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return segment(kind, b"\x08" + size + bytes((len(sampling),)) + components)


def render_tables() -> bytes:
    """Tables that every scan below uses: all ones, and codes of two bits for 0, 1 and 0xE0."""
    symbols = bytes((0, 1, 2))
    lengths = bytes((0, 3)) + bytes(14)
    dc, ac = b"\x00" + lengths + symbols, b"\x10" + lengths + bytes((0x00, 0x01, 0xE0))
    return segment(0xDB, b"\x00" + b"\x01" * 64) + segment(0xC4, dc + ac)


def render_scan(scan: Scan) -> bytes:
    """A scan's header and data."""
    components = bytes(value for number in scan.components for value in (number, 0))
    band = bytes((scan.first, scan.last, scan.high << 4 | scan.low))
    return segment(0xDA, bytes((len(scan.components),)) + components + band) + scan.data


def make_jpeg(
    frame: bytes, scans: Iterable[Scan], before: bytes = b"", restart_interval: int = 0
) -> bytes:
    """A whole file; ``before`` stands between its start and the tables."""
    restarts = segment(0xDD, restart_interval.to_bytes(2, "big")) if restart_interval else b""
    body = b"".join(map(render_scan, scans))
    return SOI + before + render_tables() + restarts + frame + body + EOI
