"""The contract between those who train a model and those who run it.

A model is one ONNX file: input `windows` (batch, window, n_features) of raw float32 feature values,
outputs `log_return` and `p_up`, each (batch,). Which features and how long a window stands beside
the file in the registry, as metadata of the MLflow model.
"""

from pathlib import Path

import numpy as np
import onnxruntime as ort

from pitwise.features.served import ServedWindows

INPUT = "windows"
OUTPUTS = ("log_return", "p_up")
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
    """Outputs by name, each (batch,) float32, for windows (batch, window, n_features) float32."""
    pieces = [windows[i : i + PIECE] for i in range(0, max(len(windows), 1), PIECE)]
    parts = [session.run(list(OUTPUTS), {INPUT: piece}) for piece in pieces]
    return {
        name: np.concatenate(values)
        for name, values in zip(OUTPUTS, zip(*parts, strict=True), strict=True)
    }


def run_onnx_over(
    session: ort.InferenceSession, windows: ServedWindows, ends: np.ndarray, length: int
) -> dict[str, np.ndarray]:
    """Outputs by name, each (len(ends),) float32, for the windows that end at `ends`.

    Args:
        windows: of the features in the order the model was trained on.
        ends: positions of rows, as `ServedWindows.ends` returns them.
        length: sessions in a window.
    """
    parts = [
        run_onnx(session, windows.gather(ends[i : i + BATCH], length))
        for i in range(0, max(len(ends), 1), BATCH)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in OUTPUTS}
