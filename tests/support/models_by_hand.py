"""Models of one formula, in ONNX, and broken ones, registered without training anything."""

import tempfile
from functools import cache
from pathlib import Path

import mlflow
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pitwise.workspace import Workspace

FEATURES = ("open", "close", "volume", "price_change", "daily_return", "price_to_sma_5", "rsi_14")
WINDOW = 10


def onnx_model(
    scale: float = 0.01,
    p_up_offset: float = 0.0,
    names: tuple[str, str, str] = ("windows", "log_return", "p_up"),
    window: int = WINDOW,
    features: int = len(FEATURES),
    of_batch: bool = False,
    keepdims: int = 0,
    spread: float | None = None,
) -> onnx.ModelProto:
    """log_return = scale * tanh(m / 1e6), p_up = sigmoid(m / 1e6) + offset, m: the window's mean.

    With `of_batch` the batch's mean log_return is taken off each. With `spread` all outputs: score
    = m / 1e6, scale = spread, p_up = sigmoid(log_return / spread) + offset.
    """
    windows, log_return, p_up = names

    def number(name: str, value: float) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(value, "float32"), name)

    nodes = [
        helper.make_node("ReduceMean", [windows, "axes"], ["mean"], keepdims=keepdims),
        helper.make_node("Mul", ["mean", "millionth"], ["small"]),
        helper.make_node("Tanh", ["small"], ["tanh"]),
        helper.make_node("Mul", ["tanh", "factor"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled", "first_axis"], ["of_all"], keepdims=1),
        helper.make_node("Mul", ["of_all", "taken_off"], ["off"]),
        helper.make_node("Sub", ["scaled", "off"], [log_return]),
        helper.make_node("Sigmoid", ["small" if spread is None else "ratio"], ["sigmoid"]),
        helper.make_node("Add", ["sigmoid", "offset"], [p_up]),
    ]
    constants = [
        numpy_helper.from_array(np.array([1, 2], "int64"), "axes"),
        numpy_helper.from_array(np.array([0], "int64"), "first_axis"),
        number("millionth", 1e-6),
        number("factor", scale),
        number("taken_off", float(of_batch)),
        number("offset", p_up_offset),
    ]
    outputs = [log_return, p_up]
    if spread is not None:
        nodes[-2:-2] = [
            helper.make_node("Identity", ["small"], ["score"]),
            helper.make_node("Div", [log_return, "spread"], ["ratio"]),
            helper.make_node("Sub", ["small", "small"], ["zero"]),
            helper.make_node("Add", ["zero", "spread"], ["scale"]),
        ]
        outputs += ["score", "scale"]
        constants.append(number("spread", spread))
    shape = ["batch"] + [1, 1] * keepdims
    graph = helper.make_graph(
        nodes,
        "by_hand",
        [helper.make_tensor_value_info(windows, TensorProto.FLOAT, ["batch", window, features])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in outputs],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def contract(**changed) -> dict:
    return {"kind": "by_hand", "features": list(FEATURES), "window": WINDOW} | changed


@cache
def empty_registry() -> bytes:
    """MLflow's database before anything is in it: its tables are made by dozens of migrations."""
    with tempfile.TemporaryDirectory() as folder:
        mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db").search_registered_models()
        return Path(folder, "mlflow.db").read_bytes()


def registry(workspace: Workspace) -> mlflow.MlflowClient:
    """MLflow's client of the workspace's registry, which MLflow is set to from here on."""
    database = workspace.root / "mlflow.db"
    if not database.exists():
        database.write_bytes(empty_registry())
    mlflow.set_tracking_uri(f"sqlite:///{workspace.root}/mlflow.db")
    return mlflow.MlflowClient()


def register(
    workspace: Workspace,
    model: onnx.ModelProto,
    metadata: dict | None,
    name: str = "pitwise",
    **metrics: float,
) -> str:
    """A model into the workspace's registry; its version."""
    client = registry(workspace)
    experiment = client.get_experiment_by_name("by_hand")
    folder = workspace.root / "by_hand"
    number = (
        experiment.experiment_id if experiment else client.create_experiment("by_hand", folder.as_uri())
    )
    if not client.search_registered_models(f"name='{name}'"):
        client.create_registered_model(name)
    run = client.create_run(number).info.run_id
    for key, value in metrics.items():
        client.log_metric(run, key.replace("__", "."), value)
    mlflow.onnx.save_model(model, folder / run, metadata=metadata, pip_requirements=["onnxruntime"])
    version = str(client.create_model_version(name, str(folder / run), run_id=run).version)
    if metadata:
        client.set_model_version_tag(name, version, "kind", metadata["kind"])
    return version


def make_champion(workspace: Workspace, version: str, name: str = "pitwise") -> None:
    """Point the alias `champion` at a version, past the history."""
    registry(workspace).set_registered_model_alias(name, "champion", version)
