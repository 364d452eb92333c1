"""What decoding will cost, by what a file says: scans, pixels, metadata."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from app.core.config import LimitSettings
from app.core.job_errors import (
    ImageTooCostlyError,
    OversizedImageError,
    TruncatedImageError,
    UndecodableImageError,
)
from app.inference.decoding.examination import examine
from app.inference.images import decode
from tests.framing import FRAMING
from tests.image_files import encode, encode_turned, make_png, png_chunk, render_png_header
from tests.jpeg_files import BASELINE, PROGRESSIVE, Scan, make_jpeg, render_frame, segment
from tests.workplace import read_sample

LIMITS = LimitSettings()
CAT = read_sample("cat.jpg")
IMAGE = Image.effect_noise((300, 200), 60).convert("RGB")
PROGRESSIVE_CAT = encode(IMAGE, "JPEG", progressive=True)
PNG = encode(IMAGE, "PNG")
MANY_SCANS = b"\xff\xda" * 120


def insert(data: bytes, pieces: bytes, position: int = 2) -> bytes:
    """Behind a JPEG's first marker, or wherever."""
    return data[:position] + pieces + data[position:]


def many_scans(count: int, width: int, height: int) -> bytes:
    frame = render_frame(width, height, PROGRESSIVE)
    return make_jpeg(frame, [Scan(), *[Scan((1,), 1, 63)] * (count - 1)])


def assert_same_pixels(data: bytes, original: bytes) -> None:
    np.testing.assert_array_equal(decode(data, FRAMING, LIMITS), decode(original, FRAMING, LIMITS))


@pytest.mark.parametrize(
    "hide",
    [
        lambda data: data + MANY_SCANS,
        lambda data: insert(data, segment(0xED, MANY_SCANS)),
        lambda data: insert(data, segment(0xFE, MANY_SCANS)),
        lambda data: insert(data, segment(0xE2, b"ICC_PROFILE\0\1\1" + MANY_SCANS)),
        # Between the last two scans.
        lambda data: insert(data, segment(0xFE, MANY_SCANS), data.rindex(b"\xff\xda")),
    ],
    ids=["motion photograph", "APP13", "comment", "profile", "comment between scans"],
)
def test_scans_are_counted_where_scans_are(hide: Callable[[bytes], bytes]) -> None:
    assert not examine(hide(PROGRESSIVE_CAT), LIMITS).is_costly
    assert_same_pixels(hide(PROGRESSIVE_CAT), PROGRESSIVE_CAT)


@pytest.mark.parametrize(
    ("count", "width", "height"),
    [(101, 8, 8), (500, 64, 64), (21, 10_000, 5_000), (51, 5_000, 4_000)],
)
def test_more_scans_than_any_program_writes_are_refused(
    count: int, width: int, height: int
) -> None:
    with pytest.raises(ImageTooCostlyError):
        examine(many_scans(count, width, height), LIMITS)


@pytest.mark.parametrize(
    ("count", "width", "height"), [(100, 8, 8), (18, 10_000, 5_000), (50, 5_000, 4_000)]
)
def test_as_many_scans_as_programs_write_are_not(count: int, width: int, height: int) -> None:
    examine(many_scans(count, width, height), LIMITS)


@pytest.mark.parametrize(
    "data",
    [
        many_scans(10, 10_000, 5_000),
        many_scans(2, 6_000, 4_000),
        many_scans(100, 2_000, 2_000),
        make_jpeg(render_frame(5_000, 4_000, 0xCA), [Scan()]),
        make_jpeg(render_frame(64, 64), [Scan()], segment(0xDB, (b"\x03" + b"\1" * 64) * 200)),
        make_png(10_000, 5_000, b"", colour=4),
        make_png(5_000, 5_000, b"", colour=6),
        make_png(4_000, 3_000, b"", 16, 6),
    ],
    ids=["50 MP", "24 MP", "100 scans", "arithmetic", "200 tables", "LA", "RGBA", "16 bits"],
)
def test_what_promises_cost_is_decoded_under_guard(data: bytes) -> None:
    assert examine(data, LIMITS).is_costly


@pytest.mark.parametrize(
    "data",
    [
        CAT,
        PNG,
        PROGRESSIVE_CAT,
        many_scans(10, 4_000, 3_000),
        make_jpeg(render_frame(8_000, 6_000, BASELINE), [Scan((1, 2, 3), 0, 63)]),
        make_png(4_000, 3_000, b"", colour=6),
        make_png(10_000, 5_000, b""),
    ],
    ids=["cat", "PNG", "progressive", "12 MP progressive", "48 MP", "12 MP RGBA", "50 MP gray"],
)
def test_what_cameras_and_programs_write_is_not(data: bytes) -> None:
    examined = examine(data, LIMITS)
    assert examined.data is data and not examined.is_costly


