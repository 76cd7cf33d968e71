"""A fitted forecaster as one ONNX file, and proof that it says what torch said."""

import io
import logging
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch

from feature_repo.artifacts import replacing
from feature_repo.windows import gather
from training.models import OUTPUTS, Forecaster

INPUT = "windows"


def export_onnx(model: Forecaster, example: torch.Tensor, path: Path) -> None:
    """Write the model: input `windows` (batch, window, n_features), outputs `log_return`, `p_up`.

    Args:
        example: at least two windows; a batch of one would be taken for a constant.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    buffer = io.BytesIO()
    program = torch.onnx.export(
        model.eval(),
        (example,),
        dynamo=True,
        dynamic_shapes={INPUT: {0: "batch"}},
        input_names=[INPUT],
        output_names=list(OUTPUTS),
        verbose=False,
    )
    program.save(buffer, external_data=False)
    graph = onnx.load_from_string(buffer.getvalue())
    # Stack traces of this machine's paths: of no use to a reader, and different on every machine.
    for item in (graph, graph.graph, *graph.graph.node, *graph.graph.value_info, *graph.functions):
        del item.metadata_props[:]
    for node in graph.graph.node:
        node.ClearField("doc_string")
    onnx.checker.check_model(graph)
    with replacing(path) as temporary:
        temporary.write_bytes(graph.SerializeToString(deterministic=True))


def onnx_session(path: Path) -> ort.InferenceSession:
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"])


def predict(
    session: ort.InferenceSession,
    rows: np.ndarray,
    ends: np.ndarray,
    window: int,
    batch: int = 4096,
) -> dict[str, np.ndarray]:
    """Run an exported model over windows; each output (len(ends),) float32.

    Args:
        rows: (n, n_features) float32 raw values, in the order the model was trained on.
        ends: positions in `rows` at which the windows end.
    """
    parts = [
        session.run(list(OUTPUTS), {INPUT: gather(rows, ends[i : i + batch], window)})
        for i in range(0, len(ends), batch)
    ]
    return {name: np.concatenate([part[i] for part in parts]) for i, name in enumerate(OUTPUTS)}


@torch.no_grad()
def parity(model: Forecaster, session: ort.InferenceSession, windows: torch.Tensor) -> float:
    """Largest absolute difference between torch and onnxruntime over the windows and outputs."""
    answers = session.run(list(OUTPUTS), {INPUT: windows.numpy()})
    return max(
        float(np.abs(torch_answer.numpy() - onnx_answer).max())
        for torch_answer, onnx_answer in zip(model(windows), answers, strict=True)
    )
