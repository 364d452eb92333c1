"""What a measurement was taken on: written into every file of results."""

import os
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from benchmarks.workspace import ROOT

_PACKAGES = (
    *("torch", "onnxruntime", "openvino", "numpy", "pillow", "opencv-python-headless"),
    *("fastapi", "uvicorn", "uvloop", "httptools", "celery", "redis", "hiredis"),
)


def describe_machine() -> dict[str, Any]:
    """Processor, memory, kernel, and the versions of what takes part."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "kernel": platform.release(),
        "python": sys.version.split()[0],
        "versions": _versions(),
        "commit": find_commit(ROOT),
    }


def _cpu_name() -> str:
    try:
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor()


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if program := shutil.which("redis-server"):
        answer = subprocess.run([program, "--version"], capture_output=True, text=True)
        if match := re.search(r"v=(\S+)", answer.stdout):
            found["redis-server"] = match[1]
    return found


def find_commit(checkout: Path) -> str:
    """The commit of a checkout, marked when files differ from it."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--exclude=*"]
    answer = subprocess.run(command, capture_output=True, text=True)
    return answer.stdout.strip() or "unknown"
