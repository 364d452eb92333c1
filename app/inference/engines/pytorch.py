"""PyTorch: the reference that every other engine has to agree with."""

import numpy as np
import torch

from app.core.config import EngineName
from app.inference.checkpoints import Checkpoint
from app.inference.engines.engine import Pixels, Probabilities, predict_in_portions
from app.models.manifest import ModelManifest, ModelOutput


class PyTorchEngine:
    """A checkpoint run eagerly in float32, image by image unless it insists on a batch size."""

    name = EngineName.TORCH

    def __init__(self, checkpoint: Checkpoint, manifest: ModelManifest, threads: int) -> None:
        torch.set_num_threads(threads)
        self._module = checkpoint.module
        self.portion = checkpoint.batch or 1
        self._mean = torch.tensor(manifest.mean).view(1, 3, 1, 1)
        self._std = torch.tensor(manifest.std).view(1, 3, 1, 1)
        self._needs_softmax = manifest.output is ModelOutput.LOGITS

    def predict(self, batch: Pixels) -> Probabilities:
        """Images (N, H, W, 3) → probabilities (N, classes)."""
        return predict_in_portions({self.portion: self._run}, batch)

    def _run(self, images: Pixels) -> Probabilities:
        with torch.inference_mode():
            pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
            outputs = self._module((pixels - self._mean) / self._std).float()
            probabilities: Probabilities = (
                outputs.softmax(dim=1) if self._needs_softmax else outputs
            ).numpy()
        return probabilities
