"""Engines: whatever computes, and whatever form the model came in, the answers are the same."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import softmax

from app.core.config import EngineName, Settings
from app.core.errors import ConfigurationError
from app.inference.architectures.efficientnet_lite import EfficientNetLite0
from app.inference.checkpoints import load_checkpoint
from app.inference.engines.artifacts import graph_path, portion_of
from app.inference.engines.calibration import calibration_images, compare
from app.inference.engines.catalogue import create_engine, find_obstacle, list_candidates
from app.inference.engines.engine import Engine, Pixels, Probabilities, predict_in_portions
from app.inference.engines.onnx_runtime import OnnxRuntimeEngine
from app.inference.engines.selection import choose_engine
from app.inference.engines.trial import Measurement
from app.inference.fingerprints import has_gpu
from app.inference.graphs import (
    complete_graph,
    export_graph,
    find_batch_graph,
    load_graph,
    save_graph,
)
from app.inference.sources import ModelSource, SourceKind, find_source
from tests import model_files
from tests.model_files import SIZE, source_of

TORCH, ORT = EngineName.TORCH, EngineName.ONNXRUNTIME
GPU_ENGINES = (EngineName.TORCH_CUDA, EngineName.ONNXRUNTIME_CUDA, EngineName.TENSORRT)
OPENVINO, BF16 = EngineName.OPENVINO, EngineName.OPENVINO_BF16


@pytest.fixture(scope="module")
def images() -> Pixels:
    """Five images, a number that no fixed batch divides."""
    generator = np.random.default_rng(3)
    colours = generator.integers(0, 200, (5, 1, 1, 3))
    return (colours + generator.integers(0, 56, (5, SIZE, SIZE, 3))).astype(np.uint8)


@pytest.fixture(scope="module")
def expected(images: Pixels) -> Probabilities:
    """What the network answers when it is fed by hand."""
    values = model_files.VALUES
    mean, std = (torch.tensor(values[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    with torch.inference_mode():
        answers = softmax(model_files.build_network()((pixels - mean) / std), dim=1).numpy()
    assert np.ptp(answers, axis=0).max() > 0.05, "a test needs answers that differ"
    return answers


def torch_engine(model: Path) -> Engine:
    return create_engine(TORCH, source_of(model), Path(), 1)


def assert_same(engine: Engine, images: Pixels, expected: Probabilities) -> None:
    answers = engine.predict(images)
    assert answers.dtype == np.float32 and answers.shape == expected.shape
    np.testing.assert_allclose(answers, expected, atol=1e-5)
    np.testing.assert_allclose(engine.predict(images[:1]), expected[:1], atol=1e-5)


def assert_graph_runs(
    source: ModelSource, folder: Path, images: Pixels, expected: Probabilities
) -> None:
    for name in (ORT, OPENVINO):
        assert_same(create_engine(name, source, folder, 1), images, expected)


@pytest.mark.parametrize("batch", [None, 1, 2])
def test_an_exported_program_runs_on_every_engine(
    tmp_path: Path, images: Pixels, expected: Probabilities, batch: int | None
) -> None:
    source = source_of(model_files.save_exported(tmp_path, batch))
    assert source.kind is SourceKind.EXPORTED
    assert_same(torch_engine(source.path), images, expected)
    graph = export_graph(load_checkpoint(source), source.manifest)
    save_graph(complete_graph(graph, source.manifest), tmp_path / "model.onnx")
    assert_graph_runs(source, tmp_path, images, expected)


def test_torchscript_runs_on_every_engine(
    tmp_path: Path, images: Pixels, expected: Probabilities
) -> None:
    source = source_of(model_files.save_torchscript(tmp_path))
    assert source.kind is SourceKind.TORCHSCRIPT
    assert_same(torch_engine(source.path), images, expected)
    graph = export_graph(load_checkpoint(source), source.manifest)
    save_graph(complete_graph(graph, source.manifest), tmp_path / "model.onnx")
    assert_graph_runs(source, tmp_path, images, expected)


@pytest.mark.parametrize("batch", ["batch", 1, 2])
def test_an_onnx_file_runs_on_its_engines(
    tmp_path: Path, images: Pixels, expected: Probabilities, batch: int | str
) -> None:
    source = source_of(model_files.save_onnx(tmp_path, batch))
    assert source.kind is SourceKind.ONNX
    graph = complete_graph(load_graph(source.path), source.manifest)
    save_graph(graph, tmp_path / "model.onnx")
    assert_graph_runs(source, tmp_path, images, expected)
    reference = OnnxRuntimeEngine(ORT, [tmp_path / "model.onnx"], 1, optimised=False)
    assert_same(reference, images, expected)


def test_a_state_dict_runs(tmp_path: Path, images: Pixels) -> None:
    torch.manual_seed(1)
    module = EfficientNetLite0(3).eval()
    path = model_files.describe(
        tmp_path / "weights.pth",
        architecture="efficientnet-lite0",
        mean=[0, 0, 0],
        std=[1, 1, 1],
    )
    torch.save(module.state_dict(), path)
    with torch.inference_mode():
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        assert_same(torch_engine(path), images, softmax(module(pixels), dim=1).numpy())


def test_probabilities_are_left_as_they_are(tmp_path: Path, images: Pixels) -> None:
    network = torch.nn.Sequential(model_files.build_network(), torch.nn.Softmax(dim=1))
    engine = torch_engine(model_files.save_torchscript(tmp_path, network, "probabilities"))
    same = model_files.save_torchscript(tmp_path)
    np.testing.assert_allclose(
        engine.predict(images), torch_engine(same).predict(images), atol=1e-6
    )


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_any_number_of_images_goes_through_a_fixed_batch(size: int) -> None:
    def run(portion: Pixels) -> Probabilities:
        assert len(portion) == size
        return portion[:, 0, 0, :2].astype(np.float32)

    batch = np.arange(5 * 3, dtype=np.uint8).reshape(5, 1, 1, 3)
    assert predict_in_portions({size: run}, batch).tolist() == batch[:, 0, 0, :2].tolist()


def test_full_portions_go_together_and_the_rest_alone() -> None:
    sizes: list[int] = []

    def run(portion: Pixels) -> Probabilities:
        sizes.append(len(portion))
        return portion[:, 0, 0, :2].astype(np.float32)

    batch = np.arange(10 * 3, dtype=np.uint8).reshape(10, 1, 1, 3)
    answers = predict_in_portions({1: run, 4: run}, batch)
    assert answers.tolist() == batch[:, 0, 0, :2].tolist()
    assert sizes == [4, 4, 1, 1]


@pytest.mark.parametrize("name", [ORT, OPENVINO])
def test_a_graph_for_portions_answers_as_the_one_for_single_images(
    tmp_path: Path, images: Pixels, expected: Probabilities, name: EngineName
) -> None:
    source = source_of(model_files.save_onnx(tmp_path))
    graph = complete_graph(load_graph(source.path), source.manifest)
    portion = portion_of(name)
    batch_graph = find_batch_graph(graph, portion)
    assert batch_graph is not None
    save_graph(batch_graph, graph_path(tmp_path, portion=portion))
    save_graph(graph, graph_path(tmp_path))
    engine = create_engine(name, source, tmp_path, 1, batches=True)
    assert engine.portion == portion > 1
    assert_same(engine, images, expected)


def test_a_model_that_insists_on_a_batch_gets_no_other(tmp_path: Path) -> None:
    source = source_of(model_files.save_onnx(tmp_path, 2))
    assert find_batch_graph(complete_graph(load_graph(source.path), source.manifest), 4) is None


# --- Agreement and choice ------------------------------------------------------------------------


def answers(*rows: list[float]) -> Probabilities:
    return np.array(rows, np.float32)


RIGHT = answers([0.8, 0.1, 0.1], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6])


def test_equal_answers_agree() -> None:
    assert compare(RIGHT, RIGHT).agrees


def test_rounding_agrees() -> None:
    assert compare(RIGHT, RIGHT + answers([0.01, -0.01, 0.0])).agrees


@pytest.mark.parametrize("column", [0, 1])
def test_other_classes_disagree(column: int) -> None:
    assert not compare(RIGHT, np.roll(RIGHT, column + 1, axis=1)).agrees


def test_nan_disagrees() -> None:
    assert not compare(RIGHT, RIGHT * np.float32("nan")).agrees


def test_another_class_first_agrees_only_where_the_reference_was_unsure() -> None:
    unsure, other = answers([0.41, 0.40, 0.19], [0.9, 0.1, 0]), answers([0.4, 0.41, 0.19])
    assert compare(unsure, np.vstack([other, unsure[1:]])).agrees
    sure = answers([0.52, 0.40, 0.08], [0.9, 0.1, 0.0])
    assert not compare(sure, answers([0.45, 0.47, 0.08], [0.9, 0.1, 0.0])).agrees


def test_a_model_of_nearly_constant_answers_hides_no_wrong_engine() -> None:
    flat = answers([0.334, 0.333, 0.333], [0.333, 0.334, 0.333], [0.333, 0.333, 0.334])
    assert not compare(flat, np.roll(flat, 1, axis=0)).agrees


def test_calibration_images_all_differ(tmp_path: Path) -> None:
    images = calibration_images(source_of(model_files.save_onnx(tmp_path)).manifest)
    assert len(images) >= 12
    assert len({image.tobytes() for image in images}) == len(images)


MEASURED = (
    Measurement(engine=TORCH, milliseconds=20),
    Measurement(engine=ORT, milliseconds=2, failure="its answers differ"),
    Measurement(engine=OPENVINO, milliseconds=5),
    Measurement(engine=BF16, failure="not installed"),
)


def test_auto_is_the_fastest_that_agrees() -> None:
    assert choose_engine(MEASURED, EngineName.AUTO) == (OPENVINO, ())


def test_what_counts_is_the_time_in_batches_where_they_are_faster() -> None:
    batches = Measurement(engine=BF16, milliseconds=6, batch_milliseconds=4.9)
    assert batches.batches
    assert choose_engine((*MEASURED[:3], batches), EngineName.AUTO) == (BF16, ())


def test_batches_that_are_hardly_faster_are_not_worth_it() -> None:
    assert not Measurement(engine=BF16, milliseconds=6, batch_milliseconds=5.9).batches


def test_a_named_engine_that_agrees_is_used() -> None:
    assert choose_engine(MEASURED, TORCH) == (TORCH, ())


@pytest.mark.parametrize("name", [ORT, BF16])
def test_a_named_engine_that_fails_is_replaced_by_the_reference(name: EngineName) -> None:
    engine, (reason,) = choose_engine(MEASURED, name)
    assert engine is TORCH
    assert str(name) in reason and "torch is used instead" in reason


def test_no_usable_engine_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="no engine"):
        choose_engine(MEASURED[1:2], EngineName.AUTO)


def test_pytorch_reads_no_onnx() -> None:
    assert find_obstacle(TORCH, SourceKind.ONNX) is not None


@pytest.mark.parametrize("name", [ORT, OPENVINO])
def test_other_engines_run_without_pytorch(tmp_path: Path, name: EngineName) -> None:
    model = model_files.save_onnx(tmp_path)
    source = source_of(model)
    graph = tmp_path / "model.onnx"
    save_graph(complete_graph(load_graph(model), source.manifest), graph)
    program = f"""
