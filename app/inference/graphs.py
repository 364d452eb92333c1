"""ONNX graphs: the one form that ONNX Runtime and OpenVINO both read.

Whatever a model came as, its graph here takes the pixels of images, uint8 (N, H, W, 3), and gives
softmax probabilities, float32 (N, classes). N is 1 unless the model insists on another; models that
don't get a second graph for several images, which some engines on some CPUs run faster.
"""

import contextlib
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import Message  # type: ignore[import-untyped]
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import uses_external_data

from app.core.errors import ConfigurationError
from app.inference.checkpoints import Checkpoint
from app.models.manifest import ModelManifest, ModelOutput

PIXELS = "classifier_pixels"
PROBABILITIES = "classifier_probabilities"


def export_graph(checkpoint: Checkpoint, manifest: ModelManifest) -> onnx.ModelProto:
    """Convert a PyTorch model. What PyTorch can't convert raises an exception of its choice."""
    import torch

    size = manifest.input_size
    example = (torch.zeros(checkpoint.batch or 1, 3, size, size),)
    with _silence():
        if isinstance(checkpoint.module, torch.jit.ScriptModule):
            # The exporter that came after this one doesn't read TorchScript.
            with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
                torch.onnx.export(checkpoint.module, example, file.name, dynamo=False)
                return onnx.load(file.name)
        exported = torch.onnx.export(
            checkpoint.program or checkpoint.module, example, dynamo=True, verbose=False
        )
    assert exported is not None
    return exported.model_proto


def load_graph(path: Path) -> onnx.ModelProto:
    """Read a user's ``.onnx`` file. Raises :class:`ConfigurationError` when it is broken."""
    try:
        model = onnx.load(path, load_external_data=False)
        if any(map(_needs_file, _walk(model))):
            raise ConfigurationError(
                f"{path} keeps a part of it in another file, which its digest would not cover: "
                "export it with external_data=False"
            )
        onnx.checker.check_model(model)
    except ConfigurationError:
        raise
    # protobuf's and the checker's exceptions have no common base but this.
    except Exception:
        raise ConfigurationError(
            f"{path} is damaged or not an ONNX file: save or copy it again"
        ) from None
    return model


def _walk(message: Message) -> Iterator[Message]:
    """A message and all within it: of a model its graphs, functions, attributes and tensors."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in (value,) if isinstance(value, Message) else value:
                yield from _walk(inner)


def _needs_file(part: Message) -> bool:
    if isinstance(part, onnx.TensorProto):
        return bool(part.external_data) or uses_external_data(part)
    # Its operator is a path or a blob that a runtime compiled before.
    return isinstance(part, onnx.NodeProto) and part.op_type == "EPContext"


def complete_graph(model: onnx.ModelProto, manifest: ModelManifest) -> onnx.ModelProto:
    """Put normalisation before and softmax behind a graph; changes ``model`` and returns it.

    Raises :class:`ConfigurationError` when it takes anything but one batch of colour images.
    """
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    layout = _layout(inputs, manifest)
    kind = inputs[0].type.tensor_type
    batch = kind.shape.dim[0].dim_value or 1
    size, classes = manifest.input_size, len(manifest.labels)

    before = _normalisation(graph, inputs[0].name, layout, kind.elem_type, manifest)
    behind = _answer(graph.output[0].name, manifest)
    nodes = [*before, *graph.node, *behind]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.input.append(
        helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, [batch, size, size, 3])
    )
    graph.output.append(
        helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, [batch, classes])
    )
    return model


def find_batch_graph(model: onnx.ModelProto, size: int) -> onnx.ModelProto | None:
    """The same graph for ``size`` images at once; ``None`` when it insists on another number.

    A graph that insists on one image inside only, in a reshape, does not run in this form.
    """
    values = (*model.graph.input, *model.graph.output)
    if any(value.type.tensor_type.shape.dim[0].dim_value != 1 for value in values):
        return None
    batch = onnx.ModelProto()
    batch.CopyFrom(model)
    for value in (*batch.graph.input, *batch.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = size
    return batch


def save_graph(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph; the file appears complete or not at all."""
    partial = path.with_suffix(".partial")
    onnx.save(model, partial)
    os.replace(partial, path)


def _layout(inputs: list[onnx.ValueInfoProto], manifest: ModelManifest) -> str:
    shapes = [[dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in inputs]
    size = manifest.input_size
    if len(shapes) == 1 and len(shapes[0]) == 4:
        # 0 stands for a size that is left open.
        sides = {"NCHW": shapes[0][1:], "NHWC": [shapes[0][3], *shapes[0][1:3]]}
        for layout, (channels, height, width) in sides.items():
            if channels in (0, 3) and height in (0, size) and width in (0, size):
                return layout
    raise ConfigurationError(
        f"the ONNX model takes {shapes}, not one input (N, 3, {size}, {size}): export it again, or "
        "correct input_size in its manifest"
    )


def _normalisation(
    graph: onnx.GraphProto, target: str, layout: str, element: int, manifest: ModelManifest
) -> list[onnx.NodeProto]:
    shape = (1, 3, 1, 1) if layout == "NCHW" else (1, 1, 1, 3)
    for name, values in (("classifier_mean", manifest.mean), ("classifier_std", manifest.std)):
        array = np.array(values, np.float32).reshape(shape)
        graph.initializer.append(numpy_helper.from_array(array, name))
    # Applied in float32 even where the model computes in float16.
    order = [0, 3, 1, 2] if layout == "NCHW" else [0, 1, 2, 3]
    return [
        helper.make_node("Cast", [PIXELS], ["classifier_float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["classifier_float"], ["classifier_turned"], perm=order),
        helper.make_node("Sub", ["classifier_turned", "classifier_mean"], ["classifier_centred"]),
        helper.make_node("Div", ["classifier_centred", "classifier_std"], ["classifier_scaled"]),
        helper.make_node("Cast", ["classifier_scaled"], [target], to=element),
    ]


def _answer(output: str, manifest: ModelManifest) -> list[onnx.NodeProto]:
    if manifest.output is ModelOutput.PROBABILITIES:
        return [helper.make_node("Cast", [output], [PROBABILITIES], to=TensorProto.FLOAT)]
    return [
        helper.make_node("Cast", [output], ["classifier_logits"], to=TensorProto.FLOAT),
        helper.make_node("Softmax", ["classifier_logits"], [PROBABILITIES], axis=1),
    ]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporters' advice to those who write models from those who run them."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
