"""Image files as tests need them: encoded, turned as cameras turn them, or made up by hand."""

import io
import struct
import zlib

from PIL import Image

ORIENTATIONS = range(1, 9)
_ORIENTATION_TAG = 0x0112

# How a camera that was held so stores what is upright: the inverse of what viewers do.
_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    """An image file of ``kind`` (JPEG, PNG, GIF, …)."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def encode_turned(image: Image.Image, kind: str, orientation: int, **options: object) -> bytes:
    """The image stored turned, with the EXIF tag that says how to turn it back."""
    turn = _STORED.get(orientation)
    exif = Image.Exif()
    exif[_ORIENTATION_TAG] = orientation
    stored = image if turn is None else image.transpose(turn)
    return encode(stored, kind, exif=exif, **options)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG file, with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def render_png_header(
    width: int, height: int, depth: int = 8, colour: int = 0, interlaced: bool = False
) -> bytes:
    """The data of an IHDR chunk."""
    return struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)


def make_png(
    width: int,
    height: int,
    rows: bytes,
    depth: int = 8,
    colour: int = 0,
    interlaced: bool = False,
) -> bytes:
    """A PNG whose header says what it likes."""
    header = render_png_header(width, height, depth, colour, interlaced)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows, 9))
    return b"\x89PNG\r\n\x1a\n" + chunks + png_chunk(b"IEND", b"")
