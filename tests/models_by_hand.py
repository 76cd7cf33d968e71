"""Models of one formula, in ONNX, and broken ones, registered without training anything."""

from pathlib import Path

import mlflow
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests import models_for_tests as small


def onnx_model(
    scale: float = 0.01,
    p_up_offset: float = 0.0,
    names: tuple[str, str, str] = ("windows", "log_return", "p_up"),
    window: int = small.WINDOW,
    features: int = len(small.FEATURES),
    of_batch: bool = False,
    keepdims: int = 0,
) -> onnx.ModelProto:
    """log_return = scale * tanh(m / 1e6), p_up = sigmoid(m / 1e6) + offset, m: the window's mean.

    With `of_batch` the batch's mean log_return is taken off each.
    """
    given, log_return, p_up = names

    def number(name: str, value: float) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(value, "float32"), name)

    nodes = [
        helper.make_node("ReduceMean", [given, "axes"], ["mean"], keepdims=keepdims),
        helper.make_node("Mul", ["mean", "millionth"], ["small"]),
        helper.make_node("Tanh", ["small"], ["tanh"]),
        helper.make_node("Mul", ["tanh", "scale"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled", "first_axis"], ["of_all"], keepdims=1),
        helper.make_node("Mul", ["of_all", "taken_off"], ["off"]),
        helper.make_node("Sub", ["scaled", "off"], [log_return]),
        helper.make_node("Sigmoid", ["small"], ["sigmoid"]),
        helper.make_node("Add", ["sigmoid", "offset"], [p_up]),
    ]
    constants = [
        numpy_helper.from_array(np.array([1, 2], "int64"), "axes"),
        numpy_helper.from_array(np.array([0], "int64"), "first_axis"),
        number("millionth", 1e-6),
        number("scale", scale),
        number("taken_off", float(of_batch)),
        number("offset", p_up_offset),
    ]
    shape = ["batch"] + [1, 1] * keepdims
    graph = helper.make_graph(
        nodes,
        "by_hand",
        [helper.make_tensor_value_info(given, TensorProto.FLOAT, ["batch", window, features])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in (log_return, p_up)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def contract(**changed) -> dict:
    return {"kind": "by_hand", "features": list(small.FEATURES), "window": small.WINDOW} | changed


def register(folder: Path, model: onnx.ModelProto, metadata: dict | None, **metrics: float) -> str:
    """A model into the registry of the workspace `folder`; its version."""
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    client = mlflow.MlflowClient()
    if mlflow.get_experiment_by_name("by_hand") is None:
        mlflow.create_experiment("by_hand", artifact_location=f"file://{folder}/mlruns")
        client.create_registered_model("pitwise")
    run = client.create_run(mlflow.get_experiment_by_name("by_hand").experiment_id).info.run_id
    for key, value in metrics.items():
        client.log_metric(run, key.replace("__", "."), value)
    saved = folder / "by_hand" / run
    mlflow.onnx.save_model(model, saved, metadata=metadata, pip_requirements=["onnxruntime"])
    version = str(client.create_model_version("pitwise", str(saved), run_id=run).version)
    if metadata:
        client.set_model_version_tag("pitwise", version, "kind", metadata["kind"])
    return version


def published_workspace(folder: Path) -> None:
    """Five symbols, S000 to S004, in a Feast store in `folder`; the registry is still empty."""
    small.make_workspace(folder, small.market(5, 100, seed=21))
    small.copy_rooms(folder)
    small.run_python(folder, "from feature_repo import publish; publish.main()")
