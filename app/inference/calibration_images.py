"""The images that a user names for calibration: what an integer engine's ranges are measured on,
and, held out from that, what every engine's answers are compared on."""

import hashlib
from pathlib import Path

import numpy as np

from app.core.config import LimitSettings
from app.core.errors import ConfigurationError
from app.core.job_errors import JobFailedError
from app.inference.images import decode
from app.inference.resizing import Pixels
from app.models.manifest import ModelManifest

# Fewer say little about the range of every channel.
_FEWEST = 32
# More make a trial longer and change the ranges no more.
_MOST = 400
_SUFFIXES = {".jpg", ".jpeg", ".png"}
# One in so many is held out.
_HELD_OUT = 4


def find_images(folder: Path) -> tuple[Path, ...]:
    """The JPEG and PNG files in a folder. Raises :class:`ConfigurationError` for too few."""
    if not folder.is_dir():
        raise ConfigurationError(f"there is no folder {folder}: correct MODEL_CALIBRATION_DIR")
    images = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    if len(images) < _FEWEST:
        raise ConfigurationError(
            f"{folder} holds {len(images)} JPEG and PNG files, calibration needs {_FEWEST} or "
            "more: add images like those that will be classified"
        )
    return tuple(images[:_MOST])


def digest_images(folder: Path) -> str:
    """The SHA-256 of all the images, in hexadecimal."""
    digest = hashlib.sha256()
    for path in find_images(folder):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def read_images(folder: Path, manifest: ModelManifest, *, held_out: bool) -> Pixels:
    """Those to measure ranges on, or the quarter that is held out: (N, size, size, 3)."""
    images = []
    for index, path in enumerate(find_images(folder)):
        if (index % _HELD_OUT == 0) is held_out:
            try:
                images.append(decode(path.read_bytes(), manifest, LimitSettings()))
            except JobFailedError:
                raise ConfigurationError(
                    f"the calibration image {path} is damaged or too large: remove or replace it"
                ) from None
    return np.stack(images)
