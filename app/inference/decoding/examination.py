"""The cost of decoding an upload, by what its file says, before a decoder looks at it.

Numbers were measured on a core of 2023 by ``python -m tests.attacks.decoding_costs``; what the file
does not say is bounded behind this: :mod:`app.inference.decoding.guard`.
"""

from typing import NamedTuple, Protocol

from app.core.job_errors import OversizedImageError, UndecodableImageError
from app.inference.decoding import jpeg_segments, png_chunks
from app.inference.decoding.jpeg_segments import JpegHeader
from app.inference.decoding.png_chunks import PngOutline

# A scan can be repeated in a few bytes. Encoders write ten, libjpeg 18 for CMYK; every image may
# have 100, and a large one as many as cost what 20 do in the largest image that is accepted: 20 MP
# may have 50.
_MOST_SCANS = 100
_SCANS_OF_LARGEST = 20

# What goes beyond one of these is decoded under guard: half a second or 100 MB, about. A camera's
# 50 MP in one scan stay below (no coefficients are kept), 12 MP from a web tool in ten as well.
_COSTLY_SCANNED_PIXELS = 150_000_000
_COSTLY_COEFFICIENT_BYTES = 100_000_000
_COSTLY_UNPACKED_BYTES = 80_000_000
# Of several scans, which refine what others have left.
_COSTLY_SCANNED_BYTES = 4_000_000

# Pillow copies what is left of a segment for each quantisation table in it; four have 516 bytes.
_COSTLY_QUANTIZATION_BYTES = 8192

# More metadata than this is taken away before Pillow sees it: it joins EXIF data quadratically,
# unpacks each colour profile, and passes over stray bytes one by one. Files of cameras and editors
# have a dozen pieces.
_ORDINARY_PIECES = 64
_ORDINARY_STRAY_BYTES = 1024

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_SCAN = b"\xff\xda"
_HUFFMAN_KINDS = (0xC0, 0xC1, 0xC2)


class ImageLimits(Protocol):
    """The largest image that is accepted; :class:`app.core.config.LimitSettings` says it."""

    @property
    def image_pixels(self) -> int: ...  # noqa: D102

    @property
    def image_side(self) -> int: ...  # noqa: D102


class Examined(NamedTuple):
    """An upload whose file was looked at.

    ``data``: without the metadata, if that alone would cost too much. ``is_costly``: it belongs
    under guard.
    """

    data: bytes
    is_costly: bool


def examine(data: bytes, limits: ImageLimits) -> Examined:
    """Look at the file's structure, in a fraction of the time that decoding takes.

    Raises :class:`ImageTooCostlyError`, :class:`OversizedImageError`, :class:`TruncatedImageError`
    or :class:`UndecodableImageError`.
    """
    if data.startswith(_JPEG):
        return _examine_jpeg(data, jpeg_segments.read_header(data), limits)
    if data.startswith(_PNG):
        return _examine_png(data, png_chunks.read_outline(data), limits)
    raise UndecodableImageError()


def check_size(size: tuple[int, int], limits: ImageLimits) -> None:
    """Raise :class:`OversizedImageError` for too many pixels."""
    width, height = size
    if max(size) > limits.image_side or width * height > limits.image_pixels:
        raise OversizedImageError(
            f"The image is {width} × {height} pixels; at most {limits.image_side} a side and "
            f"{limits.image_pixels} in all are allowed. Scale it down."
        )


def _examine_jpeg(data: bytes, header: JpegHeader, limits: ImageLimits) -> Examined:
    check_size((header.width, header.height), limits)
    is_costly = (
        header.kind not in _HUFFMAN_KINDS
        or header.quantization_bytes > _COSTLY_QUANTIZATION_BYTES
        or header.width * header.height > _COSTLY_SCANNED_PIXELS
        or (header.has_several_scans and _has_costly_scans(data, header, limits))
    )
    if len(header.segments) > _ORDINARY_PIECES or header.stray_bytes > _ORDINARY_STRAY_BYTES:
        data = jpeg_segments.drop_metadata(data, header)
    return Examined(data, is_costly)


def _has_costly_scans(data: bytes, header: JpegHeader, limits: ImageLimits) -> bool:
    pixels = max(1, header.width * header.height)
    # The marker's bytes, wherever they are: quick to find, and no fewer than there are scans.
    count = data.count(_SCAN, header.end)
    if count > _MOST_SCANS or count * pixels > _COSTLY_SCANNED_PIXELS:
        most = min(_MOST_SCANS, _SCANS_OF_LARGEST * limits.image_pixels // pixels)
        count = jpeg_segments.count_scans(data, header, most)
    return (
        count * pixels > _COSTLY_SCANNED_PIXELS
        or header.coefficient_bytes > _COSTLY_COEFFICIENT_BYTES
        or len(data) > _COSTLY_SCANNED_BYTES
    )


def _examine_png(data: bytes, outline: PngOutline, limits: ImageLimits) -> Examined:
    check_size((outline.width, outline.height), limits)
    is_costly = outline.unpacked_bytes > _COSTLY_UNPACKED_BYTES
    if outline.ancillary_chunks > _ORDINARY_PIECES:
        data = png_chunks.drop_metadata(data, outline)
    return Examined(data, is_costly)
