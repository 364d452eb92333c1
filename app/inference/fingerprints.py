"""What a choice of engine depends on: model, our code, runtimes, CPU, GPUs, threads."""

import hashlib
import json
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_GPU_DEVICE = Path("/dev/nvidiactl")
_GPU_INFO = Path("/proc/driver/nvidia/gpus")
_CODE = Path(__file__).parent
_PACKAGES = (
    *("torch", "onnx", "onnxscript", "onnxruntime", "openvino"),
    *("onnxruntime-gpu", "tensorrt"),
    *("numpy", "pillow", "simplejpeg"),
)


def fingerprint(
    model_digest: str, manifest_json: str, threads: int, images_digest: str | None = None
) -> str:
    """A name for everything that may change answers or timings, in 32 hexadecimal digits."""
    parts = (
        model_digest,
        manifest_json,
        threads,
        images_digest,
        _code_digest(),
        {package: _find_version(package) for package in _PACKAGES},
        _cpu_fields().get("model name", platform.processor()),
        sorted(cpu_flags()),
        has_gpu(),
        _gpu_models(),
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def answer_identity(model_digest: str, manifest_json: str) -> str:
    """A name for what decides an answer, the same on every machine, in 32 hexadecimal digits.

    Not the engine: those that are used agree.
    """
    parts = (model_digest, manifest_json, _code_digest())
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def cpu_flags() -> frozenset[str]:
    """The instruction sets of this machine's CPU by Linux's names; empty elsewhere."""
    fields = _cpu_fields()
    return frozenset(fields.get("flags", fields.get("Features", "")).split())


def has_gpu() -> bool:
    """Whether there is an NVIDIA GPU and its driver. Loads no library, so it costs nothing."""
    return _GPU_DEVICE.exists()


def _gpu_models() -> list[str]:
    lines = [
        line for path in _GPU_INFO.glob("*/information") for line in path.read_text().splitlines()
    ]
    return sorted(line for line in lines if line.startswith("Model:"))


@cache
def _cpu_fields() -> dict[str, str]:
    """The description of the first core."""
    try:
        first, _, _ = _CPU_INFO.read_text().partition("\n\n")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _code_digest() -> str:
    """Of every module that has a part in an answer, so that no version number can be forgotten."""
    digest = hashlib.sha256()
    for path in sorted(_CODE.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _find_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
