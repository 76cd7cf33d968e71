"""What each feature contributes to a model's score, on the way from a baseline's.

Of trees these are Shapley values, exact, with the baseline as the only reference (interventional
TreeSHAP: Lundberg et al. 2020, From local explanations to global understanding with explainable AI for
trees; with one reference it is the baseline Shapley of Sundararajan and Najmi 2020). Of every other
graph they are integrated gradients (Sundararajan et al. 2017, Axiomatic attribution for deep networks),
by differences along the line from the baseline.
"""

from collections.abc import Callable, Sequence
from math import factorial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort

from pitwise.registry.contract import INPUT

SHAPLEY, GRADIENTS = "shapley", "integrated_gradients"
SCORE, LOG_RETURN = "score", "log_return"
"""What is explained: the score, of a file without one the log return."""
STEPS = 200
"""Of the line from the baseline to the window."""
OPERATOR = "TreeEnsembleRegressor"
EXACT = 1e-4
"""Share of its size by which the sum of a score's parts may miss it: float32, and nothing more."""


def contributions(
    file: Path, close: int, window: np.ndarray, baseline: np.ndarray
) -> tuple[np.ndarray, str]:
    """What each feature contributes to a window's score, held against a baseline's.

    Where trees are a part of a score, times a weight, as in an ensemble, that part is Shapley values,
    and the rest integrated gradients.

    Args:
        file: the model's.
        close: position of the close among the features.
        window, baseline: (window, n_features) float32.

    Returns:
        (n_features,) all sessions of the window together, and which they are: `shapley`,
        `integrated_gradients`, or `shapley, integrated_gradients`.
    """
    import onnx

    model = onnx.load(file)
    both = np.stack([window, baseline])
    score = _runner(model, SCORE if SCORE in {one.name for one in model.graph.output} else LOG_RETURN)
    nodes = [node for node in model.graph.node if node.op_type == OPERATOR]
    forests = [_forest(node) for node in nodes]
    if not nodes or not all(forests):
        return integrated_gradients(score, window, baseline), GRADIENTS
    without = _without(model, nodes)
    outputs = [node.output[0] for node in nodes]

    def rest(windows: np.ndarray, of: str | None = None) -> np.ndarray:
        """The score where all trees say 0, but those `of` one node 1."""
        said = {name: np.full((len(windows), 1), name == of, "float32") for name in outputs}
        return without(windows, said)

    weights = np.array([(rest(both, of) - rest(both))[0] for of in outputs], "float64")
    said = np.stack([_runner(model, of)(both)[:, 0] for of in outputs], axis=1)
    whole, size = score(both), np.abs(said * weights).sum(axis=1)
    if (np.abs(rest(both) + said @ weights - whole) > EXACT * np.maximum(size, np.abs(whole))).any():
        return integrated_gradients(score, window, baseline), GRADIENTS
    total = np.zeros(window.shape[1])
    for node, trees, weight in zip(nodes, forests, weights, strict=True):
        inputs = _runner(model, node.input[0])
        values = shapley(trees, *inputs(both))
        for feature, value in zip(_features_of(inputs, baseline, close), values, strict=True):
            if feature is None and value:  # of several features at once, or of none of them
                return integrated_gradients(score, window, baseline), GRADIENTS
            if feature is not None:
                total[feature] += weight * value
    of_rest = rest(both)
    if of_rest[0] == of_rest[1]:
        return total, SHAPLEY
    return total + integrated_gradients(rest, window, baseline), f"{SHAPLEY}, {GRADIENTS}"


def integrated_gradients(
    score: Callable[[np.ndarray], np.ndarray],
    window: np.ndarray,
    baseline: np.ndarray,
    steps: int = STEPS,
) -> np.ndarray:
    """Contribution of each feature, all its sessions together; (n_features,).

    At each step of the line one feature alone is moved on from the step's start, and back from its end:
    the mean of the two differences. What is left of the step is of third order in its length, but for
    kinks that lie in it.

    Args:
        score: (n, window, n_features) float32 to (n,).
    """
    step = (window.astype("float64") - baseline) / steps
    alone = np.eye(window.shape[1])[:, None, :] * step  # (n_features, window, n_features)
    total = np.zeros(window.shape[1])
    for k in range(steps):
        start, end = baseline + k * step, baseline + (k + 1) * step
        windows = np.concatenate([start[None], start + alone, end[None], end - alone]).astype("float32")
        scores = score(windows).astype("float64")
        n = len(alone)
        total += (scores[1 : n + 1] - scores[0] + scores[n + 1] - scores[n + 2 :]) / 2
    return total


