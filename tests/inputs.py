"""Uploads as they come: good, odd, damaged and hostile, each with what it must get.

``python -m tests.inputs`` writes the table in docs/inputs.md; a test keeps it true.
"""

import io
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.image_files import ORIENTATIONS, encode, encode_turned, make_png, png_chunk
from tests.jpeg_files import Scan, make_jpeg, render_frame, segment

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "docs" / "inputs.md"
CAT_JPEG = (ROOT / "app" / "samples" / "cat.jpg").read_bytes()
MAX_FILE_SIZE = 10_485_760
EXIF = b"Exif\0\0" + bytes(8)

CLASSIFIED = "classified"
"""Accepted, and the cat is recognised."""
ACCEPTED = "completed"
"""Accepted and completed; what the model sees in it is its own business."""


@dataclass(frozen=True)
class Upload:
    """A request body for POST /classify, and the outcome: CLASSIFIED, ACCEPTED or a code."""

    name: str
    data: bytes
    outcome: str


def cat(mode: str = "RGB") -> Image.Image:
    """The sample cat, converted."""
    image = Image.open(io.BytesIO(CAT_JPEG)).convert("RGB")
    if mode == "I;16":
        wide = np.asarray(image.convert("L")).astype(np.uint16) * 257
        return Image.fromarray(wide)
    return image.convert(mode)


def make_colour_png_16() -> bytes:
    """The cat with 16 bits a channel."""
    pixels = np.asarray(cat()).astype(">u2") * 257
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return make_png(pixels.shape[1], pixels.shape[0], rows, depth=16, colour=2)


def _good_images() -> Iterator[Upload]:
    def good(name: str, data: bytes) -> Upload:
        return Upload(name, data, CLASSIFIED)

    yield good("JPEG, colour", CAT_JPEG)
    yield good("JPEG, progressive", encode(cat(), "JPEG", progressive=True, quality=92))
    yield good("JPEG, grayscale", encode(cat("L"), "JPEG", quality=95))
    yield good("JPEG, CMYK", encode(cat("CMYK"), "JPEG", quality=95))
    yield good("JPEG, 4:4:4", encode(cat(), "JPEG", subsampling=0, quality=95))
    yield good(
        "MPO (two pictures, as from phones)",
        encode(cat(), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 64))], quality=92),
    )
    yield good("JPEG with a zip file behind it", CAT_JPEG + b"PK\x05\x06" + bytes(18))
    yield good("JPEG with 1 MB of zeros behind it", CAT_JPEG + bytes(1_000_000))
    yield good(
        "JPEG with 60 kB of EXIF",
        encode(cat(), "JPEG", quality=92, exif=b"Exif\0\0" + bytes(60_000)),
    )
    yield good("JPEG with a film behind it (motion photograph)", CAT_JPEG + b"\xff\xda" * 120)
    yield good("JPEG with 120 scans' marks in APP13", _insert(segment(0xED, b"\xff\xda" * 120)))
    yield good("JPEG with 3 MB of extended XMP", _insert(segment(0xE1, bytes(65_000)) * 46))
    yield good("JPEG with a profile in 255 pieces", _insert(segment(0xE2, bytes(20_000)) * 255))
    yield good("PNG, colour", encode(cat(), "PNG"))
    yield good("PNG, interlaced", _interlaced())
    yield good("PNG, grayscale", encode(cat("L"), "PNG"))
    yield good("PNG, palette", encode(cat().quantize(256), "PNG"))
    yield good(
        "PNG, palette with transparency", encode(cat().quantize(255), "PNG", transparency=254)
    )
    yield good("PNG, alpha", encode(cat("RGBA"), "PNG"))
    yield good("PNG, grayscale with alpha", encode(cat("LA"), "PNG"))
    yield good("PNG, 16 bits, grayscale", encode(cat("I;16"), "PNG"))
    yield good("PNG, 16 bits, colour", make_colour_png_16())
    yield good(
        "PNG, animated (first frame)",
        encode(cat(), "PNG", save_all=True, append_images=[Image.new("RGB", cat().size)]),
    )
    for orientation in ORIENTATIONS:
        turned = encode_turned(cat(), "JPEG", orientation, quality=95)
        yield good(f"JPEG, EXIF orientation {orientation}", turned)


def _interlaced() -> bytes:
    """Adam7: seven passes, each a smaller image of its own."""
    pixels = np.asarray(cat())
    rows = b""
    for x, y, step_x, step_y in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        rows += b"".join(b"\0" + row.tobytes() for row in pixels[y::step_y, x::step_x])
    height, width, _ = pixels.shape
    return make_png(width, height, rows, colour=2, interlaced=True)


def _odd_images() -> Iterator[Upload]:
    yield Upload("PNG, black and white (1 bit)", encode(cat("1"), "PNG"), CLASSIFIED)
    yield Upload("1 × 1 pixel", encode(Image.new("RGB", (1, 1)), "PNG"), ACCEPTED)
    yield Upload("16,384 × 1 pixels", encode(Image.new("RGB", (16_384, 1)), "PNG"), ACCEPTED)
    yield Upload("1 × 16,384 pixels", encode(Image.new("RGB", (1, 16_384)), "PNG"), ACCEPTED)
    yield Upload(
        "10,000 × 5,000 pixels, 50 MP", make_png(10_000, 5_000, bytes(50_005_000)), ACCEPTED
    )
    yield Upload("exactly 10,485,760 bytes", CAT_JPEG.ljust(MAX_FILE_SIZE, b"\0"), CLASSIFIED)


