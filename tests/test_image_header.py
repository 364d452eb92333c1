"""What the API learns of an image from its first bytes, however they arrive."""

import io
import random

import pytest
from PIL import Image

from app.api.image_header import ImageHeader, ImageHeaderReader
from app.core.errors import MalformedImageError, ServiceError, UnsupportedImageError
from tests.workplace import read_sample

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def read(data: bytes, step: int) -> ImageHeader:
    reader = ImageHeaderReader()
    for start in range(0, len(data), step):
        if reader.header is None:
            reader.feed(data[start : start + step])
    return reader.finish()


def render(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (321, 123), "teal").save(file, kind, **options)
    return file.getvalue()


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2, "big") + content


FRAME = segment(0xC0, b"\x08" + (123).to_bytes(2, "big") + (321).to_bytes(2, "big") + b"\x03")
GOOD = {
    "jpeg": render("JPEG"),
    "progressive": render("JPEG", progressive=True),
    "png": render("PNG"),
    "fill bytes": b"\xff\xd8" + segment(0xE0, b"JFIF") + b"\xff\xff\xff" + FRAME,
    "marker without a length": b"\xff\xd8\xff\x01" + FRAME,
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
