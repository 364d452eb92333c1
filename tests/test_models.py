"""Models: manifests, files that are wrong, and the choice of an engine, made once."""

import json
import logging
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from app.core.config import EngineName, LimitSettings, ModelSettings, Settings
from app.core.errors import ConfigurationError
from app.inference.architectures.efficientnet_lite import EfficientNetLite0
from app.inference.checkpoints import load_checkpoint
from app.inference.images import decode
from app.inference.sources import digest_file
from app.models.manifest import load_manifest
from app.models.ml_models import load_model, prepare_model
from tests import model_files
from tests.model_files import describe, rewrite, settings_for, source_of

SAMPLES = Path(__file__).parents[1] / "app" / "samples"
LIMITS = LimitSettings()

# --- Manifests -----------------------------------------------------------------------------------


def write(folder: Path, **changes: Any) -> Path:
    return describe(folder / "model.pth", **changes).with_suffix(".json")


def test_a_manifest_needs_neither_resize_nor_crop(tmp_path: Path) -> None:
    manifest = load_manifest(write(tmp_path, input_size=224))
    assert (manifest.resize, manifest.crop) == (256, 224)


def test_labels_may_lie_in_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\nsea lion\n\n", encoding="utf-8")
    assert load_manifest(write(tmp_path, labels="names.txt")).labels == ("cat", "sea lion")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"labels": "none.txt"}, "none.txt does not exist"),
        ({"labels": []}, "labels"),
        ({"std": [1, 0, 1]}, "greater than 0"),
        ({"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}, "multiply yours by 255"),
        ({"mean": [1, 2]}, "mean"),
        ({"input_size": "big"}, "input_size"),
        ({"resize": 20, "crop": 32}, "must not be greater than resize"),
        ({"digest": "abc"}, "digest"),
        ({"output": "words"}, "output"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_manifest_is_told_in_one_line(
    tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_manifest(write(tmp_path, **changes))
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": 3}'])
def test_what_is_no_manifest_is_told_with_its_path(tmp_path: Path, text: str) -> None:
    path = tmp_path / "model.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="model.json"):
        load_manifest(path)


# --- Files that are wrong ------------------------------------------------------------------------


def assert_refused(model: Path, *complaints: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_checkpoint(source_of(model))
    for complaint in (model.name, *complaints):
        assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_path_without_a_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="MODEL_PATH=.*nowhere.pth"):
        prepare_model(settings_for(tmp_path / "nowhere.pth", tmp_path))


def test_a_model_without_a_manifest_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(b"x")
    with pytest.raises(ConfigurationError, match="manifest .*model.json does not exist"):
        source_of(tmp_path / "model.pth")


def test_an_unknown_ending_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.h5").write_bytes(b"x")
    with pytest.raises(ConfigurationError, match="none of .pth"):
        source_of(tmp_path / "model.h5")


@pytest.mark.parametrize("name", ["model.pth", "model.pt", "model.pt2"])
@pytest.mark.parametrize("data", [b"", b"not a model", b"PK\x03\x04broken", b"\x80\x02broken"])
def test_a_damaged_file_is_told(tmp_path: Path, name: str, data: bytes) -> None:
    model = describe(tmp_path / name, architecture="efficientnet-lite0")
    model.write_bytes(data)
    assert_refused(model, "damaged")


def test_an_unknown_architecture_is_told(tmp_path: Path) -> None:
    model = describe(tmp_path / "model.pth", architecture="resnet-900")
    torch.save(model_files.build_network().state_dict(), model)
    assert_refused(model, "resnet-900", "efficientnet-lite0")


def test_weights_of_another_architecture_are_told(tmp_path: Path) -> None:
    model = describe(tmp_path / "model.pth", architecture="efficientnet-lite0")
    torch.save(model_files.build_network().state_dict(), model)
    assert_refused(model, "does not fit efficientnet-lite0 with 3 classes")


def test_weights_for_other_labels_are_told(tmp_path: Path) -> None:
    model = describe(tmp_path / "model.pth", architecture="efficientnet-lite0")
    torch.save(EfficientNetLite0(4).state_dict(), model)
    assert_refused(model, "with 3 classes", "classifier")


def test_a_checkpoint_of_more_than_weights_is_told(tmp_path: Path) -> None:
    model = describe(tmp_path / "model.pth", architecture="efficientnet-lite0")
    torch.save({"epoch": 3, "model": {}}, model)
    assert_refused(model, "save just model.state_dict()")


class Trap:
    """Writes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.write_text, (self.path, "sprung"))


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_never_runs(tmp_path: Path, zipped: bool) -> None:
    model, trap = (
        describe(tmp_path / "model.pth", architecture="efficientnet-lite0"),
        tmp_path / "t",
    )
    torch.save({"a": Trap(trap)}, model, _use_new_zipfile_serialization=zipped)
    assert_refused(model, "pickled code, which is never run")
    assert not trap.exists()


def test_pickled_code_in_an_exported_program_never_runs(tmp_path: Path) -> None:
    model, trap = model_files.save_exported(tmp_path), tmp_path / "t"
    torch.save((Trap(trap),), tmp_path / "sample")
    rewrite(model, "data/sample_inputs/model.pt", (tmp_path / "sample").read_bytes())
    assert_refused(model, "pickled code")
    opaque = {"config": {"x": {"path_name": "opaque_obj_0", "use_pickle": True}}}
    model = model_files.save_exported(tmp_path)
    rewrite(model, "data/constants/opaque_obj_0", pickle.dumps(Trap(trap)))
    rewrite(model, "data/constants/model_constants_config.json", json.dumps(opaque).encode())
    assert_refused(model, "refused")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"torch.ops.aten.relu.default", b"torch.os.system"),
        (b"Symbol('s", b"__import__('os').system('true') or Symbol('s"),
    ],
)
def test_an_exported_program_calls_nothing_but_arithmetic(
    tmp_path: Path, old: bytes, new: bytes
) -> None:
    model = model_files.save_exported(tmp_path)
    with zipfile.ZipFile(model) as archive:
        name = next(name for name in archive.namelist() if name.endswith("models/model.json"))
        program = archive.read(name)
    assert old in program
    rewrite(model, "models/model.json", program.replace(old, new))
    assert_refused(model, "refused")


def test_another_file_than_the_manifest_describes_is_told(tmp_path: Path) -> None:
    model = model_files.save_onnx(tmp_path)
    describe(model, digest="0" * 64)
    with pytest.raises(ConfigurationError, match="SHA-256"):
        prepare_model(settings_for(model, tmp_path))


def test_the_right_digest_is_accepted(tmp_path: Path) -> None:
    model = model_files.save_onnx(tmp_path)
    describe(model, digest=f"sha256:{digest_file(model).upper()}")
    assert source_of(model).manifest.digest == digest_file(model)


def test_onnx_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    model = model_files.save_onnx(tmp_path)
    describe(model)
    graph = onnx.load(model)
    onnx.save_model(
        graph, model, save_as_external_data=True, location="weights.data", size_threshold=0
    )
    with pytest.raises(ConfigurationError, match="external_data=False"):
        prepare_model(settings_for(model, tmp_path))


# --- The choice ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def onnx_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small ONNX model whose engines were tried."""
    folder = tmp_path_factory.mktemp("onnx")
    prepare_model(settings_for(model_files.save_onnx(folder), folder))
    return folder


def onnx_settings(folder: Path, **changes: Any) -> Settings:
    return settings_for(folder / "graph-batch.onnx", folder, **changes)


def trials(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob("cache/*/trial-*.json")}


def test_engines_are_tried_once(onnx_data: Path) -> None:
    before = trials(onnx_data)
    prepared = prepare_model(onnx_settings(onnx_data))
    assert trials(onnx_data) == before
    assert {item.engine for item in prepared.measurements} >= {
        EngineName.ONNXRUNTIME,
        EngineName.OPENVINO,
    }
    assert prepared.reasons == ()
    assert all(
        item.agreement is not None and item.agreement.agrees
        for item in prepared.measurements
        if item.failure is None
    )


def test_another_number_of_threads_is_tried_anew(onnx_data: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(onnx_data, data)
    prepare_model(onnx_settings(data, engine=EngineName.ONNXRUNTIME, engine_threads=2))
    assert len(list(data.glob("cache/*/trial-onnxruntime.json"))) == 2


def test_an_engine_that_cant_be_used_is_replaced_and_told(
    onnx_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "app.models"):
        prepared = prepare_model(onnx_settings(onnx_data, engine=EngineName.TORCH))
    assert prepared.engine is EngineName.ONNXRUNTIME
    (reason,) = prepared.reasons
    assert "ENGINE=torch" in reason and reason in caplog.text


def test_a_model_that_cant_be_converted_runs_on_pytorch(tmp_path: Path) -> None:
    # ONNX has no pooling whose windows overlap unevenly, as from 14 to 4.
    model = model_files.save_torchscript(tmp_path, model_files.build_network(pool=4))
    prepared = prepare_model(settings_for(model, tmp_path))
    assert prepared.engine in (EngineName.TORCH, EngineName.TORCH_COMPILED)
    assert prepared.reasons == ()
    failures = {item.engine: item.failure for item in prepared.measurements}
    assert "can't be converted" in str(failures[EngineName.ONNXRUNTIME])
    obstacle = None if shutil.which("g++") else "needs a C++ compiler: install g++"
    assert failures[EngineName.TORCH_COMPILED] == obstacle


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler: install g++")
def test_a_compiled_model_runs_where_it_is_asked_for(tmp_path: Path) -> None:
    model = model_files.save_exported(tmp_path, 2)
    settings = settings_for(model, tmp_path, engine=EngineName.TORCH_COMPILED)
    prepared = prepare_model(settings)
    assert prepared.engine is EngineName.TORCH_COMPILED, prepared.reasons
    loaded = load_model(prepared, settings)
    size = model_files.SIZE
    assert len(loaded.classify([np.zeros((size, size, 3), np.uint8)] * 3)) == 3


def test_a_model_that_contradicts_its_labels_is_told_and_not_remembered(tmp_path: Path) -> None:
    model = model_files.save_onnx(tmp_path)
    describe(model, labels=["one", "two"])
    with pytest.raises(ConfigurationError) as caught:
        prepare_model(settings_for(model, tmp_path, engine=EngineName.ONNXRUNTIME))
    assert "lists 2 labels" in str(caught.value) and "\n" not in str(caught.value)
    assert trials(tmp_path) == {}


def test_a_model_gives_its_best_classes_first(onnx_data: Path) -> None:
    settings = onnx_settings(onnx_data)
    model = load_model(prepare_model(settings), settings)
    image = decode((SAMPLES / "cat.jpg").read_bytes(), model.manifest, LIMITS)
    first, second = model.classify([image, image])
    assert first == second
    assert {item["class_name"] for item in first} == set(model_files.LABELS)
    confidences = [item["confidence"] for item in first]
    assert confidences == sorted(confidences, reverse=True)
    assert sum(confidences) == pytest.approx(1, abs=1e-5)
    assert all(type(item) is float for item in confidences)
    assert model.classify([]) == []


# --- Calibration images ---------------------------------------------------------------------------


def calibrated_settings(folder: Path, count: int) -> Settings:
    images = model_files.save_images(folder / "images", count)
    model = ModelSettings(path=model_files.save_onnx(folder), calibration_dir=images)
    return Settings(model=model, data_dir=folder)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = calibrated_settings(tmp_path_factory.mktemp("calibrated"), 40)
    prepare_model(settings)
    return settings


@pytest.mark.parametrize("engine", [EngineName.ONNXRUNTIME_INT8, EngineName.OPENVINO_INT8])
def test_integer_engines_are_compared_on_images_held_out(
    calibrated: Settings, engine: EngineName
) -> None:
    measured = {item.engine: item for item in prepare_model(calibrated).measurements}
    agreement, others = measured[engine].agreement, measured[EngineName.OPENVINO].agreement
    assert agreement is not None and others is not None
    assert agreement.images == others.images == 18 + 10


def test_an_integer_engine_answers(calibrated: Settings) -> None:
    settings = calibrated.model_copy(update={"engine": EngineName.ONNXRUNTIME_INT8})
    model = load_model(prepare_model(settings), settings)
    (answer,) = model.classify([np.zeros((model_files.SIZE, model_files.SIZE, 3), np.uint8)])
    assert sum(item["confidence"] for item in answer) == pytest.approx(1, abs=1e-5)


def test_without_images_integer_engines_are_not_offered(onnx_data: Path) -> None:
    failures = {
        item.engine: item.failure for item in prepare_model(onnx_settings(onnx_data)).measurements
    }
    assert "needs calibration images" in str(failures[EngineName.OPENVINO_INT8])


def test_other_images_are_tried_anew(calibrated: Settings, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(calibrated.data_dir, data)
    (data / "images" / "000.png").write_bytes((data / "images" / "001.png").read_bytes())
    model = calibrated.model.model_copy(update={"calibration_dir": data / "images"})
    prepare_model(
        calibrated.model_copy(
            update={"model": model, "data_dir": data, "engine": EngineName.ONNXRUNTIME}
        )
    )
    assert len(list(data.glob("cache/*/trial-onnxruntime.json"))) == 2


def test_too_few_images_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds 3 JPEG and PNG files.*needs 32"):
        prepare_model(calibrated_settings(tmp_path, 3))


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    settings = calibrated_settings(tmp_path, 32)
    (tmp_path / "images" / "000.png").write_bytes(b"no image")
    with pytest.raises(ConfigurationError, match="000.png is damaged"):
        prepare_model(settings)