class Node(NamedTuple):
    """Of a tree: a leaf has a weight, any other node a split: left where the value is at most it."""

    column: int
    threshold: float
    left: int
    right: int
    weight: float | None


def shapley(trees: list[list[Node]], x: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """Shapley values of the columns in the sum of trees, with one reference; (n_columns,).

    A column of the coalition has the value of `x`, any other that of the baseline. A leaf is reached by
    the coalitions that hold all columns that the way to it took from `x` and none that it took from the
    baseline; of those every order of the columns is as likely.

    Args:
        x, baseline: (n_columns,).
    """
    found = np.zeros(len(x))

    def descend(tree: list[Node], at: int, ours: frozenset[int], theirs: frozenset[int]) -> None:
        node = tree[at]
        if node.weight is not None:
            a, b = len(ours), len(theirs)
            if a:
                found[list(ours)] += node.weight * factorial(a - 1) * factorial(b) / factorial(a + b)
            if b:
                found[list(theirs)] -= node.weight * factorial(a) * factorial(b - 1) / factorial(a + b)
            return
        column = node.column
        of_x, of_baseline = (
            node.left if values[column] <= node.threshold else node.right for values in (x, baseline)
        )
        if of_x == of_baseline or column in ours:
            descend(tree, of_x, ours, theirs)
        elif column in theirs:
            descend(tree, of_baseline, ours, theirs)
        else:
            descend(tree, of_x, ours | {column}, theirs)
            descend(tree, of_baseline, ours, theirs | {column})

    for tree in trees:
        descend(tree, 0, frozenset(), frozenset())
    return found


def _forest(node: Any) -> list[list[Node]]:
    """The trees of an ONNX node, each node's number its position; none where they have another form."""
    import onnx

    has = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    modes = [mode.decode() for mode in has["nodes_modes"]]
    if not {*modes} <= {"LEAF", "BRANCH_LEQ"} or has.get("n_targets") != 1:
        return []
    if has.get("aggregate_function", b"SUM") != b"SUM" or has.get("post_transform", b"NONE") != b"NONE":
        return []
    targets = zip(has["target_treeids"], has["target_nodeids"], strict=True)
    weights = dict(zip(targets, has["target_weights"], strict=True))
    trees: dict[int, list[Node]] = {}
    for i, (tree, number) in enumerate(zip(has["nodes_treeids"], has["nodes_nodeids"], strict=True)):
        grown = trees.setdefault(tree, [])
        if number != len(grown):
            return []
        is_leaf = modes[i] == "LEAF"
        grown.append(
            Node(
                has["nodes_featureids"][i],
                has["nodes_values"][i],
                has["nodes_truenodeids"][i],
                has["nodes_falsenodeids"][i],
                weights.get((tree, number), 0.0) if is_leaf else None,
            )
        )
    return list(trees.values())


def _runner(model: Any, name: str) -> Callable[..., np.ndarray]:
    """A function from windows, and what else the model is given, to one value of its graph, by name."""
    import onnx

    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    if name not in {one.name for one in shown.graph.output}:
        shown.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = ort.InferenceSession(shown.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda windows, given=None: session.run([name], {INPUT: windows} | (given or {}))[0]


def _without(model: Any, nodes: Sequence[Any]) -> Callable[..., np.ndarray]:
    """The score of a model that is given what these nodes say."""
    import onnx

    left = onnx.ModelProto()
    left.CopyFrom(model)
    for node in nodes:
        left.graph.node.remove(node)
        said = onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, ["batch", 1])
        left.graph.input.append(said)
    return _runner(left, SCORE if SCORE in {one.name for one in left.graph.output} else LOG_RETURN)


def _features_of(inputs: Callable[..., np.ndarray], window: np.ndarray, close: int) -> list[int | None]:
    """Which feature each column that the trees see is made of; None where that is not one alone.

    A price stands there as a multiple of the close, and is taken for made of the price alone.
    """
    n = window.shape[1]
    moved = np.repeat(window[None], n + 1, axis=0)
    moved[np.arange(n), :, np.arange(n)] = moved[np.arange(n), :, np.arange(n)] * 1.5 + 0.5
    seen = inputs(moved)
    moves = seen[:-1] != seen[-1]  # (n_features, n_columns)
    features: list[int | None] = []
    for column in moves.T:
        of = set(np.flatnonzero(column).tolist())
        of = of - {close} if len(of) == 2 else of
        features.append(of.pop() if len(of) == 1 else None)
    return features
