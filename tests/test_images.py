"""Decoding: whatever is sent becomes a square of upright colours, or one of three errors."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from app.core.config import LimitSettings
from app.core.job_errors import OversizedImageError, TruncatedImageError, UndecodableImageError
from app.inference.images import decode
from app.models.manifest import ModelManifest
from tests.image_files import ORIENTATIONS, encode, encode_turned, make_png
from tests.photographs import FOLDER, needs_photographs, read_reference
from tests.preprocessing import preprocess

SAMPLES = Path(__file__).parents[1] / "app" / "samples"
LIMITS = LimitSettings()
RED, GREEN, BLUE, YELLOW = (230, 20, 20), (20, 200, 20), (20, 20, 230), (220, 220, 20)
CORNERS = (RED, GREEN, BLUE, YELLOW)
# JPEG and palettes change colours a little.
TOLERANCE = 40


def manifest(size: int = 64, resize: int = 64) -> ModelManifest:
    return ModelManifest.model_validate(
        {
            "name": "any",
            "version": "1",
            "labels": ["a"],
            "input_size": size,
            "resize": resize,
            "mean": [127, 127, 127],
            "std": [128, 128, 128],
        }
    )


def quarters(side: int = 96) -> Image.Image:
    """Red and green above, blue and yellow below."""
    image = Image.new("RGB", (side, side))
    half = side // 2
    for index, colour in enumerate(CORNERS):
        left, top = index % 2 * half, index // 2 * half
        image.paste(colour, (left, top, left + half, top + half))
    return image


def decoded(data: bytes) -> NDArray[np.uint8]:
    pixels = decode(data, manifest(), LIMITS)
    assert pixels.shape == (64, 64, 3) and pixels.dtype == np.uint8
    return pixels


def corners(data: bytes) -> list[list[int]]:
    pixels = decoded(data).astype(int)
    return [pixels[y, x].tolist() for y in (8, 55) for x in (8, 55)]


def assert_colours(data: bytes, expected: Any = CORNERS) -> None:
    assert np.abs(np.array(corners(data)) - np.array(expected)).max() <= TOLERANCE


def gray(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    level = round(0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2])
    return (level, level, level)


# --- Colour --------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_a_jpeg_keeps_its_colours(options: dict[str, Any]) -> None:
    assert_colours(encode(quarters(), "JPEG", quality=90, **options))


def test_a_cmyk_jpeg_is_not_inverted() -> None:
    assert_colours(encode(quarters().convert("CMYK"), "JPEG", quality=95))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_png_keeps_its_colours(mode: str) -> None:
    assert_colours(encode(quarters().convert(mode), "PNG"))


@pytest.mark.parametrize(("mode", "kind"), [("L", "JPEG"), ("L", "PNG"), ("LA", "PNG")])
def test_shades_of_gray_become_rgb(mode: str, kind: str) -> None:
    assert_colours(encode(quarters().convert(mode), kind), [gray(colour) for colour in CORNERS])


def test_black_and_white_become_rgb() -> None:
    image = quarters().convert("L").point(lambda level: 255 if level > 100 else 0).convert("1")
    expected = [(255,) * 3 if gray(colour)[0] > 100 else (0,) * 3 for colour in CORNERS]
    assert_colours(encode(image, "PNG"), expected)


def test_sixteen_bits_of_gray_are_scaled_not_clipped() -> None:
    levels = np.asarray(quarters().convert("L")).astype(np.uint16) * 257
    data = encode(Image.fromarray(levels), "PNG")
    assert_colours(data, [gray(colour) for colour in CORNERS])


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (6, 4)])
def test_sixteen_bits_of_colour_are_scaled_not_clipped(colour_type: int, channels: int) -> None:
    pixels = np.asarray(quarters().convert("RGBA"))[:, :, :channels].astype(">u2") * 257
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    assert_colours(make_png(96, 96, rows, 16, colour_type))


def test_transparent_becomes_white() -> None:
    image = quarters().convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 48, 48))
    assert_colours(encode(image, "PNG"), [(255, 255, 255), *CORNERS[1:]])


@pytest.mark.parametrize("mode", ["P", "RGB", "L"])
def test_the_transparent_colour_becomes_white(mode: str) -> None:
    image = quarters().quantize() if mode == "P" else quarters().convert(mode)
    transparent = image.getpixel((0, 0))
    rest = [gray(colour) for colour in CORNERS] if mode == "L" else CORNERS
    assert_colours(encode(image, "PNG", transparency=transparent), [(255, 255, 255), *rest[1:]])


# --- Orientation and frames ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_is_turned_upright(orientation: int, kind: str) -> None:
    assert_colours(encode_turned(quarters(), kind, orientation))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_data_costs_only_the_orientation() -> None:
    assert_colours(encode(quarters(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"))


def test_the_first_frame_of_an_animated_png_counts() -> None:
    other = [Image.new("RGB", (96, 96), "black")]
    assert_colours(encode(quarters(), "PNG", save_all=True, append_images=other))


def test_the_first_picture_of_an_mpo_counts() -> None:
    other = [Image.new("RGB", (96, 96), "black")]
    assert_colours(encode(quarters(), "MPO", save_all=True, append_images=other))


# --- Size ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (16384, 1), (1, 16384), (3, 2000)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_extreme_shapes_keep_their_colour(size: tuple[int, int], kind: str) -> None:
    data = encode(Image.new("RGB", size, RED), kind)
    assert np.abs(decoded(data).astype(int) - RED).max() <= TOLERANCE


def test_a_large_jpeg_looks_as_if_decoded_in_full() -> None:
    data = encode(quarters(1600), "JPEG", quality=95)
    assert_colours(data)


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    # 2 GB once unpacked; there are hardly any pixels in the file.
    with pytest.raises(OversizedImageError, match="16000 × 16000"):
        decode(make_png(16000, 16000, b"", 16, 6), manifest(), LIMITS)


def test_a_side_beyond_the_limit_is_refused() -> None:
    with pytest.raises(OversizedImageError):
        decode(encode(Image.new("1", (16385, 1)), "PNG"), manifest(), LIMITS)


def test_limits_may_be_wider_than_pillows_own() -> None:
    limits = LimitSettings(image_pixels=300_000_000)
    with pytest.raises(TruncatedImageError):
        decode(make_png(15000, 15000, b"\0", 1, 0), manifest(), limits)


def smooth_noise(size: tuple[int, int]) -> Image.Image:
    """Something that differs everywhere, so that a shift by a part of a pixel shows."""
    generator = np.random.default_rng(7)
    small = generator.integers(0, 256, (12, 12, 3)).astype(np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


# Reduced and enlarged, by whole factors and not, and averaged before.
@pytest.mark.parametrize("size", [(96, 70), (71, 71), (72, 500), (40, 33), (20, 300), (700, 505)])
@pytest.mark.parametrize("crop", [64, 56])
def test_pixels_are_those_of_pillows_bicubic_filter(size: tuple[int, int], crop: int) -> None:
    model = manifest(64, 72).model_copy(update={"crop": crop})
    image = smooth_noise(size)
    scale = 72 / min(size)
    whole = tuple(round(side * scale) for side in size)
    left, top = ((side - crop) // 2 for side in whole)
    expected = image.resize(whole, Image.Resampling.BICUBIC).crop(
        (left, top, left + crop, top + crop)
    )
    if crop != 64:
        expected = expected.resize((64, 64), Image.Resampling.BICUBIC)
    pixels = decode(encode(image, "PNG"), model, LIMITS).astype(int)
    difference = np.abs(pixels - np.asarray(expected))
    assert difference.mean() < 1 and difference.max() <= 8


def test_images_keep_their_pixels_while_others_are_decoded() -> None:
    model = manifest(64, 72)
    sizes = [(96, 70), (700, 505), (71, 71), (1200, 1200), (40, 33)]
    files = [encode(smooth_noise(size), "JPEG", quality=90) for size in sizes]
    alone = [decode(data, model, LIMITS).copy() for data in files]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda data: decode(data, model, LIMITS), files * 20))
    for index, pixels in enumerate(together):
        np.testing.assert_array_equal(pixels, alone[index % len(files)])


# --- Damage --------------------------------------------------------------------------------------

# Noise, so that pixels fill the files to their ends.
NOISE = Image.effect_noise((64, 64), 90)
FILES = {
    "jpeg": encode(quarters(), "JPEG"),
    "progressive jpeg": encode(quarters(), "JPEG", progressive=True),
    "png": encode(NOISE.convert("RGB"), "PNG"),
    "palette png": encode(NOISE.quantize(), "PNG"),
    "16 bit png": encode(Image.fromarray(np.asarray(NOISE).astype(np.uint16) * 251), "PNG"),
    "mpo": encode(quarters(), "MPO", save_all=True, append_images=[quarters()]),
}


@pytest.mark.parametrize("tenth", range(1, 10))
@pytest.mark.parametrize("name", ["jpeg", "progressive jpeg", "png", "palette png", "16 bit png"])
def test_a_file_that_ends_too_early_is_truncated(name: str, tenth: int) -> None:
    data = FILES[name]
    with pytest.raises(TruncatedImageError):
        decode(data[: len(data) * tenth // 10], manifest(), LIMITS)


@pytest.mark.parametrize("data", [b"", b"hello", b"GIF89a" + bytes(50), b"<svg/>", bytes(1000)])
def test_other_bytes_are_undecodable(data: bytes) -> None:
    with pytest.raises(UndecodableImageError) as caught:
        decode(data, manifest(), LIMITS)
    assert type(caught.value) is UndecodableImageError


@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore")
def test_damage_raises_nothing_but_the_three_errors(name: str) -> None:
    generator = random.Random(name)
    for _ in range(400):
        data = bytearray(FILES[name])
        for _ in range(generator.choice((1, 1, 2, 5, 30))):
            # Half of the damage where the headers are.
            end = generator.choice((min(100, len(data)), len(data)))
            data[generator.randrange(end)] = generator.randrange(256)
        if generator.random() < 0.2:
            del data[generator.randrange(len(data)) :]
        try:
            decoded(bytes(data))
        except (OversizedImageError, UndecodableImageError):
            pass


# --- The reference -------------------------------------------------------------------------------


@needs_photographs
def test_photographs_look_as_the_reference_preprocessing_makes_them() -> None:
    differences = []
    for item in read_reference():
        path = FOLDER / item["file"]
        pixels = decode(path.read_bytes(), manifest(224, 256), LIMITS).astype(int)
        differences.append(np.abs(pixels - preprocess(path)).mean())
    # Equal but for rounding; four photographs are large enough to be decoded at half their size.
    assert np.median(differences) < 0.25
    assert max(differences) < 1.5


def test_the_samples_can_be_decoded() -> None:
    for path in SAMPLES.glob("*.jpg"):
        assert decode(path.read_bytes(), manifest(), LIMITS).std() > 20
