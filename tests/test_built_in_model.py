"""The built-in model: every engine agrees on it, and it knows what it sees."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from app.core.config import EngineName, LimitSettings, ModelSettings, Settings
from app.inference.images import decode
from app.inference.sources import find_source
from app.models.ml_models import LoadedModel, PreparedModel, load_model, prepare_model
from tests.model_files import describe
from tests.photographs import FOLDER, needs_photographs, read_reference

SAMPLES = Path(__file__).parents[1] / "app" / "samples"
LIMITS = LimitSettings()


@pytest.fixture(scope="module")
def built_in(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreparedModel, Settings]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"))
    return prepare_model(settings), settings


@pytest.fixture(scope="module")
def built_in_model(built_in: tuple[PreparedModel, Settings]) -> LoadedModel:
    return load_model(*built_in)


def test_every_installed_engine_agrees_on_the_built_in_model(
    built_in: tuple[PreparedModel, Settings],
) -> None:
    prepared, _ = built_in
    usable = {item.engine for item in prepared.measurements if item.failure is None}
    assert usable >= {EngineName.TORCH, EngineName.ONNXRUNTIME, EngineName.OPENVINO}


def test_the_main_process_imports_no_runtime(built_in: tuple[PreparedModel, Settings]) -> None:
    prepared, settings = built_in
    program = f"""
import sys
from pathlib import Path
from app.core.config import Settings
from app.models.ml_models import prepare_model
prepared = prepare_model(Settings(data_dir=Path({str(settings.data_dir)!r})))
assert prepared.engine == {prepared.engine.value!r}
assert not {{"torch", "onnx", "onnxruntime", "openvino"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("engine", [EngineName.ONNXRUNTIME, EngineName.OPENVINO])
def test_a_process_that_classifies_without_pytorch_does_not_load_it(
    built_in: tuple[PreparedModel, Settings], engine: EngineName
) -> None:
    _, settings = built_in
    program = f"""
import sys
from pathlib import Path
from app.core.config import Settings
from app.inference.images import decode
from app.models.ml_models import load_model, prepare_model
settings = Settings(data_dir=Path({str(settings.data_dir)!r}), engine={engine.value!r})
model = load_model(prepare_model(settings), settings)
image = Path({str(SAMPLES / "cat.jpg")!r}).read_bytes()
(best,) = model.classify([decode(image, model.manifest, settings.limits)])
assert "cat" in best[0]["class_name"] and model.engine.name == {engine.value!r}
assert not {{"torch", "onnx"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_cat_is_a_cat(built_in_model: LoadedModel) -> None:
    image = decode((SAMPLES / "cat.jpg").read_bytes(), built_in_model.manifest, LIMITS)
    (best,) = built_in_model.classify([image])
    assert len(best) == 5
    assert "cat" in best[0]["class_name"]


@needs_photographs
def test_the_chosen_engine_keeps_the_accuracy(built_in_model: LoadedModel) -> None:
    references = read_reference()
    manifest = built_in_model.manifest
    images = [decode((FOLDER / item["file"]).read_bytes(), manifest, LIMITS) for item in references]
    answers = built_in_model.engine.predict(np.stack(images))
    classes = answers.argmax(axis=1)
    best = [item["top5"][0] for item in references]
    assert sum(classes == [item["index"] for item in references]) >= 88
    assert sum(classes == [item["index"] for item in best]) >= 95
    differences = [
        abs(answer[item["index"]] - item["probability"])
        for answer, item in zip(answers, best, strict=True)
    ]
    assert np.mean(differences) <= 0.02


def test_the_default_path_means_the_built_in_model_until_there_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_source(Settings()).manifest.name == "efficientnet-lite0"
    (tmp_path / "models").mkdir()
    describe(tmp_path / "models" / "classifier.pth").write_bytes(b"x")
    assert find_source(Settings(model=ModelSettings())).manifest.name == "small"
