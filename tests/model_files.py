"""Small models for tests, saved in every form that the service reads."""

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from app.core.config import ModelSettings, Settings
from app.inference.sources import ModelSource, find_source

SIZE = 32
LABELS = ("cat", "dog", "fish")
VALUES: dict[str, Any] = {
    "name": "small",
    "version": "3",
    "labels": list(LABELS),
    "input_size": SIZE,
    "mean": [120, 110, 100],
    "std": [60, 61, 62],
}


def build_network(pool: int = 7) -> nn.Sequential:
    """A network with random but fixed weights whose answers depend on the image.

    ``pool`` is the side that features are averaged to, from 14.
    """
    torch.manual_seed(7)
    convolution = nn.Conv2d(3, 8, 5, stride=2)
    last = nn.Linear(8 * pool**2, len(LABELS))
    # Spread the logits, or every class would be as likely as the others.
    nn.init.normal_(last.weight)
    return nn.Sequential(
        convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(pool), nn.Flatten(), last
    ).eval()


def describe(model: Path, **changes: Any) -> Path:
    """Write the manifest of a model file, and return the file's path."""
    model.with_suffix(".json").write_text(json.dumps({**VALUES, **changes}))
    return model


def save_images(folder: Path, count: int) -> Path:
    """A folder with images that all differ, for calibration."""
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(5)
    for index in range(count):
        colours = generator.integers(0, 256, (5, 5, 3)).astype(np.uint8)
        Image.fromarray(colours).resize((48, 40)).save(folder / f"{index:03}.png")
    return folder


def read_entry(model: Path, *parts: str) -> tuple[str, bytes]:
    """The first entry of an archive with one of these in its name: that name below the archive's
    own, and what it holds."""
    with zipfile.ZipFile(model) as archive:
        name = next(name for name in archive.namelist() if any(part in name for part in parts))
        return name.partition("/")[2], archive.read(name)


def rewrite(model: Path, entry: str, data: bytes) -> None:
    """Replace one entry of an archive, or add it."""
    with zipfile.ZipFile(model) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    root = next(iter(entries)).partition("/")[0]
    entries[f"{root}/{entry}"] = data
    with zipfile.ZipFile(model, "w", zipfile.ZIP_STORED) as new:
        for name, value in entries.items():
            new.writestr(name, value)


def settings_for(model: Path, data: Path, **changes: Any) -> Settings:
    return Settings(model=ModelSettings(path=model), data_dir=data, **changes)


def source_of(model: Path) -> ModelSource:
    return find_source(settings_for(model, model.parent))


def save_torchscript(
    folder: Path, network: nn.Module | None = None, output: str = "logits"
) -> Path:
    path = describe(folder / f"{output}.pt", output=output)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.trace(  # type: ignore[no-untyped-call]
            network or build_network(), torch.zeros(1, 3, SIZE, SIZE)
        )
        torch.jit.save(script, path)
    return path


def save_exported(folder: Path, batch: int | None = None) -> Path:
    """An exported program for any batch, or for one size of batch only."""
    path = describe(folder / f"exported{batch or ''}.pt2")
    shapes = None if batch else ({0: torch.export.Dim("batch", min=1, max=64)},)
    example = (torch.zeros(batch or 2, 3, SIZE, SIZE),)
    program = torch.export.export(build_network(), example, dynamic_shapes=shapes)
    torch.export.save(program, path)
    return path


def save_onnx(folder: Path, batch: int | str = "batch") -> Path:
    """The same network written node by node, as some other framework would."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    network = build_network()
    nodes = [
        helper.make_node("Conv", ["input", "0.weight", "0.bias"], ["a"], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("AveragePool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Gemm", ["d", "4.weight", "4.bias"], ["output"], transB=1),
    ]
    weights = [
        numpy_helper.from_array(value.numpy(), name) for name, value in network.state_dict().items()
    ]
    shape = [batch, 3, SIZE, SIZE]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, len(LABELS)])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = describe(folder / f"graph-{batch}.onnx")
    onnx.save(model, path)
    return path
