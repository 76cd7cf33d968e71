"""What a score is made of: by the definition of the Shapley value, closed forms, and a real champion."""

import json
import shutil
from itertools import combinations
from math import factorial

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.models_by_hand import FEATURES, WINDOW, contract, make_champion, register
from typer.testing import CliRunner

from feature_repo.store import open_store
from pitwise.errors import StoreError
from pitwise.registry.contract import open_onnx, run_onnx
from pitwise.registry.model import RegisteredModel
from pitwise.workspace import Workspace
from serving import explain_cli
from serving.attribution import contributions
from serving.explain import explain, median_window, relative
from serving.inference.predictor import Predictor

PRICES = ["open", "price_change"]
PLAIN = ["daily_return", "price_to_sma_5", "rsi_14"]
CLOSE = FEATURES.index("close")


def saved(nodes: list, constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A model of the contract; the nodes make `score` of `windows`."""
    nodes = [
        *nodes,
        helper.make_node("Mul", ["score", "factor"], ["log_return"]),
        helper.make_node("Sigmoid", ["log_return"], ["p_up"]),
    ]
    constants = {"factor": np.array(0.01, "float32")} | constants
    windows = helper.make_tensor_value_info("windows", TensorProto.FLOAT, ["b", WINDOW, len(FEATURES)])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b"])
        for name in ("score", "log_return", "p_up")
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "by_hand", [windows], outputs, tensors)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


MADE = np.array([[1, 0.5]] * 5)
REAL = np.array([[1, 0.01], [0, 0.01], [0, 2], [1, 0.02], [50, 10]])
"""About where each column's values lie, and how far apart: of `windows`, and of a market."""


def forest(rng: np.random.Generator, values: np.ndarray = MADE, name: str = "score") -> tuple:
    """Full trees of depth three on the last session: two prices as multiples of the close, three as they
    are; volume is not looked at. Nodes and constants of a graph, whose last output has the name."""
    names = [*PRICES, *PLAIN]
    columns, depth, trees = len(names), 3, 12
    inner, size = 2**depth - 1, 2 ** (depth + 1) - 1
    is_leaf = np.tile(np.arange(size) >= inner, trees)
    tree, number = np.repeat(np.arange(trees), size), np.tile(np.arange(size), trees)
    child = np.where(is_leaf, 0, 2 * number + 1)
    column = rng.integers(0, columns, len(tree))
    threshold = rng.normal(*values[column].T)
    attributes = {
        "n_targets": 1,
        "nodes_treeids": tree.tolist(),
        "nodes_nodeids": number.tolist(),
        "nodes_featureids": column.tolist(),
        "nodes_modes": np.where(is_leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_values": threshold.astype("float32").tolist(),
        "nodes_truenodeids": child.tolist(),
        "nodes_falsenodeids": np.where(is_leaf, 0, child + 1).tolist(),
        "target_treeids": tree[is_leaf].tolist(),
        "target_nodeids": number[is_leaf].tolist(),
        "target_ids": [0] * int(is_leaf.sum()),
        "target_weights": rng.normal(0, 1, is_leaf.sum()).astype("float32").tolist(),
    }
    make = helper.make_node
    nodes = [
        make("Gather", ["windows", f"{name}/last"], [f"{name}/at_last"], axis=1),
        make("Gather", [f"{name}/at_last", f"{name}/close"], [f"{name}/last_close"], axis=1),
        make("Gather", [f"{name}/at_last", f"{name}/prices"], [f"{name}/dollars"], axis=1),
        make("Div", [f"{name}/dollars", f"{name}/last_close"], [f"{name}/multiples"]),
        make("Gather", [f"{name}/at_last", f"{name}/plain"], [f"{name}/numbers"], axis=1),
        make("Concat", [f"{name}/multiples", f"{name}/numbers"], [f"{name}/seen"], axis=1),
        make(
            "TreeEnsembleRegressor",
            [f"{name}/seen"],
            [f"{name}/sum"],
            domain="ai.onnx.ml",
            **attributes,
        ),
        make("Squeeze", [f"{name}/sum", f"{name}/one"], [name]),
    ]
    places = {"prices": PRICES, "plain": PLAIN, "close": ["close"]}
    constants = {
        f"{name}/{key}": np.array([FEATURES.index(n) for n in of]) for key, of in places.items()
    }
    return nodes, constants | {f"{name}/last": np.array(WINDOW - 1), f"{name}/one": np.array([1])}


def product(name: str = "score") -> tuple:
    """The sum over the sessions of two features' product."""
    make = helper.make_node
    nodes = [
        make("Gather", ["windows", f"{name}/u"], [f"{name}/us"], axis=2),
        make("Gather", ["windows", f"{name}/v"], [f"{name}/vs"], axis=2),
        make("Mul", [f"{name}/us", f"{name}/vs"], [f"{name}/products"]),
        make("ReduceSum", [f"{name}/products", f"{name}/axes"], [name], keepdims=0),
    ]
    return nodes, {f"{name}/u": np.array(4), f"{name}/v": np.array(5), f"{name}/axes": np.array([1])}


def weighted(parts: dict[str, tuple], weights: list[float]) -> tuple:
    """The weighted sum of what other graphs say."""
    nodes = [node for of, _ in parts.values() for node in of]
    constants = {key: value for _, of in parts.values() for key, value in of.items()}
    for name, weight in zip(parts, weights, strict=True):
        nodes.append(helper.make_node("Mul", [name, f"{name}/weight"], [f"{name}/weighted"]))
        constants[f"{name}/weight"] = np.array(weight, "float32")
    nodes.append(helper.make_node("Sum", [f"{name}/weighted" for name in parts], ["score"]))
    return nodes, constants


def windows(rng: np.random.Generator, n: int) -> np.ndarray:
    values = rng.normal(1, 0.5, (n, WINDOW, len(FEATURES)))
    values[:, :, [CLOSE, FEATURES.index("open")]] = np.exp(values[:, :, [CLOSE, FEATURES.index("open")]])
    values[:, :, FEATURES.index("volume")] = rng.integers(1, 10**6, (n, WINDOW))
    return values.astype("float32")


def by_definition(session: ort.InferenceSession, x: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """Shapley values, out of the scores of all coalitions of features."""
    n = len(FEATURES)
    coalitions = [frozenset(s) for size in range(n + 1) for s in combinations(range(n), size)]
    mixed = np.stack([np.where(np.isin(np.arange(n), list(s)), x, baseline) for s in coalitions])
    worth = dict(zip(coalitions, run_onnx(session, mixed)["score"].tolist(), strict=True))
    found = np.zeros(n)
    for s in coalitions:
        for i in set(range(n)) - s:
            weight = factorial(len(s)) * factorial(n - len(s) - 1) / factorial(n)
            found[i] += weight * (worth[s | {i}] - worth[s])
    return found


def two_windows(rng: np.random.Generator) -> np.ndarray:
    """Of one close, so that every feature moves what it alone is."""
    x, baseline = windows(rng, 2)
    baseline[:, CLOSE] = x[:, CLOSE]
    return np.stack([x, baseline])


def integral_of_a_product(x: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """Of the sum over the sessions of u v, u has (x_u - b_u) (x_v + b_v) / 2 of each, and so has v."""
    step, middle = (x - baseline).astype("float64"), (x + baseline).astype("float64") / 2
    found = np.zeros(len(FEATURES))
    found[4], found[5] = (step[:, 4] * middle[:, 5]).sum(), (step[:, 5] * middle[:, 4]).sum()
    return found


@pytest.mark.unit
@pytest.mark.parametrize("seed", range(3))
def test_of_trees_each_feature_has_its_shapley_value(seed, tmp_path):
    rng = np.random.default_rng(seed)
    file = tmp_path / "model.onnx"
    onnx.save(saved(*forest(rng)), file)
    x, baseline = two_windows(rng)
    wanted = by_definition(ort.InferenceSession(file), x, baseline)
    assert np.count_nonzero(wanted) > 2
    found, method = contributions(file, CLOSE, x, baseline)
    assert method == "shapley"
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.unit
def test_of_a_product_each_factor_has_the_integral_of_its_gradient(tmp_path):
    file = tmp_path / "model.onnx"
    onnx.save(saved(*product()), file)
    x, baseline = two_windows(np.random.default_rng(0))
    found, method = contributions(file, CLOSE, x, baseline)
    assert method == "integrated_gradients"
    np.testing.assert_allclose(found, integral_of_a_product(x, baseline), atol=1e-4)


@pytest.mark.unit
def test_of_an_ensemble_trees_have_the_ones_and_the_rest_the_other(tmp_path):
    rng = np.random.default_rng(1)
    trees = {name: forest(rng, name=name) for name in ("a", "b")}
    file, members = tmp_path / "model.onnx", tmp_path / "trees.onnx"
    onnx.save(saved(*weighted(trees | {"c": product("c")}, [2, -0.5, 0.1])), file)
    onnx.save(saved(*weighted(trees, [2, -0.5])), members)
    x, baseline = two_windows(rng)
    of_trees = by_definition(ort.InferenceSession(members), x, baseline)
    found, method = contributions(file, CLOSE, x, baseline)
    assert method == "shapley, integrated_gradients"
    wanted = of_trees + 0.1 * integral_of_a_product(x, baseline)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.unit
def test_the_median_symbol_of_one_stock_at_several_prices_and_sizes_is_that_stock():
    """Share counts are all but proportional: the logarithm is of one share more."""
    one = windows(np.random.default_rng(1), 1)
    others = np.repeat(one, 3, axis=0)
    others[1, :, [FEATURES.index(name) for name in ("open", "close", "price_change")]] *= 10
    others[2, :, FEATURES.index("volume")] *= 3
    for window in others:
        found = median_window(relative(others, FEATURES), window, FEATURES)
        np.testing.assert_allclose(found, window, rtol=1e-3)
    rising = others.copy()
    rising[:, :, FEATURES.index("rsi_14")] = np.array([10, 70, 30])[:, None]
    found = median_window(relative(rising, FEATURES), rising[0], FEATURES)
    assert (found[:, FEATURES.index("rsi_14")] == 30).all()


@pytest.mark.component
def test_the_command_explains_the_champions_newest_score(published, tmp_path, monkeypatch, capsys):
    workspace = Workspace(shutil.copytree(published.root, tmp_path / "workspace"))
    champion, file = saved(*forest(np.random.default_rng(2), REAL)), tmp_path / "model.onnx"
    make_champion(workspace, register(workspace, champion, contract()))
    monkeypatch.setattr(explain_cli, "_here", lambda: workspace)
    said = json.loads(CliRunner().invoke(explain_cli.app, ["S001", "--json"]).output)

    assert (said["symbol"], said["method"], said["symbols"]) == ("S001", "shapley", 5)
    made_of = sum(one["contribution"] for one in said["features"])
    assert said["baseline"] + made_of + said["unexplained"] == pytest.approx(said["score"])
    assert abs(said["unexplained"]) < 1e-5
    assert {name: len(values) for name, values in said["window"].items()} == dict.fromkeys(
        FEATURES, WINDOW
    )
    by_name = {one["feature"]: one for one in said["features"]}
    assert by_name["volume"]["contribution"] == 0
    assert sum(one["contribution"] != 0 for one in said["features"]) >= 3
    assert by_name["rsi_14"]["value"] == said["window"]["rsi_14"][-1]

    onnx.save(champion, file)
    model = RegisteredModel("1", "by_hand", FEATURES, WINDOW, open_onnx(file), {})
    predictor, symbols = Predictor(model, open_store(workspace)), [f"S00{i}" for i in range(5)]
    found = {symbol: explain(predictor, file, symbol, symbols) for symbol in symbols}
    assert found["S001"].score == pytest.approx(said["score"])
    scores = predictor.forecast(symbols).score
    assert [found[symbol].rank for symbol in symbols] == [1 + (scores > one).sum() for one in scores]
    last = {symbol: {one.feature: one for one in found[symbol].features} for symbol in symbols}
    by_return = sorted(symbols, key=lambda symbol: -last[symbol]["daily_return"].value)
    assert [last[symbol]["daily_return"].rank for symbol in by_return] == [1, 2, 3, 4, 5]

    explain_cli._show(found["S001"], top=2)
    shown = capsys.readouterr().out
    assert f"rank {said['rank']} of 5" in shown
    assert said["features"][0]["feature"] in shown
    with pytest.raises(StoreError, match="no window of NOBODY"):
        explain(predictor, file, "NOBODY", symbols)
