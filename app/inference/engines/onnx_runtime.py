"""ONNX Runtime."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import onnxruntime  # type: ignore[import-untyped]

from app.core.config import EngineName
from app.inference.engines.engine import Pixels, Probabilities, predict_in_portions

# Errors only: its warnings are about graphs, and the calibration judges those.
_LOG_ERRORS = 3


class OnnxRuntimeEngine:
    """Graphs of :mod:`app.inference.graphs`, of one model, in inference sessions on the CPU.

    A user's ``.onnx`` has no PyTorch form. Its reference is this engine with ``optimised=False``:
    every node computed as the file has it, nothing fused or rearranged.
    """

    def __init__(
        self, name: EngineName, graphs: Sequence[Path], threads: int, optimised: bool = True
    ) -> None:
        self.name = name
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _LOG_ERRORS
        # Threads that spin while they wait would take the core from the process beside this one.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if not optimised:
            level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.graph_optimization_level = level
        sessions = [
            onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
            for graph in graphs
        ]
        self._forms = {item.get_inputs()[0].shape[0]: partial(_run, item) for item in sessions}
        self.portion: int = max(self._forms)

    def predict(self, batch: Pixels) -> Probabilities:
        """Images (N, H, W, 3) → probabilities (N, classes)."""
        return predict_in_portions(self._forms, batch)


def _run(session: onnxruntime.InferenceSession, images: Pixels) -> Probabilities:
    probabilities: Probabilities = session.run(None, {session.get_inputs()[0].name: images})[0]
    return probabilities
