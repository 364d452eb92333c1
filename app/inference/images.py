"""Decoding: the bytes of a JPEG or PNG become the square of pixels that a model takes."""

import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.core.config import LimitSettings
from app.core.errors import OversizedImageError, TruncatedImageError, UndecodableImageError
from app.models.manifest import ModelManifest

# Pillow's own limit only warns, up to its double; `decode` applies the configured one.
Image.MAX_IMAGE_PIXELS = None

# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size while it stays this many times larger than the
# resized image. Measured on the 100 reference photographs, enlarged 3 and 4 times: with 2, decoding
# takes half the time, probabilities move by 0.005 on average and as many labels are right; with 1
# they move by 0.02 and labels change; with 3 the saving is nearly gone.
_DRAFT_MARGIN = 2

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# A progressive JPEG refines its pixels scan by scan, and a scan can be repeated in a few bytes: 200
# KB can hold a decoder for seven seconds. Encoders write about ten.
_START_OF_SCAN = b"\xff\xda"
_MOST_SCANS = 100

# First bytes of the two formats, and the bytes without which a file of that format is incomplete.
_END_MARKS = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG\r\n\x1a\n": b"IEND"}


class _Geometry(NamedTuple):
    """The image resized but not yet cropped, and the crop's place in it, in its pixels."""

    width: int
    height: int
    left: int
    top: int


def decode(data: bytes, manifest: ModelManifest, limits: LimitSettings) -> NDArray[np.uint8]:
    """Decode, turn upright, resize and crop: (``input_size``, ``input_size``, 3) RGB pixels.

    Transparency becomes white; of several frames the first counts. Raises
    :class:`OversizedImageError`, :class:`TruncatedImageError` or :class:`UndecodableImageError`.
    """
    if data.startswith(b"\xff\xd8\xff") and data.count(_START_OF_SCAN) > _MOST_SCANS:
        raise UndecodableImageError("The image has more scans than any camera or program writes.")
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            _check_size(image.size, limits)
            return _to_square(image, manifest)
    except (OversizedImageError, MemoryError):
        raise
    # Pillow's decoders answer damage with nearly every exception there is.
    except Exception as error:
        failure = TruncatedImageError if _is_truncated(data, error) else UndecodableImageError
        raise failure() from error


def _check_size(size: tuple[int, int], limits: LimitSettings) -> None:
    width, height = size
    if max(size) > limits.image_side or width * height > limits.image_pixels:
        raise OversizedImageError(
            f"The image is {width} × {height} pixels; at most {limits.image_side} a side and "
            f"{limits.image_pixels} in all are allowed. Scale it down."
        )


def _to_square(image: Image.Image, manifest: ModelManifest) -> NDArray[np.uint8]:
    resized = _geometry(image.size, manifest)
    image.draft(image.mode, (resized.width * _DRAFT_MARGIN, resized.height * _DRAFT_MARGIN))
    # Pillow's filters look beyond the box, so this equals, but for rounding, resizing the whole and
    # cropping then, without paying for what is cut off.
    across, down = image.width / resized.width, image.height / resized.height
    box = (
        resized.left * across,
        resized.top * down,
        min((resized.left + manifest.crop) * across, image.width),
        min((resized.top + manifest.crop) * down, image.height),
    )
    size = (manifest.input_size, manifest.input_size)
    square = _without_palette(image).resize(size, Image.Resampling.BICUBIC, box=box)
    turn = _UPRIGHT.get(_orientation(image))
    if turn is not None:
        square = square.transpose(turn)
    if square.mode == "RGBA":
        white = Image.new("RGBA", size, "white")
        square = Image.alpha_composite(white, square)
    return np.array(square.convert("RGB"))


def _geometry(size: tuple[int, int], manifest: ModelManifest) -> _Geometry:
    scale = manifest.resize / min(size)
    width, height = (round(side * scale) for side in size)
    return _Geometry(width, height, (width - manifest.crop) // 2, (height - manifest.crop) // 2)


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
