"""Exported programs (``.pt2``), examined before PyTorch may read them.

``torch.export.load`` unpickles sample inputs and constants, calls any function below ``torch`` that
the file names, and evaluates the file's shape expressions as Python. A program saved by
``torch.export.save`` needs none of that; one that does is refused.
"""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from app.core.errors import ConfigurationError
from app.inference.model_archives import FILE_OPERATORS, create_refusal, open_archive

_ENTRIES = re.compile(
    r"archive_format|archive_version|byteorder|\.data/\w+|models/model\.json"
    r"|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)|data/sample_inputs/model\.pt"
)
_FUNCTIONS = re.compile(
    r"torch\.ops\.aten\.\w+\.\w+|torch\.sym_\w+|math\.\w+"
    r"|_operator\.(getitem|add|sub|mul|neg|pow|mod|truediv|floordiv|eq|ne|lt|le|gt|ge|and_|or_)"
)
# Arithmetic over symbols such as Symbol('s31', positive=True, integer=True): no other text, no
# attributes and no private names.
_SYMBOL = re.compile(r"'[su]\d+'")
_ARITHMETIC = re.compile(r"(?!.*__)[\w\s(),=+*/<>-]*")


def load_exported_program(path: Path) -> ExportedProgram:
    """Load a ``.pt2`` file. Raises :class:`ConfigurationError` when it is broken or refused."""
    try:
        _examine(path)
        return torch.export.load(path)
    except ConfigurationError:
        raise
    # What a damaged archive makes the loader raise is anybody's guess.
    except Exception:
        raise ConfigurationError(
            f"{path} is damaged or was not saved by torch.export.save: save or copy it again"
        ) from None


def _examine(path: Path) -> None:
    with open_archive(path) as archive:
        for name in archive.namelist():
            entry = name.partition("/")[2]
            if not _ENTRIES.fullmatch(entry):
                raise create_refusal(path, f"it holds {name}")
            if entry.endswith(".json"):
                for key, value in _walk(json.loads(archive.read(name))):
                    _examine_value(path, key, value)
            if entry.startswith("data/sample_inputs/"):
                _examine_sample(path, archive.read(name))


def _examine_value(path: Path, key: str, value: Any) -> None:
    if key == "use_pickle" and value:
        raise create_refusal(path, "it holds pickled tensors")
    if key == "path_name" and not re.fullmatch(r"(weight|tensor)_\d+", value):
        raise create_refusal(path, f"it holds the pickled object {value}")
    if key == "target" and isinstance(value, str) and not _may_call(value):
        raise create_refusal(path, f"it calls {value}")
    if key == "expr_str" and not _ARITHMETIC.fullmatch(_SYMBOL.sub("", value)):
        raise create_refusal(path, "one of its shapes is more than arithmetic")
    if key == "guards_code" and value:
        raise create_refusal(path, "it holds guards as Python code")


def _may_call(function: str) -> bool:
    return bool(_FUNCTIONS.fullmatch(function)) and FILE_OPERATORS.isdisjoint(function.split("."))


def _examine_sample(path: Path, data: bytes) -> None:
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except Exception:
        raise create_refusal(path, "its sample inputs hold pickled code") from None


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of every object inside, with its value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner)
