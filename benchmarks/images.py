"""The images that benchmarks upload: photographs of the size that applications scale to."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from benchmarks.workspace import JPEG_BYTES, ROOT

_SAMPLES = ROOT / "app" / "samples"
_SIZE = (500, 375)
_QUALITY = 92
_STRONGEST_GRAIN = 60


def make_images(folder: Path) -> list[Path]:
    """Six 500 × 375 JPEGs of about 108 KB: each sample as it is and mirrored."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for sample in sorted(_SAMPLES.glob("*.jpg")):
        with Image.open(sample) as image:
            picture = ImageOps.fit(image.convert("RGB"), _SIZE)
        for name, version in (
            (sample.stem, picture),
            (f"{sample.stem}-m", ImageOps.mirror(picture)),
        ):
            path = folder / f"{name}.jpg"
            path.write_bytes(_encode_grainy(version))
            paths.append(path)
    return paths


def find_images(folder: Path) -> list[Path]:
    """The JPEGs and PNGs of a folder, by name; empty if there are none."""
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png")
    )


def _encode_grainy(picture: Image.Image) -> bytes:
    """The picture with as much grain as gives a file of :data:`JPEG_BYTES`."""
    pixels = np.asarray(picture, dtype=np.int16)
    grain = np.random.default_rng(0).normal(size=pixels.shape)
    data = b""
    for strength in range(0, _STRONGEST_GRAIN, 2):
        noisy = np.clip(pixels + grain * strength, 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(noisy).save(file, "JPEG", quality=_QUALITY)
        data = file.getvalue()
        if len(data) >= JPEG_BYTES:
            break
    return data
