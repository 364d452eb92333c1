"""What a choice of engine depends on: the model, our code, the runtimes, the CPU, the threads."""

import hashlib
import json
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_CODE = Path(__file__).parent
_PACKAGES = (
    *("torch", "onnx", "onnxscript", "onnxruntime", "openvino"),
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
