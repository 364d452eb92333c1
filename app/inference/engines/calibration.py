"""Calibration: the images that engines are compared on, and when two of them agree."""

import time
from importlib.resources import files

import numpy as np
from pydantic import BaseModel, ConfigDict

from app.core.config import LimitSettings
from app.inference.engines.engine import Engine, Pixels, Probabilities
from app.inference.images import decode
from app.models.manifest import ModelManifest

_SAMPLES = ("cat.jpg", "coffee.jpg", "rocket.jpg")
# The whole image, and its middle enlarged.
_ZOOMS = (1.0, 1.15, 1.5)

# Where the reference's first two classes are closer than this, either may come first.
_COIN_TOSS = 0.1
# Limits of the largest change of a probability, on average and for one image. Measured with the
# built-in model: bfloat16 0.020 and 0.08 here, where the model is unsure of the rocket, and 0.009
# and 0.05 on 100 photographs, with as many labels right; float32 elsewhere 0.000001. Input shifted
# by one pixel 0.04 and 0.17; red and blue swapped 0.18 and 0.35.
_MEAN_LIMIT = 0.03
_SINGLE_LIMIT = 0.15
# A model that answers nearly the same for every image can't hide a wrong engine behind that: the
# difference must also be small against how far its answers lie apart.
_SHARE_OF_SPREAD = 0.1
_ROUNDING = 1e-4

# The fastest of this many runs counts: it is the one that neighbours disturbed least.
_RUNS = 15


class Agreement(BaseModel):
    """How an engine's answers compare with the reference's; differences are of probabilities."""

    model_config = ConfigDict(frozen=True)

    images: int
    same_class: int
    mean_difference: float
    max_difference: float
    agrees: bool


def calibration_images(manifest: ModelManifest) -> Pixels:
    """Eighteen images (18, ``input_size``, ``input_size``, 3) made from the samples."""
    images: list[Pixels] = []
    for name in _SAMPLES:
        data = (files("app") / "samples" / name).read_bytes()
        for zoom in _ZOOMS:
            nearer = manifest.model_copy(update={"resize": round(manifest.resize * zoom)})
            image = decode(data, nearer, LimitSettings())
            images += [image, image[:, ::-1]]
    return np.stack(images)


def compare(reference: Probabilities, candidate: Probabilities) -> Agreement:
    """Compare answers (N, classes) to the same images. NaN never agrees."""
    differences = np.abs(reference - candidate).max(axis=1)
    same = reference.argmax(axis=1) == candidate.argmax(axis=1)
    ranked = np.sort(reference, axis=1)
    second = ranked[:, -2] if reference.shape[1] > 1 else 0.0
    decisive = ranked[:, -1] - second > _COIN_TOSS
    spread = float(np.abs(reference - reference.mean(axis=0)).max(axis=1).mean())
    limit = max(_ROUNDING, min(_MEAN_LIMIT, _SHARE_OF_SPREAD * spread))
    mean, largest = float(differences.mean()), float(differences.max())
    return Agreement(
        images=len(reference),
        same_class=int(same.sum()),
        mean_difference=mean if np.isfinite(mean) else 1.0,
        max_difference=largest if np.isfinite(largest) else 1.0,
        agrees=bool(mean <= limit and largest <= _SINGLE_LIMIT and same[decisive].all()),
    )


def measure_milliseconds(engine: Engine, images: Pixels, size: int = 1) -> float:
    """How long an image takes at best, ``size`` of them at once, once the engine has warmed up.

    Where there are fewer images, some come more than once.
    """
    images = np.concatenate([images] * -(-size // len(images)))
    engine.predict(images[:size])
    durations = []
    for index in range(_RUNS):
        batch = images[index % (len(images) - size + 1) :][:size]
        start = time.perf_counter()
        engine.predict(batch)
        durations.append(time.perf_counter() - start)
    return round(min(durations) * 1000 / size, 3)
