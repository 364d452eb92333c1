"""The chunks of a PNG, walked without an imaging library. Layout: W3C PNG section 5."""

from collections.abc import Sequence
from typing import NamedTuple

from app.core.job_errors import ImageTooCostlyError, UndecodableImageError

_SIGNATURE_BYTES = 8
# What stands around a chunk's data: its length and kind before, its checksum behind.
_KIND_AT, _DATA_AT, _AROUND = 4, 8, 12
_HEADER_BYTES = 13

# libpng writes pixels in pieces of 8 KB, some programs in smaller ones; each costs Pillow 3 µs.
_MOST_CHUNKS = 10_000

# What decides how the pixels of the first frame look, besides the critical chunks.
_NEEDED = frozenset((b"tRNS", b"eXIf"))

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


class PngOutline(NamedTuple):
    """The size and depth that the file claims, and where its chunks are.

    ``chunks``: kind, start and end of each, in the file.
    """

    width: int
    height: int
    bits_a_pixel: int
    chunks: Sequence[tuple[bytes, int, int]]

    @property
    def unpacked_bytes(self) -> int:
        """Of all pixels, as they are packed; rows have a byte more."""
        return self.height * (self.width * self.bits_a_pixel // 8 + 1)

    @property
    def ancillary_chunks(self) -> int:
        """The number of chunks that decoders may pass over: names with a small letter in front."""
        return sum(kind[:1].islower() for kind, _, _ in self.chunks)


def read_outline(data: bytes) -> PngOutline:
    """The outline. Raises :class:`UndecodableImageError` where the header makes no sense.

    Raises :class:`ImageTooCostlyError` for more chunks than any program writes.
    """
    chunks = _list_chunks(data)
    header = data[_SIGNATURE_BYTES + _DATA_AT : _SIGNATURE_BYTES + _DATA_AT + _HEADER_BYTES]
    kinds = [kind for kind, _, _ in chunks]
    # Pillow would believe a second header, which nobody has looked at.
    if kinds[:1] != [b"IHDR"] or kinds.count(b"IHDR") > 1 or len(header) < _HEADER_BYTES:
        raise UndecodableImageError()
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    # Of a colour type that does not exist decoders take nothing.
    return PngOutline(width, height, _CHANNELS.get(header[9], 0) * header[8], chunks)


def _list_chunks(data: bytes) -> list[tuple[bytes, int, int]]:
    chunks: list[tuple[bytes, int, int]] = []
    position, size = _SIGNATURE_BYTES, len(data)
    while position + _DATA_AT <= size:
        if len(chunks) == _MOST_CHUNKS:
            raise ImageTooCostlyError()
        start = position
        kind = data[start + _KIND_AT : start + _DATA_AT]
        position += int.from_bytes(data[start : start + _KIND_AT], "big") + _AROUND
        chunks.append((kind, start, min(position, size)))
        if kind == b"IEND":
            break
    return chunks


def drop_metadata(data: bytes, outline: PngOutline) -> bytes:
    """Return the first frame without what decoding does not need."""
    seen: set[bytes] = set()
    kept = []
    for kind, start, end in outline.chunks:
        if not kind[:1].islower() or (kind in _NEEDED and kind not in seen):
            kept.append(data[start:end])
        seen.add(kind)
    return b"".join((data[:_SIGNATURE_BYTES], *kept))
