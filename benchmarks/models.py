"""The model that every participant runs, prepared once, and the answers that are right."""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from app.core.config import load_settings
from app.models.ml_models import prepare_model
from benchmarks.peers.documented_model import create_documented_classifier
from benchmarks.peers.model_function import DOCUMENTED, Classify, create_engine_classifier
from benchmarks.workspace import MODEL_CACHE

Answer = tuple[str, float]

# More than rounding does, far less than another image or another preprocessing.
_SAME_CONFIDENCE = 0.02


@dataclass(frozen=True)
class BenchmarkModel:
    """An engine with its converted model, or PyTorch as the peers' documentation serves it."""

    engine: str
    folder: Path

    def environment(self) -> dict[str, str]:
        """How a peer's process finds it."""
        return {"BENCHMARK_ENGINE": self.engine, "BENCHMARK_MODEL_FOLDER": str(self.folder)}

    def create_classifier(self) -> Classify:
        """The same function in this process."""
        if self.engine == DOCUMENTED:
            return create_documented_classifier()
        return create_engine_classifier(self.engine, self.folder)

    @cache
    def find_answers(self, images: tuple[Path, ...]) -> list[Answer]:
        """The class that comes first for each image, and its confidence."""
        classify = self.create_classifier()
        firsts = (classify(image.read_bytes())["predictions"][0] for image in images)
        return [(first["class_name"], first["confidence"]) for first in firsts]


DOCUMENTED_MODEL = BenchmarkModel(DOCUMENTED, MODEL_CACHE)


def prepare_benchmark_model(engine: str) -> BenchmarkModel:
    """Choose or take the engine as the service does; converts the model the first time."""
    os.environ.update(ENGINE=engine, MODEL_CACHE_DIR=str(MODEL_CACHE))
    prepared = prepare_model(load_settings())
    return BenchmarkModel(prepared.engine.value, prepared.folder)


def is_same_answer(first: Answer, second: Answer) -> bool:
    """Whether two answers to one image are the same but for what rounding does to them."""
    return first[0] == second[0] and abs(first[1] - second[1]) <= _SAME_CONFIDENCE
