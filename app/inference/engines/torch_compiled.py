"""PyTorch, compiled ahead of time to machine code: for models that no other runtime takes."""

import os
import tempfile
from pathlib import Path

import torch
from torch import nn

from app.core.config import EngineName
from app.inference.checkpoints import Checkpoint
from app.inference.engines.engine import Pixels, Probabilities, predict_in_portions
from app.models.manifest import ModelManifest, ModelOutput

# Where a package says how many images it takes.
_BATCH = "classifier_batch"


class _Pipeline(nn.Module):
    """From pixels to probabilities."""

    _mean: torch.Tensor
    _std: torch.Tensor

    def __init__(self, network: nn.Module, manifest: ModelManifest) -> None:
        super().__init__()
        self._network = network
        self._needs_softmax = manifest.output is ModelOutput.LOGITS
        self.register_buffer("_mean", torch.tensor(manifest.mean).view(1, 3, 1, 1))
        self.register_buffer("_std", torch.tensor(manifest.std).view(1, 3, 1, 1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        images = pixels.permute(0, 3, 1, 2).float()
        outputs: torch.Tensor = self._network((images - self._mean) / self._std).float()
        return outputs.softmax(dim=1) if self._needs_softmax else outputs


def compile_checkpoint(checkpoint: Checkpoint, manifest: ModelManifest, target: Path) -> None:
    """Compile with AOTInductor, which calls the C++ compiler. Raises what PyTorch raises."""
    size, batch = manifest.input_size, checkpoint.batch or 1
    network = checkpoint.module
    if isinstance(network, torch.jit.ScriptModule):
        from torch._export.converter import TS2EPConverter

        example = (torch.zeros(batch, 3, size, size),)
        network = TS2EPConverter(network, example, {}).convert().module()
    pixels = torch.zeros(batch, size, size, 3, dtype=torch.uint8)
    partial = target.with_suffix(".partial.pt2")
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        torch._inductor.aoti_compile_and_package(
            torch.export.export(_Pipeline(network, manifest), (pixels,)),
            package_path=str(partial),
            # Weights are constants and may be laid out as the CPU likes them.
            inductor_configs={"freezing": True, "aot_inductor.metadata": {_BATCH: str(batch)}},
        )
    os.replace(partial, target)


class TorchCompiledEngine:
    """A package of :func:`compile_checkpoint`, from our own cache: loading it runs its code."""

    name = EngineName.TORCH_COMPILED

    def __init__(self, package: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self._model = torch._inductor.aoti_load_package(str(package))
        self.portion = int(self._model.get_metadata()[_BATCH])

    def predict(self, batch: Pixels) -> Probabilities:
        """Images (N, H, W, 3) → probabilities (N, classes)."""
        return predict_in_portions({self.portion: self._run}, batch)

    def _run(self, images: Pixels) -> Probabilities:
        with torch.inference_mode():
            probabilities: Probabilities = self._model(torch.tensor(images)).numpy()
        return probabilities
