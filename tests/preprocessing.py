"""The reference's preprocessing, step by step as it is described; the product takes one step."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def preprocess(path: Path) -> NDArray[np.uint8]:
    """Short side to 256 (bicubic), then the middle 224 × 224: (224, 224, 3) RGB pixels."""
    image = Image.open(path).convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize(
        (round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC
    )
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    return np.array(image.crop((left, top, left + 224, top + 224)))
