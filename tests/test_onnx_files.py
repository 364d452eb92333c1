"""ONNX graphs that keep a part of them in another file, wherever in the graph that is."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.core.errors import ConfigurationError
from app.inference.graphs import load_graph
from app.models.ml_models import prepare_model
from tests import model_files
from tests.model_files import settings_for

OUTSIDE = "victim.bin"
ARRAY = numpy_helper.from_array(np.zeros(2, np.float32), "outside")


def create_outside() -> TensorProto:
    """A tensor whose numbers are in another file."""
    tensor = TensorProto(name="outside", data_type=TensorProto.FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=OUTSIDE)
    return tensor


def create_constant() -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["outside"], value=create_outside())


def create_body(*nodes: onnx.NodeProto, initializer: bool = False) -> onnx.GraphProto:
    output = helper.make_tensor_value_info("outside", TensorProto.FLOAT, [2])
    tensors = [create_outside()] if initializer else []
    return helper.make_graph(nodes, "body", [], [output], tensors)


def put_initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(create_outside())


def put_constant(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, create_constant())


def put_list_of_tensors(model: onnx.ModelProto) -> None:
    node = helper.make_node("Custom", [], ["outside"], domain="somebody")
    node.attribute.append(helper.make_attribute("tensors", [ARRAY, create_outside()]))
    model.graph.node.insert(0, node)


def put_sparse_initializer(model: onnx.ModelProto) -> None:
    indices = numpy_helper.from_array(np.arange(2), "indices")
    sparse = helper.make_sparse_tensor(create_outside(), indices, [2])
    model.graph.sparse_initializer.append(sparse)


def put_sparse_indices(model: onnx.ModelProto) -> None:
    indices = create_outside()
    indices.data_type = TensorProto.INT64
    sparse = helper.make_sparse_tensor(ARRAY, indices, [2])
    node = helper.make_node("Constant", [], ["outside"], sparse_value=sparse)
    model.graph.node.insert(0, node)


def put_branch(model: onnx.ModelProto) -> None:
    body = create_body(create_constant())
    node = helper.make_node("If", ["yes"], ["taken"], then_branch=body, else_branch=body)
    model.graph.node.insert(0, node)


def put_loop_in_a_branch(model: onnx.ModelProto) -> None:
    loop = helper.make_node("Loop", ["", ""], ["outside"], body=create_body(initializer=True))
    body = create_body(loop)
    node = helper.make_node("If", ["yes"], ["taken"], then_branch=body, else_branch=body)
    model.graph.node.insert(0, node)


def put_list_of_graphs(model: onnx.ModelProto) -> None:
    node = helper.make_node("Custom", [], ["outside"], domain="somebody")
    node.attribute.append(helper.make_attribute("graphs", [create_body(initializer=True)]))
    model.graph.node.insert(0, node)


def put_function(model: onnx.ModelProto) -> None:
    opset = [helper.make_opsetid("", 17)]
    nodes = [create_constant()]
    function = helper.make_function("local", "Read", [], ["outside"], nodes, opset)
    model.functions.append(function)


def put_training(model: onnx.ModelProto) -> None:
    training = model.training_info.add()
    training.algorithm.CopyFrom(create_body(initializer=True))


def put_unmarked(model: onnx.ModelProto) -> None:
    tensor = create_outside()
    tensor.data_location = TensorProto.DEFAULT
    model.graph.initializer.append(tensor)


def put_compiled(model: onnx.ModelProto) -> None:
    node = helper.make_node("EPContext", [], ["outside"], domain="com.microsoft")
    node.attribute.append(helper.make_attribute("ep_cache_context", OUTSIDE))
    model.graph.node.insert(0, node)


PLACES: list[Callable[[onnx.ModelProto], None]] = [
    put_initializer,
    put_constant,
    put_list_of_tensors,
    put_sparse_initializer,
    put_sparse_indices,
    put_branch,
    put_loop_in_a_branch,
    put_list_of_graphs,
    put_function,
    put_training,
    put_unmarked,
    put_compiled,
]


@pytest.mark.parametrize("put", PLACES, ids=lambda put: put.__name__.removeprefix("put_"))
def test_a_graph_that_needs_another_file_is_refused(
    tmp_path: Path, put: Callable[[onnx.ModelProto], None]
) -> None:
    (tmp_path / OUTSIDE).write_bytes(bytes(16))
    path = model_files.save_onnx(tmp_path)
    model = onnx.load(path)
    put(model)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ConfigurationError) as caught:
        load_graph(path)
    assert "in another file" in str(caught.value) and path.name in str(caught.value)
    assert "external_data=False" in str(caught.value) and "\n" not in str(caught.value)


def test_the_worker_says_so(tmp_path: Path) -> None:
    (tmp_path / OUTSIDE).write_bytes(bytes(16))
    path = model_files.save_onnx(tmp_path)
    model = onnx.load(path)
    put_constant(model)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ConfigurationError, match="in another file"):
        prepare_model(settings_for(path, tmp_path))


def test_a_graph_that_is_whole_is_read(tmp_path: Path) -> None:
    assert load_graph(model_files.save_onnx(tmp_path)).graph.node
