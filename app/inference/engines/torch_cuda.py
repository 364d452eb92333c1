"""PyTorch on an NVIDIA GPU, in half precision, recorded as CUDA graphs."""

import numpy as np
import torch

from app.core.config import EngineName
from app.inference.checkpoints import Checkpoint
from app.inference.engines.engine import Pixels, Probabilities
from app.models.manifest import ModelManifest, ModelOutput

# A batch is filled up to the next of these. Four times as many images take far less than four
# times as long, as long as the GPU is not full.
_SIZES = (1, 4, 16, 64)
# The first runs of a network choose algorithms and allocate memory, which can't be recorded.
_WARM_UP_RUNS = 3


class TorchCudaEngine:
    """A checkpoint on the first GPU; with ``batches`` for up to 64 images at once, else for one.

    A checkpoint that insists on a batch size has that one. Raises :class:`RuntimeError`, or what
    else PyTorch raises, for one that can't be moved to the GPU, halved or recorded.
    """

    name = EngineName.TORCH_CUDA

    def __init__(self, checkpoint: Checkpoint, manifest: ModelManifest, batches: bool) -> None:
        if torch.version.cuda is None:
            raise RuntimeError("this PyTorch has no CUDA: install it as docs/models.md says")
        network = _Network(checkpoint, manifest)
        sizes = _SIZES if batches else _SIZES[:1]
        if checkpoint.batch:
            sizes = (checkpoint.batch,)
        self._graphs = {size: _Graph(network, size, manifest.input_size) for size in sizes}
        self.portion = max(sizes)

    def predict(self, batch: Pixels) -> Probabilities:
        """Images (N, H, W, 3) → probabilities (N, classes)."""
        answers = []
        for start in range(0, len(batch), self.portion):
            images = batch[start : start + self.portion]
            size = min(size for size in self._graphs if size >= len(images))
            answers.append(self._graphs[size].run(images))
        return np.concatenate(answers)


class _Network:
    """From pixels to probabilities; only the checkpoint itself computes in half precision."""

    def __init__(self, checkpoint: Checkpoint, manifest: ModelManifest) -> None:
        self._module = checkpoint.module.to(  # type: ignore[call-overload]
            "cuda", torch.half, memory_format=torch.channels_last
        )
        self._mean = torch.tensor(manifest.mean, device="cuda").view(1, 3, 1, 1)
        self._std = torch.tensor(manifest.std, device="cuda").view(1, 3, 1, 1)
        self._needs_softmax = manifest.output is ModelOutput.LOGITS

    def compute(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, H, W, 3) uint8 → (N, classes) float32. The channels stay last in memory."""
        images = pixels.permute(0, 3, 1, 2).float()
        outputs: torch.Tensor = self._module(((images - self._mean) / self._std).half()).float()
        return outputs.softmax(dim=1) if self._needs_softmax else outputs


class _Graph:
    """A network recorded for one size of batch: a replay reads and writes the same memory."""

    def __init__(self, network: _Network, size: int, side: int) -> None:
        # The GPU fetches from pinned memory by itself.
        self._host = torch.zeros((size, side, side, 3), dtype=torch.uint8, pin_memory=True)
        self._pixels = self._host.cuda()
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.no_grad():
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP_RUNS):
                    network.compute(self._pixels)
            torch.cuda.current_stream().wait_stream(stream)
            with torch.cuda.graph(self._graph):
                self._answers = network.compute(self._pixels)

    def run(self, images: Pixels) -> Probabilities:
        """At most as many images as it was recorded for; behind them lie some of before."""
        self._host.numpy()[: len(images)] = images
        self._pixels.copy_(self._host, non_blocking=True)
        self._graph.replay()
        # Copying to the CPU waits for the GPU.
        probabilities: Probabilities = self._answers[: len(images)].cpu().numpy()
        return probabilities
