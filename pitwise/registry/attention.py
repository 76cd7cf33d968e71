"""What an exported transformer looks at."""

from pathlib import Path

import numpy as np
import onnxruntime as ort

from pitwise.registry.contract import INPUT


def attention(path: Path, windows: np.ndarray) -> np.ndarray:
    """The share of each session in what a transformer says of a window: (batch, sessions), sums to 1.

    The graph computes it anyway, in its last Softmax; here that becomes an output. The file stays as it
    is, so that serving pays nothing for it. Needs onnx.

    Args:
        path: `model.onnx` of a transformer; of several seeds in one graph, it is the last one's.
        windows: (batch, window, n_features) float32 raw.

    Raises:
        ValueError: the file has no Softmax, and so is no transformer.
    """
    import onnx

    model = onnx.load(path)
    softmax = [node.output[0] for node in model.graph.node if node.op_type == "Softmax"]
    if not softmax:
        raise ValueError(f"{path}: has no attention to read. Give the model.onnx of a transformer.")
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(softmax[-1]))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run([softmax[-1]], {INPUT: windows})[0]