def test_a_larger_limit_allows_more_scans() -> None:
    data = many_scans(30, 10_000, 5_000)
    assert examine(data, LimitSettings(image_pixels=100_000_000)).is_costly


@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_metadata_is_passed_over_without_losing_orientation_or_colours(orientation: int) -> None:
    turned = encode_turned(IMAGE, "JPEG", orientation)
    exif = insert(turned, segment(0xE1, b"Exif\0\0" + b"x" * 10) * 400, turned.index(b"\xff\xdb"))
    assert len(examine(exif, LIMITS).data) < len(turned) + 100
    assert_same_pixels(exif, turned)


def test_a_cmyk_image_keeps_its_colours_without_its_metadata() -> None:
    plain = encode(IMAGE.convert("CMYK"), "JPEG")
    stuffed = insert(plain, segment(0xED, b"Photoshop 3.0\0") * 200)
    assert len(examine(stuffed, LIMITS).data) < len(stuffed)
    assert_same_pixels(stuffed, plain)


@pytest.mark.parametrize("stray", [b"\xff", b"a", b"\xff\0"])
def test_stray_bytes_are_passed_over_in_one_step(stray: bytes) -> None:
    data = insert(CAT, stray * 5_000, CAT.index(b"\xff\xc4"))
    assert examine(data, LIMITS).data == examine(CAT, LIMITS).data
    assert_same_pixels(data, CAT)


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"tEXt", b"a\0b"),
        png_chunk(b"iCCP", b"a\0\0x"),
        png_chunk(b"abCd", b""),
        png_chunk(b"tRNS", bytes(6)),
    ],
)
def test_chunks_that_say_nothing_of_pixels_are_passed_over(chunk: bytes) -> None:
    data = insert(PNG, chunk * 500, 33)
    once = insert(PNG, chunk, 33)
    assert len(examine(data, LIMITS).data) < len(PNG) + 100
    assert_same_pixels(data, once if b"tRNS" in chunk else PNG)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_png_keeps_its_orientation_without_its_metadata(orientation: int) -> None:
    turned = encode_turned(IMAGE, "PNG", orientation)
    assert_same_pixels(insert(turned, png_chunk(b"tEXt", b"a\0b") * 500, 33), turned)


@pytest.mark.parametrize(
    "data",
    [
        insert(CAT, segment(0xE1, b"Exif\0\0") * 1_001),
        insert(CAT, segment(0xFE) * 500_000),
        insert(PNG, png_chunk(b"tEXt", b"a\0b") * 10_001, 33),
        insert(
            PROGRESSIVE_CAT, segment(0xFE) * 1_001 + segment(0xDA) * 99, len(PROGRESSIVE_CAT) - 2
        ),
    ],
    ids=["EXIF", "comments", "PNG", "between scans"],
)
def test_more_pieces_than_any_program_writes_are_refused(data: bytes) -> None:
    with pytest.raises(ImageTooCostlyError):
        examine(data, LIMITS)


@pytest.mark.parametrize(
    "data",
    [
        insert(CAT, render_frame(10, 10)),
        insert(PNG, png_chunk(b"IHDR", render_png_header(7_000, 7_000)), 33),
        make_jpeg(b"", [Scan()]),
        insert(CAT, b"\xff\xd9"),
        b"hello",
    ],
    ids=["two frames", "two headers", "no frame", "no scan", "no image"],
)
def test_files_that_contradict_themselves_are_damaged(data: bytes) -> None:
    with pytest.raises(UndecodableImageError) as caught:
        examine(data, LIMITS)
    assert type(caught.value) is UndecodableImageError


@pytest.mark.parametrize("rest", [b"", b"\xff" * 5_000, b"a" * 5_000, segment(0xFE, bytes(9))[:-1]])
def test_a_file_that_ends_before_its_first_scan_is_truncated(rest: bytes) -> None:
    with pytest.raises(TruncatedImageError):
        examine(CAT[: CAT.index(b"\xff\xc4")] + rest, LIMITS)


def test_too_many_pixels_are_refused_before_anything_is_decoded() -> None:
    with pytest.raises(OversizedImageError):
        examine(many_scans(100, 10_000, 5_001), LIMITS)