import sys, numpy
from pathlib import Path
from app.core.config import EngineName, ModelSettings, Settings
from app.inference.engines.catalogue import create_engine
from app.inference.sources import find_source
source = find_source(Settings(model=ModelSettings(path={str(model)!r})))
engine = create_engine(EngineName({name.value!r}), source, Path({str(tmp_path)!r}), 1)
assert engine.predict(numpy.zeros((1, {SIZE}, {SIZE}, 3), "uint8")).shape == (1, 3)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


# --- On a GPU -------------------------------------------------------------------------------------


@pytest.mark.skipif(has_gpu(), reason="there is an NVIDIA GPU")
@pytest.mark.parametrize("name", GPU_ENGINES)
def test_without_a_gpu_its_engines_are_refused(name: EngineName) -> None:
    for kind in SourceKind:
        assert find_obstacle(name, kind) == "needs an NVIDIA GPU"


@pytest.mark.skipif(has_gpu(), reason="there is an NVIDIA GPU")
def test_without_a_gpu_auto_does_not_try_its_engines() -> None:
    others = set(EngineName) - {EngineName.AUTO, *GPU_ENGINES}
    assert set(list_candidates()) == others


@pytest.mark.skipif(
    has_gpu() or torch.version.cuda is not None, reason="there is an NVIDIA GPU or CUDA"
)
@pytest.mark.parametrize("name", GPU_ENGINES)
def test_packages_without_cuda_say_what_to_install(tmp_path: Path, name: EngineName) -> None:
    source = source_of(model_files.save_torchscript(tmp_path))
    with pytest.raises(RuntimeError, match="docs/models.md"):
        create_engine(name, source, tmp_path, 1)


