"""Recipes of images that cost a decoder more than they cost to send, each a set of choices."""

import io
import random
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np
from PIL import Image

from tests.image_files import png_chunk, render_png_header
from tests.jpeg_files import Scan, make_jpeg, render_frame, segment

LARGEST_FILE = 10_000_000

Recipe = Mapping[str, Any]

_SHAPES = ((10_000, 5_000), (16_384, 3_051), (3_051, 16_384), (4_000, 3_000), (700, 500), (8, 8))
_BYTES = (0, 1_000, 100_000, 1_000_000, LARGEST_FILE)

_SCAN_PATTERNS: Mapping[str, Sequence[Scan]] = {
    "one": (Scan((1, 2, 3), 0, 63),),
    "one by one": (Scan((1,), 0, 63), Scan((2,), 0, 63), Scan((3,), 0, 63)),
    "DC": (Scan(), Scan(high=1)),
    "AC": (Scan(), Scan((1,), 1, 63)),
    "AC of all": (Scan(), Scan((1,), 1, 63), Scan((2,), 1, 63), Scan((3,), 1, 63)),
    "refined": (Scan(low=1), Scan((1,), 1, 63, 0, 1), Scan((1,), 1, 63, 1, 0), Scan(high=1)),
    "bands": tuple(Scan((1,), first, first + 6) for first in range(1, 57, 7)),
}

JPEG_CHOICES: Mapping[str, Sequence[Any]] = {
    "format": ("JPEG",),
    "coding": (0xC0, 0xC1, 0xC2, 0xC2, 0xC2, 0xC9, 0xCA),
    "shape": _SHAPES,
    "sampling": ((0x11,), (0x11,) * 3, (0x22, 0x11, 0x11), (0x11,) * 4, (0x44, 0x11, 0x11)),
    "scans": (1, 3, 10, 20, 50, 100, 500),
    "pattern": tuple(_SCAN_PATTERNS),
    "data": (b"", b"\0", b"\xfe", b"\x55\xaa", b"\x6d", None),
    "data_bytes": _BYTES,
    "restarts": (0, 0, 1, 64),
    "storm": ("", "EXIF", "EXIF, tiny", "ICC", "8BIM", "comments", "DQT", "fill", "stray", "XMP"),
    "storm_bytes": _BYTES,
    "between": ("", "comments", "DHT", "DQT"),
}

PHOTO_CHOICES: Mapping[str, Sequence[Any]] = {
    "format": ("photograph",),
    "shape": ((10_000, 5_000), (5_000, 4_000), (3_000, 2_000), (500, 375)),
    "noise": (5, 40, 120),
    "quality": (10, 50, 95),
    "progressive": (False, True),
    "mode": ("RGB", "L", "CMYK"),
    "repeats": (0, 8, 40, 88, 500),
    "tail": (0, 1_000_000),
}

PNG_CHOICES: Mapping[str, Sequence[Any]] = {
    "format": ("PNG",),
    "kind": tuple(
        (colour, depth)
        for colour, depths in (
            (0, (1, 8, 16)),
            (2, (8, 16)),
            (3, (1, 8)),
            (4, (8, 16)),
            (6, (8, 16)),
        )
        for depth in depths
    ),
    "shape": _SHAPES,
    "interlaced": (False, True),
    "filter": (0, 1, 2, 3, 4),
    "pixels": ("zeros", "stripes", "noise"),
    "piece": (1 << 30, 65_536, 8_192, 64, 1),
    "transparency": (False, True),
    "storm": ("", "tEXt", "zTXt", "iTXt", "iCCP", "eXIf", "tRNS", "frames", "unknown", "IHDR"),
    "storm_bytes": _BYTES,
}

CHOICES = (JPEG_CHOICES, PHOTO_CHOICES, PNG_CHOICES)


def draw(luck: random.Random, choices: Mapping[str, Sequence[Any]]) -> Recipe:
    """A recipe of which every choice is left to luck."""
    return {name: luck.choice(values) for name, values in choices.items()}


