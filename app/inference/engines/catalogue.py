"""Which engines there are, whether this machine can run one, and how to load it.

Runtimes are imported only when their engine is created, and never by asking about one.
"""

from importlib.util import find_spec
from pathlib import Path
from shutil import which

from app.core.config import EngineName
from app.inference.engines.artifacts import COMPILED, graph_path, portion_of
from app.inference.engines.engine import Engine
from app.inference.fingerprints import cpu_flags, has_gpu
from app.inference.sources import ModelSource, SourceKind

_CANDIDATES = (
    EngineName.TORCH,
    EngineName.TORCH_COMPILED,
    EngineName.ONNXRUNTIME,
    EngineName.OPENVINO,
    EngineName.OPENVINO_BF16,
    EngineName.ONNXRUNTIME_INT8,
    EngineName.OPENVINO_INT8,
    EngineName.TORCH_CUDA,
    EngineName.ONNXRUNTIME_CUDA,
    EngineName.TENSORRT,
)
READ_MODEL_FILES = (EngineName.TORCH, EngineName.TORCH_COMPILED, EngineName.TORCH_CUDA)
"""The others read a graph that was made from the file."""
_COMPILER = "g++"
# Left to itself, pip may choose a PyTorch with several GB of CUDA libraries.
_REQUIREMENTS = {"torch": "torch==2.13.0"}
# Without these instructions bfloat16 is emulated, slower than float32.
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


def list_candidates() -> tuple[EngineName, ...]:
    """The engines that ``auto`` tries on this machine."""
    return tuple(engine for engine in _CANDIDATES if has_gpu() or not engine.uses_gpu)


def reference_engine(kind: SourceKind) -> EngineName:
    """The engine whose answers are right by definition for a kind of model file."""
    return EngineName.ONNXRUNTIME if kind is SourceKind.ONNX else EngineName.TORCH


def find_obstacle(engine: EngineName, kind: SourceKind, images: Path | None = None) -> str | None:
    """Why an engine can't run a kind of model file here, or ``None`` when it can.

    ``images`` is the folder with the user's calibration images.
    """
    if engine.uses_gpu and not has_gpu():
        return "needs an NVIDIA GPU"
    if engine in READ_MODEL_FILES and kind is SourceKind.ONNX:
        return "PyTorch does not read ONNX files"
    module, _, _ = engine.value.partition("-")
    if find_spec(module) is None:
        return f"not installed: pip install {_REQUIREMENTS.get(module, module)}"
    if engine is EngineName.TORCH_COMPILED and which(_COMPILER) is None:
        return f"needs a C++ compiler: install {_COMPILER}"
    if engine is EngineName.OPENVINO_BF16 and not _BF16_FLAGS & cpu_flags():
        return "this CPU does not compute in bfloat16"
    if engine.is_quantised and images is None:
        return "needs calibration images: classifier models tune --images FOLDER"
    return None


def create_engine(
    engine: EngineName, source: ModelSource, folder: Path, threads: int, batches: bool = False
) -> Engine:
    """Load a model into an engine, in this process, with ``batches`` for portions of images too.

    PyTorch reads ``source``, the others the graphs in ``folder``, where they keep what they
    compile. Raises :class:`app.core.errors.ConfigurationError` for a bad model file, else what the
    runtime raises.
    """
    if engine is EngineName.TORCH:
        from app.inference.checkpoints import load_checkpoint
        from app.inference.engines.pytorch import PyTorchEngine

        return PyTorchEngine(load_checkpoint(source), source.manifest, threads)
    if engine is EngineName.TORCH_COMPILED:
        from app.inference.engines.torch_compiled import TorchCompiledEngine

        return TorchCompiledEngine(folder / COMPILED, threads)
    if engine is EngineName.TORCH_CUDA:
        from app.inference.checkpoints import load_checkpoint
        from app.inference.engines.torch_cuda import TorchCudaEngine

        return TorchCudaEngine(load_checkpoint(source), source.manifest, batches)
    portions = (1, portion_of(engine)) if batches else (1,)
    graphs = [
        graph_path(folder, portion=portion, quantised=engine.is_quantised) for portion in portions
    ]
    if engine.uses_gpu or engine in (EngineName.ONNXRUNTIME, EngineName.ONNXRUNTIME_INT8):
        from app.inference.engines.onnx_runtime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(engine, graphs, threads)
    from app.inference.engines.openvino import OpenVinoEngine

    return OpenVinoEngine(engine, graphs, folder, threads)