@pytest.fixture(scope="module")
def built_in(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelSource, Path]:
    """The built-in model and a folder with its graphs."""
    source, folder = find_source(Settings()), tmp_path_factory.mktemp("built-in")
    exported = export_graph(load_checkpoint(source), source.manifest)
    graph = complete_graph(exported, source.manifest)
    batch_graph = find_batch_graph(graph, portion_of(EngineName.TENSORRT))
    assert batch_graph is not None
    save_graph(batch_graph, graph_path(folder, portion=portion_of(EngineName.TENSORRT)))
    save_graph(graph, graph_path(folder))
    return source, folder


@pytest.mark.skipif(not has_gpu(), reason="no NVIDIA GPU")
@pytest.mark.parametrize("name", GPU_ENGINES)
def test_a_gpu_agrees_with_the_reference(
    built_in: tuple[ModelSource, Path], name: EngineName
) -> None:
    source, folder = built_in
    if obstacle := find_obstacle(name, source.kind):
        pytest.skip(obstacle)
    images = calibration_images(source.manifest)
    reference = create_engine(TORCH, source, folder, 1).predict(images)
    # Sixty-four at once, one more, and every number that is filled up to another.
    many, answers = (np.concatenate([item] * 4)[:65] for item in (images, reference))
    for batches in (False, True):
        try:
            engine = create_engine(name, source, folder, 1, batches)
        except RuntimeError as error:
            if "docs/models.md" in str(error):
                pytest.skip(str(error))
            raise
        assert engine.portion == (portion_of(name) if batches else 1)
        for count in (1, 3, 16, 50, 65):
            parts = [engine.predict(many[start : start + count]) for start in range(0, 65, count)]
            assert compare(answers, np.concatenate(parts)).agrees