def vary(luck: random.Random, recipe: Recipe) -> Recipe:
    """The same with one or two choices made anew."""
    choices = next(item for item in CHOICES if item["format"][0] == recipe["format"])
    names = luck.sample(sorted(choices), luck.choice((1, 2)))
    return {**recipe, **{name: luck.choice(choices[name]) for name in names}}


def bake(recipe: Recipe) -> bytes:
    """The file."""
    makers: Mapping[str, Callable[[Recipe], bytes]] = {
        "JPEG": _make_jpeg,
        "photograph": _make_photograph,
        "PNG": _make_png,
    }
    return makers[recipe["format"]](recipe)


def describe(recipe: Recipe) -> str:
    """A line about it, without what makes no difference."""
    words = [f"{name} {value}" for name, value in recipe.items() if value not in ("", 0, False)]
    return ", ".join(words).replace("format ", "", 1)


# --- JPEG ----------------------------------------------------------------------------------------


def _make_jpeg(recipe: Recipe) -> bytes:
    sampling, (width, height) = recipe["sampling"], recipe["shape"]
    count = max(1, recipe["scans"])
    data = _repeat(recipe["data"], min(recipe["data_bytes"], LARGEST_FILE * 9 // 10) // count)
    scans = []
    for scan in islice(cycle(_SCAN_PATTERNS[recipe["pattern"]]), count):
        wanted = range(1, len(sampling) + 1)
        components = wanted if len(scan.components) == 3 else [min(scan.components[0], wanted[-1])]
        scans.append(scan._replace(components=components, data=data + _between(recipe["between"])))
    frame = render_frame(width, height, recipe["coding"], sampling)
    used = len(data) * count + 2000
    storm = _jpeg_storm(recipe["storm"], min(recipe["storm_bytes"], LARGEST_FILE - used))
    if recipe["storm"] in ("stray", "DQT"):
        # The API looks closely at what comes before the frame.
        return make_jpeg(frame + storm, scans, b"", recipe["restarts"])
    return make_jpeg(frame, scans, storm, recipe["restarts"])


def _repeat(pattern: bytes | None, size: int) -> bytes:
    if pattern is None:
        noise = random.Random(size).randbytes(min(size, 100_000)).replace(b"\xff", b"\xfe")
        pattern = noise or b"\0"
    return (pattern * (size // len(pattern) + 1))[:size] if pattern else b""


def _between(kind: str) -> bytes:
    if kind == "comments":
        return segment(0xFE) * 20
    if kind == "DHT":
        return segment(0xC4, b"\x01" + bytes((0, 3)) + bytes(14) + bytes(3)) * 4
    return segment(0xDB, b"\x01" + b"\x01" * 64) * 4 if kind == "DQT" else b""


def _jpeg_storm(kind: str, size: int) -> bytes:
    block = b"8BIM\x04\x04\0\0\0\0\0\0"
    pieces = {
        "EXIF": segment(0xE1, b"Exif\0\0MM\0*" + bytes(60_000)),
        "EXIF, tiny": segment(0xE1, b"Exif\0\0" + b"x" * 12),
        "ICC": segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(60_000)),
        "8BIM": segment(0xED, b"Photoshop 3.0\0" + block * 5_000),
        "comments": segment(0xFE),
        "DQT": segment(0xDB, (b"\x03" + b"\x01" * 64) * 1_000),
        "fill": b"\xff",
        "stray": b"\xff\0a",
        "XMP": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"<" * 60_000),
    }
    piece = pieces.get(kind, b"")
    return piece * (size // len(piece)) if piece else b""


def _make_photograph(recipe: Recipe) -> bytes:
    width, height = recipe["shape"]
    tile = Image.effect_noise((500, 500), recipe["noise"])
    image = Image.fromarray(np.tile(np.asarray(tile), (height // 500 + 1, width // 500 + 1)))
    image = image.crop((0, 0, width, height)).convert(recipe["mode"])
    file = io.BytesIO()
    image.save(file, "JPEG", quality=recipe["quality"], progressive=recipe["progressive"])
    data = file.getvalue()
    last = data[data.rindex(b"\xff\xda") : -2]
    room = max(0, LARGEST_FILE - len(data)) // len(last)
    tail = b"\xff\xda" * (recipe["tail"] // 2)
    return data[:-2] + last * min(recipe["repeats"], room) + data[-2:] + tail


# --- PNG -----------------------------------------------------------------------------------------


def _make_png(recipe: Recipe) -> bytes:
    (width, height), (colour, depth) = recipe["shape"], recipe["kind"]
    header = png_chunk(
        b"IHDR", render_png_header(width, height, depth, colour, recipe["interlaced"])
    )
    storm = _png_storm(recipe["storm"], min(recipe["storm_bytes"], LARGEST_FILE // 2), header)
    palette = png_chunk(b"PLTE", bytes(range(256)) * 3) if colour == 3 else b""
    if recipe["transparency"] and colour in (0, 2, 3):
        palette += png_chunk(b"tRNS", {0: bytes(2), 2: bytes(6), 3: bytes(255)}[colour])
    packed, piece = _pack_rows(recipe, colour, depth), recipe["piece"]
    # A chunk takes twelve bytes more than its data.
    piece = max(piece, len(packed) * 12 // LARGEST_FILE * 2)
    pixels = b"".join(
        png_chunk(b"IDAT", packed[start : start + piece]) for start in range(0, len(packed), piece)
    )
    return b"\x89PNG\r\n\x1a\n" + header + storm + palette + pixels + png_chunk(b"IEND", b"")


def _pack_rows(recipe: Recipe, colour: int, depth: int) -> bytes:
    width, height = recipe["shape"]
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row_bytes = (width * channels * depth + 7) // 8
    packer = zlib.compressobj(1)
    packed = []
    for row in _list_rows(recipe["pixels"], row_bytes, height, recipe["interlaced"]):
        packed.append(packer.compress(bytes((recipe["filter"],)) + row))
    return (b"".join(packed) + packer.flush())[: LARGEST_FILE // 2]


def _list_rows(kind: str, row_bytes: int, height: int, is_interlaced: bool) -> Iterator[bytes]:
    """Rows; seven passes need some more of them, shorter ones, for which long ones do as well."""
    luck = random.Random(row_bytes)
    noise = luck.randbytes(min(row_bytes, 2_000))
    rows = {
        "zeros": bytes(row_bytes),
        "stripes": _repeat(b"\0\xff\x10", row_bytes),
        "noise": _repeat(noise, row_bytes),
    }
    for _ in range(height + (16 if is_interlaced else 0)):
        yield rows[kind]


def _png_storm(kind: str, size: int, header: bytes) -> bytes:
    megabyte = zlib.compress(bytes(1_000_000), 9)
    frame = png_chunk(b"fcTL", bytes(4) + header[8:16] + bytes(14))
    pieces = {
        "tEXt": png_chunk(b"tEXt", b"a\0b"),
        "zTXt": png_chunk(b"zTXt", b"a\0\0" + megabyte),
        "iTXt": png_chunk(b"iTXt", b"a\0\1\0\0\0" + megabyte),
        "iCCP": png_chunk(b"iCCP", b"a\0\0" + megabyte),
        "eXIf": png_chunk(b"eXIf", b"MM\0*\0\0\0\x08\xff\xff" + bytes(60_000)),
        "tRNS": png_chunk(b"tRNS", b"\xff" * 60_000),
        "frames": png_chunk(b"acTL", b"\0\0\xff\xff\0\0\0\0") + frame,
        "unknown": png_chunk(b"abCd", b""),
        "IHDR": header,
    }
    piece = pieces.get(kind, b"")
    return piece * (size // len(piece)) if piece else b""
