"""PyTorch as the documentation of the peers serves it: Pillow, plain preprocessing, eager mode."""

import io
from typing import Any

import numpy as np
import torch
from PIL import Image

from app.core.config import load_settings
from app.inference.checkpoints import load_checkpoint
from app.inference.sources import find_source
from benchmarks.peers.model_function import Classify

_TOP = 5


def create_documented_classifier() -> Classify:
    """Open, resize, crop, normalise, run the module, softmax, top five."""
    source = find_source(load_settings())
    manifest = source.manifest
    # Two processes on two cores: more threads would only get in each other's way.
    torch.set_num_threads(1)
    module = load_checkpoint(source).module.eval()
    mean = torch.tensor(manifest.mean).view(3, 1, 1)
    std = torch.tensor(manifest.std).view(3, 1, 1)

    def preprocess(data: bytes) -> torch.Tensor:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        scale = manifest.resize / min(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        image = image.resize(size, Image.Resampling.BICUBIC)
        left, top = (size[0] - manifest.crop) // 2, (size[1] - manifest.crop) // 2
        image = image.crop((left, top, left + manifest.crop, top + manifest.crop))
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
        return (pixels - mean) / std

    def classify(data: bytes) -> dict[str, Any]:
        with torch.no_grad():
            probabilities = module(preprocess(data).unsqueeze(0))[0].softmax(dim=0)
        confidences, indexes = probabilities.topk(_TOP)
        pairs = zip(indexes.tolist(), confidences.tolist(), strict=True)
        return {
            "predictions": [
                {"class_name": manifest.labels[index], "confidence": round(confidence, 6)}
                for index, confidence in pairs
            ]
        }

    return classify
