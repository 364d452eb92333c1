"""Loading model files into PyTorch. Nothing in them is ever unpickled into code."""

import pickle
import warnings
import zipfile
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from app.core.errors import ConfigurationError
from app.inference.architectures.registry import ARCHITECTURES
from app.inference.exported_programs import load_exported_program
from app.inference.sources import ModelSource, SourceKind
from app.inference.torchscript_archives import examine_torchscript
from app.models.manifest import manifest_path


@dataclass(frozen=True)
class Checkpoint:
    """A model in PyTorch: normalised (N, 3, H, W) float32 → (N, classes).

    ``batch`` is the only N that it takes, or ``None`` where any will do.
    """

    module: nn.Module
    batch: int | None = None
    program: ExportedProgram | None = None


def load_checkpoint(source: ModelSource) -> Checkpoint:
    """Load a state dict, TorchScript or exported program.

    Raises :class:`ConfigurationError` when the file is broken, holds pickled code, or doesn't fit
    its manifest.
    """
    if source.kind is SourceKind.EXPORTED:
        program = load_exported_program(source.path)
        return Checkpoint(program.module(), _fixed_batch(program), program)
    if source.kind is SourceKind.TORCHSCRIPT:
        return Checkpoint(_load_torchscript(source))
    return Checkpoint(_load_state_dict(source))


def _load_state_dict(source: ModelSource) -> nn.Module:
    manifest, name = source.manifest, source.manifest.architecture
    if name not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise ConfigurationError(
            f"{source.path} holds weights only, so {manifest_path(source.path)} must name its "
            f"architecture, one of: {known} (it names {name}); or save the model as TorchScript, "
            ".pt2 or .onnx"
        )
    module = ARCHITECTURES[name](len(manifest.labels))
    state = _read_state(source)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        complaint = " ".join(str(error).split("\n\t")[1:2]).strip().rstrip(".")
        raise ConfigurationError(
            f"{source.path} does not fit {name} with {len(manifest.labels)} classes, correct the "
            f"architecture or the labels in its manifest: {complaint}"
        ) from None
    # Convolutions run a quarter faster on the CPU with the channels last, which is how pixels come.
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module.eval()


def _read_state(source: ModelSource) -> dict[str, Any]:
    try:
        state = torch.load(source.path, map_location="cpu", weights_only=True)
    # What a damaged file makes the unpickler raise is anybody's guess.
    except Exception as error:
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise ConfigurationError(
                f"{source.path} holds pickled code, which is never run: save model.state_dict() "
                "instead, or the model as TorchScript, .pt2 or .onnx"
            ) from None
        raise _broken(source) from None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ConfigurationError(
            f"{source.path} is not a plain state dict: save just model.state_dict() in it"
        )
    return state


def _load_torchscript(source: ModelSource) -> nn.Module:
    with warnings.catch_warnings():
        # PyTorch advises its users to export instead; models that exist still have to load.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            examine_torchscript(source.path)
            module: nn.Module = torch.jit.load(  # type: ignore[no-untyped-call]
                source.path, map_location="cpu"
            )
        except (RuntimeError, ValueError, OSError, zipfile.BadZipFile):
            raise _broken(source) from None
    return module.eval()


def _fixed_batch(program: ExportedProgram) -> int | None:
    names = program.graph_signature.user_inputs
    inputs = [node for node in program.graph.nodes if node.op == "placeholder"]
    size = next(node.meta["val"].shape[0] for node in inputs if node.name in names)
    return size if isinstance(size, int) else None


def _broken(source: ModelSource) -> ConfigurationError:
    return ConfigurationError(
        f"{source.path} is damaged or not a {source.kind} file: save or copy it again"
    )
