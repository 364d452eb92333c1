"""ONNX Runtime, on the CPU, and on an NVIDIA GPU by itself or through TensorRT."""

import contextlib
import importlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime  # type: ignore[import-untyped]

from app.core.config import EngineName
from app.inference.engines.engine import Pixels, Probabilities, predict_in_portions

# Errors only: its warnings are about graphs, and the calibration judges those.
_LOG_ERRORS = 3


class OnnxRuntimeEngine:
    """Graphs of :mod:`app.inference.graphs`, of one model, in inference sessions.

    What TensorRT builds, which takes minutes, is kept beside each graph. Raises
    :class:`RuntimeError` where the GPU can't be used.

    A user's ``.onnx`` has no PyTorch form. Its reference is this engine with ``optimised=False``:
    every node computed as the file has it, nothing fused or rearranged.
    """

    def __init__(
        self, name: EngineName, graphs: Sequence[Path], threads: int, optimised: bool = True
    ) -> None:
        self.name = name
        if name.uses_gpu:
            _load_gpu_libraries()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _LOG_ERRORS
        # Threads that spin while they wait would take the core from the process beside this one.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if not optimised:
            level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.graph_optimization_level = level
        sessions = [_open_session(graph, options, _providers(name, graph)) for graph in graphs]
        self._forms = {item.get_inputs()[0].shape[0]: partial(_run, item) for item in sessions}
        self.portion: int = max(self._forms)

    def predict(self, batch: Pixels) -> Probabilities:
        """Images (N, H, W, 3) → probabilities (N, classes)."""
        return predict_in_portions(self._forms, batch)


def _load_gpu_libraries() -> None:
    """Load what pip installed of CUDA and TensorRT: the loader doesn't find it by itself."""
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise RuntimeError(
            "this ONNX Runtime has no CUDA: install the extra gpu as docs/models.md says"
        )
    onnxruntime.preload_dlls()
    # Where TensorRT comes from elsewhere, the loader does find it.
    with contextlib.suppress(ImportError):
        importlib.import_module("tensorrt")


def _providers(name: EngineName, graph: Path) -> list[tuple[str, dict[str, Any]]]:
    """What computes a graph; the first of them takes all nodes that it can."""
    if not name.uses_gpu:
        return [("CPUExecutionProvider", {})]
    cuda = ("CUDAExecutionProvider", {"device_id": 0})
    if name is EngineName.ONNXRUNTIME_CUDA:
        return [cuda]
    tensorrt = {
        "device_id": 0,
        "trt_fp16_enable": True,
        "trt_engine_cache_enable": True,
        # One folder for each graph: the names that TensorRT gives don't tell them apart for sure.
        "trt_engine_cache_path": str(graph.with_suffix(".tensorrt")),
    }
    return [("TensorrtExecutionProvider", tensorrt), cuda]


def _open_session(
    graph: Path, options: onnxruntime.SessionOptions, providers: list[tuple[str, dict[str, Any]]]
) -> onnxruntime.InferenceSession:
    # Without this a provider that fails would be replaced, and its time that of another.
    session = onnxruntime.InferenceSession(
        str(graph), options, providers=providers, enable_fallback=0
    )
    wanted = providers[0][0]
    # One whose libraries are missing is left out all the same.
    if wanted not in session.get_providers():
        raise RuntimeError(
            f"{wanted} can't be loaded: install what it needs as docs/models.md says"
        )
    return session


def _run(session: onnxruntime.InferenceSession, images: Pixels) -> Probabilities:
    probabilities: Probabilities = session.run(None, {session.get_inputs()[0].name: images})[0]
    return probabilities
