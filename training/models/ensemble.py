"""Several models as one, in one ONNX file: the mean of their standardised scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import compose, helper, numpy_helper
from scipy.special import expit

from pitwise.features.served import ServedWindows
from pitwise.registry.contract import ALL_OUTPUTS, BATCH, INPUT, open_onnx, run_onnx
from pitwise.workspace import replacing


class Member(NamedTuple):
    name: str
    """Stands before the names of its nodes in the graph."""
    file: Path
    features: Sequence[str]


class Answers(NamedTuple):
    """What m members say of n windows; (n, m) each, see `contract.ALL_OUTPUTS`."""

    score: np.ndarray
    log_return: np.ndarray
    scale: np.ndarray


class Combination(NamedTuple):
    """One forecast out of m: score = bias + scores · weights; the log return is logistic about
    a + b * score, with the geometric mean of the members' scales."""

    weights: np.ndarray
    """(m,)"""
    bias: float
    location: tuple[float, float]
    """a and b."""

    def forecast(self, said: Answers) -> dict[str, np.ndarray]:
        """`ALL_OUTPUTS`, (n,) each."""
        score = self.bias + said.score @ self.weights
        log_return = self.location[0] + self.location[1] * score
        scale = np.exp(np.log(said.scale).mean(axis=1))
        outputs = score, log_return, expit(log_return / scale), scale
        return dict(zip(ALL_OUTPUTS, outputs, strict=True))


def combine(said: Answers) -> Combination:
    """Equal weights of the scores in standard deviations, and the calibration that follows from the
    members' own.

    Labels are not asked again: trees are fitted on the validation dates once they are calibrated, and
    would look too good there. The slope of returns on a score is their covariance over the score's
    variance (least squares). The covariance with a mean of scores is the mean of the members', which
    their calibrations say; the variance is that of the mean.

    Args:
        said: of windows of the validation dates.
    """
    mean, std = said.score.mean(axis=0), said.score.std(axis=0)
    std = np.where(std > 1e-9, std, np.inf)  # what does not vary ranks nothing
    weights = 1 / (std * len(std))
    standard = (said.score - mean) / std
    variance = standard.mean(axis=1).var()
    slope = (standard * said.log_return).mean() / variance if variance > 0 else 0.0
    return Combination(weights, -float(mean @ weights), (float(said.log_return.mean()), float(slope)))


def ask(
    members: Sequence[Member],
    features: Sequence[str],
    windows: ServedWindows,
    ends: np.ndarray,
    length: int,
) -> Answers:
    """What each member says by itself.

    Args:
        features: of the windows; those of every member are among them.
        ends: positions of the rows at which the windows end.
        length: sessions in a window.
    """
    sessions = [open_onnx(member.file) for member in members]
    places = [_places(member, features) for member in members]
    parts = []
    for i in range(0, len(ends), BATCH):
        some = windows.gather(ends[i : i + BATCH], length)
        said = [run_onnx(one, some[:, :, at]) for one, at in zip(sessions, places, strict=True)]
        parts.append([np.stack([of[name] for of in said], axis=1) for name in Answers._fields])
    return Answers(*(np.concatenate(part).astype("float64") for part in zip(*parts, strict=True)))


def _places(member: Member, features: Sequence[str]) -> np.ndarray:
    return np.array([features.index(name) for name in member.features], dtype="int64")


def graph_of(
    members: Sequence[Member], features: Sequence[str], length: int, combination: Combination
) -> onnx.ModelProto:
    """The members and what makes one forecast of theirs, as one model of the contract."""
    nodes, constants, node = [], [], helper.make_node
    opsets: dict[str, int] = {}

    def constant(name: str, value: np.ndarray | float) -> str:
        value = np.asarray(value, None if isinstance(value, np.ndarray) else "float32")
        constants.append(numpy_helper.from_array(value, name))
        return name

    weighted, log_scales = [], []
    for member, weight in zip(members, combination.weights, strict=True):
        model, name = onnx.load(member.file), member.name
        opsets |= {used.domain: used.version for used in model.opset_import}
        places = constant(f"places_{name}", _places(member, features))
        nodes.append(node("Gather", [INPUT, places], [f"{name}/{INPUT}"], axis=2))
        graph = compose.add_prefix(model, f"{name}/").graph
        nodes += graph.node
        constants += graph.initializer
        # No name of these begins as the member's do: one of several seeds is such a graph itself.
        weighted.append(f"weighted_{name}")
        log_scales.append(f"log_scale_{name}")
        share = constant(f"weight_{name}", float(weight))
        nodes.append(node("Mul", [f"{name}/score", share], weighted[-1:]))
        nodes.append(node("Log", [f"{name}/scale"], log_scales[-1:]))
    bias = constant("bias", combination.bias)
    a, b = (constant(name, x) for name, x in zip("ab", combination.location, strict=True))
    nodes += [
        node("Sum", [*weighted, bias], ["score"]),
        node("Mul", ["score", b], ["slope"]),
        node("Add", ["slope", a], ["log_return"]),
        node("Mean", log_scales, ["log_scale"]),
        node("Exp", ["log_scale"], ["scale"]),
        node("Div", ["log_return", "scale"], ["log_odds"]),
        node("Sigmoid", ["log_odds"], ["p_up"]),
    ]

    def declared(name: str, *more: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", *more])

    inputs = [declared(INPUT, length, len(features))]
    made = helper.make_model(
        helper.make_graph(
            nodes, "ensemble", inputs, [declared(name) for name in ALL_OUTPUTS], constants
        ),
        ir_version=model.ir_version,
        opset_imports=[helper.make_opsetid(*used) for used in opsets.items()],
    )
    onnx.checker.check_model(made)
    return made


def write_ensemble(
    members: Sequence[Member],
    features: Sequence[str],
    windows: ServedWindows,
    ends: np.ndarray,
    length: int,
    path: Path,
) -> float:
    """Make one model of the members; weights and calibration are of the windows, see `ask`.

    Args:
        ends: of windows of the validation dates.

    Returns:
        its largest difference to what follows from the members' own answers, over some of the windows.
    """
    said = ask(members, features, windows, ends, length)
    combination = combine(said)
    model = graph_of(members, features, length, combination)
    with replacing(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
    expected = combination.forecast(Answers(*(part[:BATCH] for part in said)))
    answers = run_onnx(open_onnx(path), windows.gather(ends[:BATCH], length))
    return float(np.max([np.abs(answers[name] - expected[name]).max() for name in ALL_OUTPUTS]))
