"""What every server and loop of the comparison calls: this project's own decoding and engines.

A peer finds which in its environment: ``BENCHMARK_ENGINE`` and ``BENCHMARK_MODEL_FOLDER``, or
``BENCHMARK_ENGINE=documented`` for PyTorch as the peers' documentation serves it.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

DOCUMENTED = "documented"

Classify = Callable[[bytes], dict[str, Any]]


def create_classifier() -> Classify:
    """The function from an image file's bytes to ``{"predictions": [...]}``, loaded and warm."""
    engine = os.environ["BENCHMARK_ENGINE"]
    if engine == DOCUMENTED:
        from benchmarks.peers.documented_model import create_documented_classifier

        return create_documented_classifier()
    return create_engine_classifier(engine, Path(os.environ["BENCHMARK_MODEL_FOLDER"]))


def create_engine_classifier(
    engine: str, folder: Path, decode: Callable[..., Any] | None = None
) -> Classify:
    """One of the service's engines, whose converted model lies in ``folder``.

    ``decode`` takes the place of the service's decoding.
    """
    from app.core.config import EngineName, load_settings
    from app.inference import images
    from app.inference.sources import find_source
    from app.models.ml_models import PreparedModel, load_model

    settings, name = load_settings(), EngineName(engine)
    # Chosen before, by the service itself: an environment of its own has other packages, and would
    # choose anew.
    prepared = PreparedModel(find_source(settings), "", name, name, folder, (), ())
    model, limits = load_model(prepared, settings), settings.limits
    decode = decode or images.decode

    def classify(data: bytes) -> dict[str, Any]:
        (predictions,) = model.classify([decode(data, model.manifest, limits)])
        return {"predictions": predictions}

    return classify
