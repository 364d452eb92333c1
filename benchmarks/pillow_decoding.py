"""The peers' bare loop: decoding with Pillow alone, kept as it was to measure against.

This is what the service did to an upright JPEG before it had a resizing of its own.
"""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.models.manifest import ModelManifest
from benchmarks.peers.model_function import Classify, create_engine_classifier

_DRAFT_MARGIN = 2


def decode_with_pillow(data: bytes, manifest: ModelManifest) -> NDArray[np.uint8]:
    """Decode, resize and crop: (``input_size``, ``input_size``, 3) RGB pixels."""
    with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
        scale = manifest.resize / min(image.size)
        width, height = (round(side * scale) for side in image.size)
        left, top = (width - manifest.crop) // 2, (height - manifest.crop) // 2
        image.draft(image.mode, (width * _DRAFT_MARGIN, height * _DRAFT_MARGIN))
        across, down = image.width / width, image.height / height
        box = (
            left * across,
            top * down,
            min((left + manifest.crop) * across, image.width),
            min((top + manifest.crop) * down, image.height),
        )
        size = (manifest.input_size, manifest.input_size)
        square = image.convert("RGB").resize(size, Image.Resampling.BICUBIC, box=box)
        return np.array(square)


def create_pillow_classifier(engine: str, folder: Path) -> Classify:
    """The same as the service's function but for the decoding."""
    return create_engine_classifier(
        engine, folder, lambda data, manifest, _: decode_with_pillow(data, manifest)
    )
