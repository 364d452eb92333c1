"""What the trials of a model leave in its folder of the cache, by name."""

from pathlib import Path

from app.core.config import EngineName
from app.inference.fingerprints import has_gpu

REFERENCE = "reference.npy"
"""The reference's answers to the calibration images."""

COMPILED = "model.pt2"
"""The model compiled by PyTorch."""

_PORTIONS = {"onnxruntime": 2, "openvino": 4}
# Never measured: chosen so that a GPU has enough to do at once.
_GPU_GRAPH_PORTION = 16
_GPU_PORTIONS = {
    EngineName.TORCH_CUDA: 64,
    EngineName.ONNXRUNTIME_CUDA: _GPU_GRAPH_PORTION,
    EngineName.TENSORRT: _GPU_GRAPH_PORTION,
}


def portion_of(engine: EngineName) -> int:
    """Images that go through an engine's form for batches at once.

    On a CPU weights are read once for all of them, until their pixels no longer fit into the core's
    cache. Measured with the built-in model on one core of two busy ones, ms an image for one, two,
    four and eight at once: OpenVINO in bfloat16 5.75, 5.10, 4.87, 5.14; ONNX Runtime 10.1, 9.3,
    9.9, 10.4.
    """
    if engine in _GPU_PORTIONS:
        return _GPU_PORTIONS[engine]
    runtime = engine.value.partition("-")[0]
    return _PORTIONS.get(runtime, 1)


def graph_path(folder: Path, *, portion: int = 1, quantised: bool = False) -> Path:
    """The ONNX graph for so many images at once; not every model has one for more than one."""
    batch = "" if portion == 1 else f"-batch-{portion}"
    return folder / f"model{'-int8' * quantised}{batch}.onnx"


def all_portions() -> tuple[int, ...]:
    """The sizes of batch graphs that some engine takes on this machine."""
    return (*_PORTIONS.values(), *((_GPU_GRAPH_PORTION,) if has_gpu() else ()))
