"""The ensemble's arithmetic, against least squares on returns that it never sees."""

import numpy as np
import pandas as pd
import pytest
from support import models_by_hand

from pitwise.registry.contract import open_onnx, run_onnx
from training.ensemble import ensemble_forecast
from training.models.ensemble import Answers, Combination, Member, combine, graph_of

rng = np.random.default_rng(4)
N = 400
RETURNS = rng.normal(0.001, 0.02, N)
SCORES = 20 * RETURNS[:, None] + rng.normal(0, [1.0, 2.0, 5.0], (N, 3)) + [0.0, 7.0, -1.0]


def calibrated(score: np.ndarray) -> np.ndarray:
    """What least squares makes of a score."""
    return np.polyval(np.polyfit(score, RETURNS, 1), score)


SAID = Answers(SCORES, np.stack([calibrated(s) for s in SCORES.T], axis=1), np.full((N, 3), 0.01))


def test_it_is_calibrated_as_least_squares_on_the_returns_would():
    combination = combine(SAID)
    said = combination.forecast(SAID)
    standard = (SCORES - SCORES.mean(axis=0)) / SCORES.std(axis=0)
    np.testing.assert_allclose(said["score"], standard.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(said["log_return"], calibrated(said["score"]), atol=1e-12)


def test_a_member_that_says_the_same_of_all_has_no_weight():
    constant = Answers(*(np.column_stack([part, np.full(N, 0.5)]) for part in SAID))
    with_it, without = combine(constant), combine(SAID)
    assert with_it.weights[3] == 0
    np.testing.assert_allclose(with_it.weights[:3] * 4, without.weights * 3)
    nothing = combine(Answers(*(part[:, 3:] for part in constant)))
    assert nothing.forecast(Answers(*(part[:, 3:] for part in constant)))["log_return"] == pytest.approx(
        0.5
    )


def fold(scores: np.ndarray, symbols: list[str], member: int) -> pd.DataFrame:
    """A member's forecasts of a validation session and of a test session."""
    said = pd.DataFrame({"symbol": symbols * 2, "score": scores, "log_return": 0.01 * scores})
    said["event_timestamp"] = pd.to_datetime(
        ["2016-01-04"] * len(symbols) + ["2016-02-01"] * len(symbols)
    )
    said["split"] = ["validation"] * len(symbols) + ["test"] * len(symbols)
    return said.assign(p_up=0.5, scale=0.01 * (member + 1))


def test_in_a_fold_it_is_of_what_all_members_forecast_and_fitted_on_validation_alone():
    a = fold(np.array([-1.0, 1, 3, -2, 0, 4]), ["A", "B", "C"], 0)
    b = fold(np.array([20.0, -20, 10, 30]), ["B", "A"], 1)
    said = ensemble_forecast([a, b]).set_index("symbol")
    assert sorted(said.index) == ["A", "B"]
    # On A and B of the validation session the means are 0 and 0, the deviations 1 and 20.
    assert said.loc["A", "score"] == pytest.approx((-2 / 1 + 30 / 20) / 2)
    assert said.loc["B", "score"] == pytest.approx((0 / 1 + 10 / 20) / 2)
    # As well where the fit of one is older, and it has forecast that session already.
    older = b.assign(split="test")
    older = pd.concat(
        [older, older.assign(event_timestamp=pd.Timestamp("2015-12-01"), split="validation")]
    )
    pd.testing.assert_frame_equal(ensemble_forecast([a, older]).set_index("symbol"), said)
    changed = a.copy()
    changed.loc[5, "score"] = 1e6  # C's in the test session
    pd.testing.assert_frame_equal(ensemble_forecast([changed, b]).set_index("symbol"), said)


FEATURES, LENGTH = ["open", "close", "volume"], 4
COMBINATION = Combination(np.array([0.5, 2.0]), 1.0, (0.001, 0.01))


def saved(model, folder, name: str, features: list[str]) -> Member:
    (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    return Member(name, folder / f"{name}.onnx", features)


def by_hand(folder, name: str, features: list[str], spread: float) -> Member:
    """Its score is the mean of the window / 1e6, its scale the `spread`."""
    model = models_by_hand.onnx_model(window=LENGTH, features=len(features), spread=spread)
    return saved(model, folder, name, features)


def test_members_with_features_of_their_own_see_those_in_the_one_graph(tmp_path):
    members = [
        by_hand(tmp_path, "two", ["volume", "open"], 0.01),
        by_hand(tmp_path, "one", ["close"], 0.04),
    ]
    both = saved(graph_of(members, FEATURES, LENGTH, COMBINATION), tmp_path, "both", FEATURES)
    windows = rng.uniform(0, 1e6, (5, LENGTH, 3)).astype("float32")
    said = run_onnx(open_onnx(both.file), windows)
    two, one = (windows[:, :, at].mean(axis=(1, 2)) / 1e6 for at in ([2, 0], [1]))
    score = 1 + 0.5 * two + 2 * one
    np.testing.assert_allclose(said["score"], score, rtol=1e-5)
    np.testing.assert_allclose(said["log_return"], 0.001 + 0.01 * score, rtol=1e-5)
    np.testing.assert_allclose(said["scale"], 0.02, rtol=1e-5)
    np.testing.assert_allclose(said["p_up"], 1 / (1 + np.exp(-said["log_return"] / 0.02)), rtol=1e-5)


def test_a_member_may_be_the_mean_of_several_seeds(tmp_path):
    seeds = [by_hand(tmp_path, f"seed_{i}", FEATURES, 0.01) for i in range(2)]
    mean = saved(graph_of(seeds, FEATURES, LENGTH, COMBINATION), tmp_path, "mean", FEATURES)
    members = [mean, by_hand(tmp_path, "one", ["close"], 0.04)]
    all_of = saved(graph_of(members, FEATURES, LENGTH, COMBINATION), tmp_path, "all", FEATURES)
    windows = rng.uniform(0, 1e6, (5, LENGTH, 3)).astype("float32")
    of_mean = 1 + 2.5 * windows.mean(axis=(1, 2)) / 1e6
    score = 1 + 0.5 * of_mean + 2 * windows[:, :, 1].mean(axis=1) / 1e6
    np.testing.assert_allclose(run_onnx(open_onnx(all_of.file), windows)["score"], score, rtol=1e-5)
