"""What the API learns of an image from its first bytes, however they arrive."""

import io
import random

import pytest
from PIL import Image

from app.api.image_header import ImageHeader, ImageHeaderReader
from app.core.errors import ServiceError
from app.core.image_errors import MalformedImageError, UnsupportedCodingError, UnsupportedImageError
from tests.jpeg_files import Scan, make_jpeg, render_scan, segment
from tests.workplace import read_sample

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def read(data: bytes, step: int) -> ImageHeader:
    reader = ImageHeaderReader()
    for start in range(0, len(data), step):
        if not reader.is_done:
            reader.feed(data[start : start + step])
    return reader.finish()


def render(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (321, 123), "teal").save(file, kind, **options)
    return file.getvalue()


FRAME = segment(0xC0, b"\x08" + (123).to_bytes(2, "big") + (321).to_bytes(2, "big") + b"\x03")
SCAN = render_scan(Scan())
XMP = segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(65_000))
PROFILE = segment(0xE2, b"ICC_PROFILE\0\1\xff" + bytes(50))
GOOD = {
    "jpeg": render("JPEG"),
    "progressive": render("JPEG", progressive=True),
    "png": render("PNG"),
    "fill bytes": b"\xff\xd8" + segment(0xE0, b"JFIF") + b"\xff\xff\xff" + FRAME,
    "marker without a length": b"\xff\xd8\xff\x01" + FRAME,
    "up to the first scan": b"\xff\xd8" + FRAME + segment(0xC4, bytes(20)) + SCAN,
    "the longest profile": b"\xff\xd8" + PROFILE * 255 + FRAME + SCAN,
    "500 segments": b"\xff\xd8" + segment(0xFE, b"") * 499 + FRAME + SCAN,
    "64 fill bytes": b"\xff\xd8" + b"\xff" * 64 + FRAME + SCAN,
    "stray bytes behind the frame": b"\xff\xd8" + FRAME + b"aaa" + segment(0xC9, bytes(20)),
    "other frames behind the scan": b"\xff\xd8" + FRAME + SCAN + segment(0xC9, bytes(20)),
    "cut off behind the frame": b"\xff\xd8" + FRAME + segment(0xFE, bytes(90))[:50],
    "large segments": b"\xff\xd8" + segment(0xE1, b"\xff\xc0" * 30_000) * 3 + FRAME,
}
BAD: dict[str, tuple[bytes, type[ServiceError]]] = {
    "text": (b"hello world", UnsupportedImageError),
    "half a signature": (b"\x89PNG\r\n\n\n" + bytes(30), UnsupportedImageError),
    "only a signature": (PNG_SIGNATURE, MalformedImageError),
    "no IHDR": (PNG_SIGNATURE + bytes(30), MalformedImageError),
    "no width": (PNG_SIGNATURE + b"\0\0\0\rIHDR" + bytes(20), MalformedImageError),
    "scan before frame": (b"\xff\xd8" + segment(0xDA, bytes(20)), MalformedImageError),
    "end before frame": (b"\xff\xd8" + segment(0xE0, b"") + b"\xff\xd9", MalformedImageError),
    "length of one": (b"\xff\xd8\xff\xe0\x00\x01" + bytes(20), MalformedImageError),
    "no marker": (b"\xff\xd8" + segment(0xE0, b"JFIF") + bytes(20), MalformedImageError),
    "501 segments": (b"\xff\xd8" + segment(0xFE, b"") * 500 + FRAME + SCAN, MalformedImageError),
    "500 behind the frame": (
        b"\xff\xd8" + FRAME + segment(0xFE, b"") * 500 + SCAN,
        MalformedImageError,
    ),
    "65 fill bytes": (b"\xff\xd8" + b"\xff" * 66 + FRAME, MalformedImageError),
    "65 fill bytes in places": (
        b"\xff\xd8" + (b"\xff" * 13 + segment(0xFE, b"")) * 5 + FRAME,
        MalformedImageError,
    ),
    "arithmetic conditioning": (
        b"\xff\xd8" + segment(0xCC, bytes(2)) + FRAME,
        UnsupportedCodingError,
    ),
    "arithmetic conditioning behind the frame": (
        b"\xff\xd8" + FRAME + segment(0xCC, bytes(2)) + SCAN,
        UnsupportedCodingError,
    ),
    "cut in a segment": (b"\xff\xd8" + segment(0xE1, bytes(900))[:500], MalformedImageError),
}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("step", [1, 2, 7, 4096, 1_000_000])
def test_kind_and_size_are_found_in_whatever_pieces(name: str, step: int) -> None:
    kind = "png" if name == "png" else "jpeg"
    assert read(GOOD[name], step) == ImageHeader(kind, 321, 123)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("step", [1, 2, 7, 1_000_000])
def test_what_is_no_image_is_refused_in_whatever_pieces(name: str, step: int) -> None:
    data, error = BAD[name]
    with pytest.raises(error):
        read(data, step)


@pytest.mark.parametrize(
    "marker", [0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xD0), 0xDE, 0xDF], ids=hex
)
def test_codings_that_no_browser_shows_are_refused(marker: int) -> None:
    with pytest.raises(UnsupportedCodingError) as refusal:
        read(b"\xff\xd8" + segment(marker, FRAME[4:]) + SCAN, 4096)
    assert (refusal.value.status, refusal.value.code) == (422, "unsupported-image")


def test_ten_megabytes_of_extended_xmp_are_passed_over() -> None:
    header = read(b"\xff\xd8" + XMP * 155 + FRAME + SCAN, 65_536)
    assert header == ImageHeader("jpeg", 321, 123)


def test_what_follows_the_first_scan_is_not_looked_at() -> None:
    reader = ImageHeaderReader()
    reader.feed(make_jpeg(FRAME, [Scan()]))
    assert reader.is_done


def test_a_text_is_refused_by_its_first_bytes() -> None:
    with pytest.raises(UnsupportedImageError):
        ImageHeaderReader().feed(b"GIF")


def test_pieces_make_no_difference_to_damaged_images() -> None:
    """Either all pieces of a damaged file lead to the same header, or all to the same refusal."""
    luck = random.Random(0)
    for _ in range(300):
        data = bytearray(read_sample("cat.jpg")[:2000])
        for _ in range(luck.randrange(1, 20)):
            data[luck.randrange(2, 700)] = luck.randrange(256)
        assert len({_outcome(bytes(data), step) for step in (1, 5, 64, 2000)}) == 1


def _outcome(data: bytes, step: int) -> str:
    try:
        return repr(read(data, step))
    except ServiceError as error:
        return error.code
