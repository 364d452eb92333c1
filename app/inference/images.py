"""Decoding: the bytes of a JPEG or PNG become the square of pixels that a model takes."""

import io
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import simplejpeg
from PIL import Image

from app.core.job_errors import OversizedImageError, TruncatedImageError, UndecodableImageError
from app.inference.decoding.examination import ImageLimits, check_size, examine
from app.inference.resizing import Pixels, Span, resize
from app.inference.scratch import borrow

# Pillow's own limit only warns, up to its double; `decode` applies the configured one.
Image.MAX_IMAGE_PIXELS = None

# A JPEG is decoded at 1/2 of its size or less while it stays this many times larger than the
# resized image. Measured on the 100 reference photographs, enlarged 3 and 4 times: with 2, decoding
# takes half the time, probabilities move by 0.005 on average and as many labels are right; with 1
# they move by 0.02 and labels change; with 3 the saving is nearly gone.
_DRAFT_MARGIN = 2

_ORIENTATION_TAG = 0x0112
_UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}

# What is turned into colours and averaged in one go: a large image has no second copy.
_BAND_PIXELS = 4_000_000

# First bytes of the two formats, and the bytes without which a file of that format is incomplete.
_END_MARKS = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG\r\n\x1a\n": b"IEND"}


class Framing(Protocol):
    """The square that a model takes; :class:`app.models.manifest.ModelManifest` says it."""

    @property
    def input_size(self) -> int:
        """The square's side, in pixels."""

    @property
    def resize(self) -> int:
        """What an image's shorter side becomes before it is cropped."""

    @property
    def crop(self) -> int:
        """The side of the centre that is cropped."""


class _Geometry(NamedTuple):
    """The image resized but not yet cropped, and the crop's place in it, in its pixels."""

    width: int
    height: int
    left: int
    top: int


def decode(data: bytes, framing: Framing, limits: ImageLimits) -> Pixels:
    """Decode an upload, turn it upright, resize and crop it.

    Returns (``input_size``, ``input_size``, 3) RGB pixels. Transparency becomes white; of several
    frames the first counts. Raises :class:`OversizedImageError`, :class:`ImageTooCostlyError`,
    :class:`TruncatedImageError` or :class:`UndecodableImageError`.
    """
    return decode_examined(examine(data, limits).data, framing, limits)


def decode_examined(data: bytes, framing: Framing, limits: ImageLimits) -> Pixels:
    """Decode what :func:`~app.inference.decoding.examination.examine` has let pass; else alike."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            check_size(image.size, limits)
            return _to_square(data, image, framing)
    except (OversizedImageError, MemoryError):
        raise
    # Pillow's decoders answer damage with nearly every exception there is.
    except Exception as error:
        failure = TruncatedImageError if _is_truncated(data, error) else UndecodableImageError
        raise failure() from error


def _to_square(data: bytes, image: Image.Image, framing: Framing) -> Pixels:
    resized = _geometry(image.size, framing)
    least = (resized.width * _DRAFT_MARGIN, resized.height * _DRAFT_MARGIN)
    pixels = _find_jpeg_pixels(data, image, least)
    if pixels is None:
        image.draft(image.mode, least)
        square = _resize_image(image, resized, framing)
    else:
        size = (pixels.shape[1], pixels.shape[0])
        square = resize(pixels, *_spans(size, resized, framing), framing.input_size)
    turn = _UPRIGHT.get(_orientation(image))
    return square if turn is None else np.ascontiguousarray(turn(square))


def _find_jpeg_pixels(data: bytes, image: Image.Image, least: tuple[int, int]) -> Pixels | None:
    """The pixels of an ordinary JPEG; ``None`` for what Pillow has to look at.

    simplejpeg calls the same libjpeg-turbo as Pillow and spares two copies: a fifth of the time.
    Whatever it complains about Pillow reads again, and has the last word.
    """
    if image.format != "JPEG" or image.mode not in ("L", "RGB"):
        return None
    width, height = least
    try:
        # Limits were checked against the size that Pillow found.
        if simplejpeg.decode_jpeg_header(data)[:2] != image.size[::-1]:
            return None
        scale = {"min_width": width, "min_height": height, "min_factor": 2}
        rows, columns = simplejpeg.decode_jpeg_header(data, **scale)[:2]
        buffer = borrow("pixels", (rows, columns, 3), np.uint8)
        pixels: Pixels = simplejpeg.decode_jpeg(data, buffer=buffer, **scale)
    except ValueError:
        return None
    return pixels


def _resize_image(image: Image.Image, resized: _Geometry, framing: Framing) -> Pixels:
    count = framing.input_size
    across, down = _spans(image.size, resized, framing)
    left, right = across.reach(count, image.width)
    top, bottom = down.reach(count, image.height)
    # Averaged before it is copied, a large image takes no more memory than it has to.
    factor = max(1, int(min(across.scale, down.scale) / _DRAFT_MARGIN))
    pixels = _average(image, factor, (left, top, right, bottom))
    return resize(pixels, across.within(left, factor), down.within(top, factor), count)


def _average(image: Image.Image, factor: int, box: tuple[int, int, int, int]) -> Pixels:
    """What lies in the box, in RGB, each square of ``factor`` × ``factor`` pixels made one."""
    left, top, right, bottom = box
    height = max(1, _BAND_PIXELS // ((right - left) * factor)) * factor
    bands = []
    for upper in range(top, bottom, height):
        place = (left, upper, right, min(upper + height, bottom))
        if image.mode in ("L", "RGB") and "transparency" not in image.info:
            band = image.reduce(factor, place)
        else:
            band = _without_palette(image.crop(place)).reduce(factor)
        if band.mode == "RGBA":
            band = Image.alpha_composite(Image.new("RGBA", band.size, "white"), band)
        bands.append(np.asarray(band.convert("RGB")))
    return bands[0] if len(bands) == 1 else np.concatenate(bands)


def _geometry(size: tuple[int, int], framing: Framing) -> _Geometry:
    scale = framing.resize / min(size)
    width, height = (round(side * scale) for side in size)
    return _Geometry(width, height, (width - framing.crop) // 2, (height - framing.crop) // 2)


def _spans(size: tuple[int, int], resized: _Geometry, framing: Framing) -> tuple[Span, Span]:
    """Where the crop lies in an image that was decoded at this size, across and down."""
    across, down = size[0] / resized.width, size[1] / resized.height
    scale = framing.crop / framing.input_size
    return (
        Span(resized.left * across, across * scale),
        Span(resized.top * down, down * scale),
    )


def _without_palette(image: Image.Image) -> Image.Image:
    """The image in a mode whose pixels can be averaged: L, RGB or RGBA."""
    if image.mode.startswith("I"):
        # convert() would clip 16 bits to 255; 16-bit colour arrives with its high bytes already.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("RGBA", "LA") or "transparency" in image.info:
        return image.convert("RGBA")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) when the EXIF data is damaged: the pixels are not."""
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:
        return 1


def _is_truncated(data: bytes, error: Exception) -> bool:
    for start, end in _END_MARKS.items():
        if data.startswith(start):
            return end not in data or "truncated" in str(error).lower()
    return False