def _refused() -> Iterator[Upload]:
    too_large = "413 image-too-large"
    unsupported = "415 unsupported-image"
    malformed = "422 malformed-image"
    yield Upload("empty file", b"", "422 empty-file")
    yield Upload("10,485,761 bytes", CAT_JPEG.ljust(MAX_FILE_SIZE + 1, b"\0"), "413 file-too-large")
    yield Upload("text named .jpg", b"I am a photograph, honestly.\n", unsupported)
    for kind in ("GIF", "BMP", "WebP", "TIFF", "ICO"):
        yield Upload(kind, encode(cat().resize((64, 64)), kind), unsupported)
    yield Upload(
        "SVG", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', unsupported
    )
    yield Upload("PDF", b"%PDF-1.7\n" + bytes(100), unsupported)
    yield Upload("zip file", b"PK\x03\x04" + bytes(100), unsupported)
    yield Upload("zeros", bytes(1000), unsupported)
    yield Upload("five letters", b"hello", unsupported)
    yield Upload("JPEG signature alone", b"\xff\xd8\xff", malformed)
    yield Upload("JPEG that ends before it has a size", CAT_JPEG[:100], malformed)
    yield Upload("PNG signature alone", b"\x89PNG\r\n\x1a\n", malformed)
    yield Upload(
        "PNG without its header", b"\x89PNG\r\n\x1a\n" + png_chunk(b"IDAT", b"x" * 20), malformed
    )
    yield Upload("PNG of 0 × 10 pixels", make_png(0, 10, b""), malformed)
    for name, coding in (("arithmetic-coded", 0xCA), ("lossless", 0xC3), ("hierarchical", 0xC6)):
        frame = render_frame(500, 375, coding)
        yield Upload(f"JPEG, {name}", make_jpeg(frame, [Scan()]), "422 unsupported-image")
    yield Upload(
        "JPEG with 500,000 pieces of EXIF", _insert(segment(0xE1, EXIF) * 500_000), malformed
    )
    yield Upload("JPEG with 10 MB of fill bytes", _insert(b"\xff" * 10_000_000), malformed)
    yield Upload("PNG that claims 2,500 MP", make_png(50_000, 50_000, b""), too_large)
    yield Upload("PNG that claims 16,385 × 1 pixels", make_png(16_385, 1, b""), too_large)
    yield Upload("PNG that claims 10,000 × 5,001 pixels", make_png(10_000, 5_001, b""), too_large)


def _failing() -> Iterator[Upload]:
    truncated, damaged = "422 truncated-image", "422 undecodable-image"
    for tenth in range(1, 10):
        size = len(CAT_JPEG) * tenth // 10
        yield Upload(f"JPEG cut off after {tenth}0 %", CAT_JPEG[:size], truncated)
    png = encode(cat(), "PNG")
    for tenth in (2, 5, 9):
        yield Upload(f"PNG cut off after {tenth}0 %", png[: len(png) * tenth // 10], truncated)
    costly = "422 image-too-costly"
    yield Upload("JPEG that repeats a scan 200 times", _scan_bomb(), costly)
    frame = render_frame(10_000, 5_000, 0xC2)
    scans = [Scan(), *[Scan((1,), 1, 63)] * 99]
    yield Upload("JPEG, 50 MP in 100 scans", make_jpeg(frame, scans), costly)
    chunk = png_chunk(b"tEXt", b"a\0b")
    yield Upload("PNG in 500,000 pieces", png[:33] + chunk * 500_000 + png[33:], costly)
    yield Upload("PNG with a wrong checksum", _flip(png, len(png) // 2), damaged)
    yield Upload("PNG header, then noise", png[:40] + bytes(range(256)) * 40, truncated)
    yield Upload("PNG, text chunk that unpacks to 1 GB", _text_bomb(), damaged)


def _insert(segments: bytes) -> bytes:
    return CAT_JPEG[:2] + segments + CAT_JPEG[2:]


def _flip(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]


def _scan_bomb() -> bytes:
    jpeg = encode(cat(), "JPEG", progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:-2] + jpeg[last:-2] * 200 + jpeg[-2:]


def _text_bomb() -> bytes:
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    packed = b"".join(packer.compress(block) for _ in range(1024)) + packer.flush()
    png = encode(Image.new("RGB", (64, 64)), "PNG")
    return png[:33] + png_chunk(b"zTXt", b"Comment\0\0" + packed) + png[33:]


def create_uploads() -> list[Upload]:
    """All of them."""
    rooms: tuple[Callable[[], Iterator[Upload]], ...] = (
        _good_images,
        _odd_images,
        _refused,
        _failing,
    )
    return [upload for room in rooms for upload in room()]


def render_table(uploads: list[Upload]) -> str:
    """docs/inputs.md."""
    lines = [
        "# What odd uploads get",
        "",
        "Every line is a test (`tests/test_inputs.py`) against the running service. *Classified*:",
        "the cat in the image is recognised. *Completed*: accepted and classified as something. A",
        "code with a status is the problem document that `POST /classify` answers, or, where only",
        "decoding can find the damage, the one that `GET /result/{job_id}` answers.",
        "",
        "| upload | outcome |",
        "|---|---|",
    ]
    lines += [f"| {upload.name} | {upload.outcome} |" for upload in uploads]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TABLE.write_text(render_table(create_uploads()))
