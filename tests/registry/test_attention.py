import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pitwise.registry.attention import attention
from pitwise.registry.contract import INPUT


def saved(path, *nodes):
    value = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", 2])
    score = helper.make_tensor_value_info("score", TensorProto.FLOAT, None)
    graph = helper.make_graph(
        [*nodes, helper.make_node("Neg", [INPUT], ["score"])], "m", [value], [score]
    )
    opset = helper.make_opsetid("", 18)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    return path


def test_the_last_softmax_is_read_and_the_file_stays_as_it_is(tmp_path):
    nodes = [
        helper.make_node("Softmax", [INPUT], ["first"]),
        helper.make_node("Softmax", ["first"], ["second"]),
    ]
    path = saved(tmp_path / "model.onnx", *nodes)
    before = path.read_bytes()
    first = np.array([[1, 3]]) / 4  # of log 1 and log 3
    found = attention(path, np.log(np.array([[1, 3]], "float32")))
    np.testing.assert_allclose(found, np.exp(first) / np.exp(first).sum(), rtol=1e-6)
    assert path.read_bytes() == before


def test_a_file_without_attention_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no attention"):
        attention(saved(tmp_path / "model.onnx"), np.zeros((1, 2), "float32"))
