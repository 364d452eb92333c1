"""The trial of one engine: ``python -m app.inference.engines.trial``, told what by its input.

A program of its own so that runtimes never share a process, nor enter the one that chooses, and so
that one which crashes takes nobody with it.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from app.core.config import EngineName
from app.core.errors import ConfigurationError
from app.inference.calibration_images import read_images
from app.inference.engines.artifacts import (
    COMPILED,
    REFERENCE,
    all_portions,
    graph_path,
    portion_of,
)
from app.inference.engines.calibration import (
    Agreement,
    calibration_images,
    compare,
    measure_milliseconds,
)
from app.inference.engines.catalogue import create_engine
from app.inference.engines.engine import Engine, Pixels, Probabilities
from app.inference.sources import ModelSource, SourceKind
from app.models.manifest import ModelManifest, manifest_path

if TYPE_CHECKING:
    import onnx

# A batch has to be so much faster for each image to be worth a second form in memory.
_WORTHWHILE = 0.97


class TrialRequest(BaseModel):
    """What to try. ``folder`` holds the graph, the reference's answers and compiled models."""

    model_config = ConfigDict(frozen=True)

    engine: EngineName
    is_reference: bool
    path: Path
    kind: SourceKind
    manifest: ModelManifest
    threads: int
    folder: Path
    images: Path | None = None
    """Where the user's calibration images are."""

    def source(self) -> ModelSource:
        """The model file."""
        return ModelSource(self.path, self.kind, self.manifest)


class Measurement(BaseModel):
    """What a trial found. ``failure`` says why the engine can't be used; ``None`` when it can."""

    model_config = ConfigDict(frozen=True)

    engine: EngineName
    milliseconds: float | None = None
    """For an image alone."""
    batch_milliseconds: float | None = None
    """For each image of a full portion; ``None`` where there is no form for portions."""
    agreement: Agreement | None = None
    failure: str | None = None

    @property
    def batches(self) -> bool:
        """Whether portions are worth a form of their own."""
        if self.milliseconds is None or self.batch_milliseconds is None:
            return False
        return self.batch_milliseconds <= _WORTHWHILE * self.milliseconds

    @property
    def best_milliseconds(self) -> float:
        """For an image where there is work enough."""
        times = [self.milliseconds or 0.0]
        if self.batches and self.batch_milliseconds is not None:
            times.append(self.batch_milliseconds)
        return min(times)


class TrialResult(BaseModel):
    """What a trial answers: a measurement, or what is wrong with the model itself.

    ``conversion_failure`` says why the model has no graph; the engines that need one can't run it.
    """

    model_config = ConfigDict(frozen=True)

    measurement: Measurement | None = None
    conversion_failure: str | None = None
    bad_model: str | None = None


def run_trial(request: TrialRequest) -> TrialResult:
    """Load the engine, compare its answers and time it.

    Raises :class:`ConfigurationError` when the model is wrong.
    """
    images = calibration_images(request.manifest)
    if request.images is not None:
        own = read_images(request.images, request.manifest, held_out=True)
        images = np.concatenate([images, own])
    conversion_failure = _prepare_reference(request, images) if request.is_reference else None
    if request.engine is EngineName.TORCH or conversion_failure is None:
        measurement = _measure(request, images)
    else:
        measurement = Measurement(engine=request.engine, failure=conversion_failure)
    return TrialResult(measurement=measurement, conversion_failure=conversion_failure)


def _measure(request: TrialRequest, images: Pixels) -> Measurement:
    name, folder = request.engine, request.folder
    reference = np.load(folder / REFERENCE)
    try:
        if name.is_quantised:
            _save_quantised_graphs(request)
        if name is EngineName.TORCH_COMPILED:
            _compile(request)
        engine = create_engine(name, request.source(), folder, request.threads)
        agreement = compare(reference, engine.predict(images))
        milliseconds = measure_milliseconds(engine, images)
    except ConfigurationError:
        raise
    # Whatever a runtime raises, the engine is out and the others go on.
    except Exception as error:
        return Measurement(engine=name, failure=f"failed: {_one_line(error)}")
    failure = None if agreement.agrees else "its answers differ from the reference's"
    return Measurement(
        engine=name,
        milliseconds=milliseconds,
        batch_milliseconds=_find_batch_milliseconds(request, images, reference),
        agreement=agreement,
        failure=failure,
    )


