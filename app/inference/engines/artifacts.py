"""What the trials of a model leave in its folder of the cache, by name."""

from pathlib import Path

REFERENCE = "reference.npy"
"""The reference's answers to the calibration images."""

PORTION = 4
"""Images that go through a batch graph at once. Measured with the built-in model in bfloat16 on one
core, a single image at a time 5.75 ms, two 5.10, four 4.87, eight 5.14 ms each: weights are read
once for all, until their pixels no longer fit into the core's cache."""


def graph_path(folder: Path, *, batch: bool = False, quantised: bool = False) -> Path:
    """The ONNX graph for single images, or for ``PORTION`` at once, which not every model has."""
    return folder / f"model{'-int8' * quantised}{'-batch' * batch}.onnx"
