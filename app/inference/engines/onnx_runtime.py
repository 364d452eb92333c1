"""ONNX Runtime."""

from pathlib import Path

import onnxruntime  # type: ignore[import-untyped]

from app.core.config import EngineName
from app.inference.engines.engine import Pixels, Probabilities, predict_in_portions

# Errors only: its warnings are about graphs, and the calibration judges those.
_LOG_ERRORS = 3


class OnnxRuntimeEngine:
    """A graph of :mod:`app.inference.graphs` in an inference session on the CPU.

    A user's ``.onnx`` has no PyTorch form. Its reference is this engine with ``optimised=False``:
    every node computed as the file has it, nothing fused or rearranged.
    """

    name = EngineName.ONNXRUNTIME

    def __init__(self, graph: Path, threads: int, optimised: bool = True) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _LOG_ERRORS
        # Threads that spin while they wait would take the core from the process beside this one.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if not optimised:
            level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.graph_optimization_level = level
        self._session = onnxruntime.InferenceSession(
            str(graph), options, providers=["CPUExecutionProvider"]
        )
        (self._input,) = self._session.get_inputs()
        self.portion: int = self._input.shape[0]

    def predict(self, batch: Pixels) -> Probabilities:
        """Images (N, H, W, 3) → probabilities (N, classes)."""
        return predict_in_portions(self._run, batch, self.portion)

    def _run(self, images: Pixels) -> Probabilities:
        probabilities: Probabilities = self._session.run(None, {self._input.name: images})[0]
        return probabilities
