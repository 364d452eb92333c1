"""EfficientNet-Lite0 answers as the reference implementation does."""

import numpy as np
import pytest
import torch

from app.core.config import Settings
from app.inference.architectures.efficientnet_lite import EfficientNetLite0
from app.inference.checkpoints import load_checkpoint
from app.inference.engines.pytorch import PyTorchEngine
from app.inference.sources import find_source
from tests.photographs import FOLDER, needs_photographs, read_reference
from tests.preprocessing import preprocess


@needs_photographs
def test_every_reference_answer_is_met_within_a_thousandth() -> None:
    source = find_source(Settings())
    engine = PyTorchEngine(load_checkpoint(source), source.manifest, threads=2)
    references = read_reference()
    images = [preprocess(FOLDER / item["file"]) for item in references]
    answers = engine.predict(np.stack(images))

    best = [item["top5"][0]["index"] for item in references]
    assert answers.argmax(axis=1).tolist() == best
    differences = [
        abs(answer[entry["index"]] - entry["probability"])
        for answer, item in zip(answers, references, strict=True)
        for entry in item["top5"]
    ]
    assert max(differences) <= 0.001


def test_its_own_state_dict_loads() -> None:
    saved = EfficientNetLite0(3).state_dict()
    EfficientNetLite0(3).load_state_dict(saved)


def test_weights_for_other_classes_are_refused() -> None:
    with pytest.raises(RuntimeError, match="classifier.weight"):
        EfficientNetLite0(3).load_state_dict(EfficientNetLite0(4).state_dict())


@pytest.mark.parametrize("side", [32, 33, 65])
def test_odd_sizes_are_padded_as_even_ones(side: int) -> None:
    with torch.inference_mode():
        assert EfficientNetLite0(3).eval()(torch.zeros(2, 3, side, side)).shape == (2, 3)
