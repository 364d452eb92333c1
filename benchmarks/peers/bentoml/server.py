"""BentoML: a service whose API takes the image as the request's body, two workers."""

import os
from typing import Any

import bentoml

from benchmarks.peers.model_function import create_classifier


@bentoml.service(
    workers=int(os.environ["BENCHMARK_WORKERS"]),
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class Classifier:
    """One request, one image."""

    def __init__(self) -> None:
        self.classify_bytes = create_classifier()

    @bentoml.api
    def classify(self, image: bytes, /) -> dict[str, Any]:
        return self.classify_bytes(image)
