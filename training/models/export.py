"""A fitted forecaster as one ONNX file, and proof that its outputs are the model's own."""

import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch

from pitwise.registry.contract import ALL_OUTPUTS, INPUT, run_onnx
from pitwise.workspace import replacing
from training.models.forecaster import Forecaster


def export_onnx(model: Forecaster, example: torch.Tensor, path: Path) -> None:
    """Write the model: input `windows` (batch, window, n_features), outputs `ALL_OUTPUTS`.

    Args:
        example: at least two windows; a batch of one would be taken for a constant.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own code is deprecated; `parity` is the proof
        program = torch.onnx.export(
            model.eval(),
            (example,),
            dynamo=True,
            dynamic_shapes={INPUT: {0: "batch"}},
            input_names=[INPUT],
            output_names=list(ALL_OUTPUTS),
            verbose=False,
        )
    assert program is not None  # None is only for the old exporter
    graph = program.model_proto
    # Stack traces of this machine's paths: of no use to a reader, and different on every machine.
    for item in (graph, graph.graph, *graph.graph.node, *graph.graph.value_info, *graph.functions):
        del item.metadata_props[:]
    for node in graph.graph.node:
        node.ClearField("doc_string")
    onnx.checker.check_model(graph)
    with replacing(path) as temporary:
        temporary.write_bytes(graph.SerializeToString(deterministic=True))


@torch.no_grad()
def parity(model: Forecaster, session: ort.InferenceSession, windows: torch.Tensor) -> float:
    """Largest absolute difference between the model and onnxruntime over the windows and outputs."""
    outputs = run_onnx(session, windows.numpy())
    said = zip(ALL_OUTPUTS, model(windows), strict=True)
    differences = [np.abs(torch_output.numpy() - outputs[name]).max() for name, torch_output in said]
    return float(np.max(differences))  # NaN where one is
