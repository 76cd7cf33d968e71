"""The contract between those who train a model and those who run it.

A model is one ONNX file: input `windows` (batch, window, n_features) of raw float32 feature values,
outputs of (batch,) each. `score` ranks the symbols of a session, in any unit. The others are of one
logistic distribution of the log return over `horizon` sessions: its location `log_return`, its `scale`
(> 0), and `p_up` = sigmoid(log_return / scale). Files of earlier versions have `log_return` and `p_up`
alone. Which features, how long a window and which horizon stands beside the file in the registry, as
metadata of the MLflow model.
"""

from pathlib import Path

import numpy as np
import onnxruntime as ort

from pitwise.features.served import ServedWindows

INPUT = "windows"
OUTPUTS = ("log_return", "p_up")
"""What every model's file has."""
ALL_OUTPUTS = ("score", *OUTPUTS, "scale")
"""What a file that is made now has, and what running any of them gives."""
BATCH = 2048
PIECE = 64
"""Windows in one run: what an LSTM of them needs then stays in the processor's cache."""
CONTRACT = ("kind", "features", "window")
"""Metadata that a version needs to be run."""


def open_onnx(path: Path, threads: int = 0) -> ort.InferenceSession:
    """A model's session, whose runs have so many threads; 0: one a core."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run_onnx(session: ort.InferenceSession, windows: np.ndarray) -> dict[str, np.ndarray]:
    """`ALL_OUTPUTS` by name, each (batch,) float32, for windows (batch, window, n_features) float32.

    Of a file that has no `score` it is the log return; a `scale` that is not known is NaN.
    """
    names = [node.name for node in session.get_outputs()]
    pieces = [windows[i : i + PIECE] for i in range(0, max(len(windows), 1), PIECE)]
    parts = [session.run(names, {INPUT: piece}) for piece in pieces]
    found = {
        name: np.concatenate(values)
        for name, values in zip(names, zip(*parts, strict=True), strict=True)
    }
    log_return = found["log_return"]
    assumed = {"score": log_return, "scale": np.full_like(log_return, np.nan)}
    return {name: found[name] if name in found else assumed[name] for name in ALL_OUTPUTS}


def run_onnx_over(
    session: ort.InferenceSession, windows: ServedWindows, ends: np.ndarray, length: int
) -> dict[str, np.ndarray]:
    """`run_onnx` for the windows that end at `ends`: outputs by name, each (len(ends),) float32.

    Args:
        windows: of the features in the order the model was trained on.
        ends: positions of rows, as `ServedWindows.ends` returns them.
        length: sessions in a window.
    """
    parts = [
        run_onnx(session, windows.gather(ends[i : i + BATCH], length))
        for i in range(0, max(len(ends), 1), BATCH)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in ALL_OUTPUTS}