def _find_batch_milliseconds(
    request: TrialRequest, images: Pixels, reference: Probabilities
) -> float | None:
    """``None`` where a form for portions doesn't exist, doesn't run or answers something else."""
    quantised = request.engine.is_quantised
    portion = portion_of(request.engine)
    path = graph_path(request.folder, portion=portion, quantised=quantised)
    if request.engine is not EngineName.TORCH_CUDA and not path.exists():
        return None
    try:
        engine = create_engine(
            request.engine, request.source(), request.folder, request.threads, batches=True
        )
        if engine.portion == 1 or not compare(reference, engine.predict(images)).agrees:
            return None
        return measure_milliseconds(engine, images, engine.portion)
    # A model that can take one image only fails in as many ways as there are runtimes.
    except Exception:
        return None


def _prepare_reference(request: TrialRequest, images: Pixels) -> str | None:
    """Save the reference's answers and the graph; says why there is no graph, if there is none."""
    if request.kind is SourceKind.ONNX:
        _save_answers(request, _onnx_reference(request), images)
        return None
    from app.inference.checkpoints import load_checkpoint
    from app.inference.engines.pytorch import PyTorchEngine
    from app.inference.graphs import export_graph

    checkpoint = load_checkpoint(request.source())
    _save_answers(request, PyTorchEngine(checkpoint, request.manifest, request.threads), images)
    try:
        _save_graphs(export_graph(checkpoint, request.manifest), request)
    # The exporters raise whatever a model they don't understand leads them to.
    except Exception as error:
        return f"the model can't be converted to ONNX: {_one_line(error)}"
    return None


def _onnx_reference(request: TrialRequest) -> Engine:
    from app.inference.engines.onnx_runtime import OnnxRuntimeEngine
    from app.inference.graphs import load_graph

    _save_graphs(load_graph(request.path), request)
    return OnnxRuntimeEngine(
        request.engine, [graph_path(request.folder)], request.threads, optimised=False
    )


def _save_graphs(model: "onnx.ModelProto", request: TrialRequest) -> None:
    from app.inference.graphs import complete_graph

    _save_forms(complete_graph(model, request.manifest), request.folder, quantised=False)


def _compile(request: TrialRequest) -> None:
    from app.inference.checkpoints import load_checkpoint
    from app.inference.engines.torch_compiled import compile_checkpoint

    checkpoint = load_checkpoint(request.source())
    compile_checkpoint(checkpoint, request.manifest, request.folder / COMPILED)


def _save_quantised_graphs(request: TrialRequest) -> None:
    """Both integer engines run the same graphs; the first that is tried makes them."""
    if request.images is None or graph_path(request.folder, quantised=True).exists():
        return
    from app.inference.quantization import quantize_graph

    images = read_images(request.images, request.manifest, held_out=False)
    graph = quantize_graph(graph_path(request.folder), images)
    _save_forms(graph, request.folder, quantised=True)


def _save_forms(graph: "onnx.ModelProto", folder: Path, *, quantised: bool) -> None:
    from app.inference.graphs import find_batch_graph, save_graph

    for portion in all_portions():
        batch_graph = find_batch_graph(graph, portion)
        if batch_graph is not None:
            save_graph(batch_graph, graph_path(folder, portion=portion, quantised=quantised))
    save_graph(graph, graph_path(folder, quantised=quantised))


def _save_answers(request: TrialRequest, engine: Engine, images: Pixels) -> None:
    size, path = request.manifest.input_size, request.path
    try:
        answers = engine.predict(images)
    except Exception as error:
        raise ConfigurationError(
            f"{path} can't classify images of {size} × {size} pixels, correct input_size in its "
            f"manifest or export it again: {_one_line(error)}"
        ) from None
    _check_answers(answers, request)
    np.save(request.folder / REFERENCE, answers)


def _check_answers(answers: Probabilities, request: TrialRequest) -> None:
    labels = len(request.manifest.labels)
    if answers.ndim != 2 or answers.shape[1] != labels:
        raise ConfigurationError(
            f"{request.path} gives {list(answers.shape[1:])} numbers an image, but its manifest "
            f"lists {labels} labels: correct the labels in {manifest_path(request.path)}"
        )
    if not np.isfinite(answers).all() or np.abs(answers.sum(axis=1) - 1).max() > 0.05:
        raise ConfigurationError(
            f"{request.path} gives no probabilities: set output to logits in its manifest, or, if "
            "it says so, export the model again, its weights are damaged"
        )


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}…"


def main() -> None:
    """Read a request, write its result where the caller said."""
    request = TrialRequest.model_validate_json(sys.stdin.read())
    try:
        result = run_trial(request)
    except ConfigurationError as error:
        result = TrialResult(bad_model=str(error))
    partial = Path(sys.argv[1]).with_suffix(".partial")
    partial.write_text(result.model_dump_json(), encoding="utf-8")
    os.replace(partial, sys.argv[1])


if __name__ == "__main__":
    main()
