import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from support import small_runs as small

from pitwise.errors import DataError
from pitwise.evaluation import metrics, ranking
from pitwise.evaluation.ranking import BoostedTrees, Reversal, Ridge, TreesParams
from pitwise.features.indicators import NAMES

SMALL_TREES = TreesParams(iterations=40, learning_rate=0.1, max_leaf_nodes=4, rows_per_leaf=20, l2=0)
DAYS = pd.to_datetime([f"2024-01-{day:02d} 21:00" for day in (2, 3, 4, 5, 8, 9, 10, 11)], utc=True)


@pytest.fixture(scope="module")
def fold() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and test rows of a market in which half of a day's return comes again the next day."""
    rows = small.dataset_rows(small.market(12, 160, seed=9, momentum=0.5))
    return tuple(rows[rows["split"] == name].reset_index(drop=True) for name in ("train", "test"))


def mean_rank_ic(forecast: pd.DataFrame, rows: pd.DataFrame) -> float:
    codes = pd.factorize(rows["event_timestamp"])[0]
    return metrics.rank_ic(forecast["score"].to_numpy(), rows["label"].to_numpy(), codes).mean()


def test_the_trees_are_those_that_were_measured_if_nothing_else_is_said():
    assert TreesParams().model_dump() == {
        "iterations": 100,
        "learning_rate": 0.04,
        "max_leaf_nodes": 15,
        "rows_per_leaf": 2000,
        "l2": 50,
        "columns": 0.5,
        "seed": 7,
    }


def test_reversal_is_minus_the_days_return():
    rows = pd.DataFrame(
        {
            "event_timestamp": DAYS[:2].repeat(2),
            "daily_return": [1.0, -3, 2, 0],
            "label": [0.01, 0.03, -0.01, 0.02],
        }
    )
    found = Reversal().fit(rows).predict(rows)
    assert found["score"].tolist() == [-1, 3, -2, 0]
    # Scores about their session's mean: -2, 2, -1, 1; labels: -0.01, 0.01, -0.015, 0.015. The slope is
    # (0.04 + 0.03) / 10 = 0.007 about the mean label of 0.0125.
    assert found["log_return"].tolist() == pytest.approx([-0.0015, 0.0265, 0.0055, 0.0195])


def test_reversal_that_is_worth_nothing_forecasts_the_drift(fold):
    train, test = fold
    found = Reversal().fit(train).predict(test)
    np.testing.assert_allclose(found["log_return"], train["label"].mean())
    np.testing.assert_allclose(found["p_up"], (train["label"] > 0).mean())
    assert mean_rank_ic(found, test) < -0.3


@pytest.mark.parametrize("baseline", [Ridge(1), BoostedTrees(1, SMALL_TREES)], ids=["ridge", "trees"])
def test_what_is_in_the_days_return_is_found(baseline, fold):
    train, test = fold
    found = baseline.fit(train).predict(test)
    known = mean_rank_ic(pd.DataFrame({"score": test["daily_return"]}), test)
    assert known > 0.3  # the best there is: correlation 0.5
    assert mean_rank_ic(found, test) > 0.7 * known
    reversed_market = train.assign(label=-train["label"])
    assert mean_rank_ic(baseline.fit(reversed_market).predict(test), test) < -0.7 * known


@pytest.mark.parametrize("baseline", [Ridge(1), BoostedTrees(1, SMALL_TREES)], ids=["ridge", "trees"])
def test_return_and_probability_are_of_the_right_size(baseline, fold):
    train, test = fold
    found = baseline.fit(train).predict(test)
    label = test["label"]
    assert metrics.skill(found["log_return"], label, np.zeros(len(label))) > 0.05
    assert metrics.brier(found["p_up"], label) < 0.24


@pytest.mark.parametrize("baseline", [Ridge(1), BoostedTrees(1, SMALL_TREES)], ids=["ridge", "trees"])
def test_what_moves_the_whole_market_is_not_learnt_from(baseline, fold):
    train, test = fold
    shift = np.random.default_rng(0).normal(0, 0.05, train["event_timestamp"].nunique())
    codes = pd.factorize(train["event_timestamp"])[0]
    shifted = train.assign(label=train["label"] + shift[codes])
    before, after = (baseline.fit(rows).predict(test)["score"].to_numpy() for rows in (train, shifted))
    np.testing.assert_allclose(after, before, atol=1e-12)


def test_ridge_chooses_a_large_penalty_where_there_is_nothing(fold):
    train, _ = fold
    assert Ridge(1).fit(train).penalty < 1
    sizes = []
    for seed in range(3):
        noise = np.random.default_rng(seed).normal(0, 0.02, len(train))
        score = Ridge(1).fit(train.assign(label=noise)).predict(train)["score"]
        sizes.append(score.std())
    found = Ridge(1).fit(train).predict(train)["score"].std()
    assert max(sizes) < 0.5 * found


@pytest.mark.parametrize("baseline", [Ridge(1), BoostedTrees(1, SMALL_TREES)], ids=["ridge", "trees"])
def test_returns_are_calibrated_on_rows_that_were_not_fitted(baseline, fold):
    # Trees of 20 rows a leaf explain noise that they have seen; of other noise nothing.
    train, test = fold
    noise = np.random.default_rng(4).normal(0, 0.02, len(train))
    found = baseline.fit(train.assign(label=noise)).predict(test)
    assert found["log_return"].std() < 0.15 * 0.02


def test_trees_are_scikit_learns_of_all_the_rows(fold):
    train, test = fold
    params = TreesParams(iterations=15, learning_rate=0.2, max_leaf_nodes=5, rows_per_leaf=30, l2=3)
    found = BoostedTrees(1, params).fit(train).predict(test)["score"]
    group = train["label"].groupby(train["event_timestamp"])
    expected = HistGradientBoostingRegressor(
        max_iter=15,
        learning_rate=0.2,
        max_leaf_nodes=5,
        min_samples_leaf=30,
        l2_regularization=3,
        max_features=0.5,
        early_stopping=False,
        random_state=7,
    ).fit(ranking.tree_inputs(train, NAMES), (group.rank() - 0.5) / group.transform("size") - 0.5)
    np.testing.assert_array_equal(found, expected.predict(ranking.tree_inputs(test, NAMES)))


def test_ridge_is_the_normal_equations(fold):
    train, test = fold
    ridge = Ridge(1, ["daily_return", "rsi_14"]).fit(train)

    def ranked(values: pd.Series, rows: pd.DataFrame) -> pd.Series:
        group = values.groupby(rows["event_timestamp"])
        return (group.rank() - 0.5) / group.transform("size") - 0.5

    x, x_test = (
        np.column_stack(
            [ranked(rows[name].astype("float32"), rows) for name in ("daily_return", "rsi_14")]
        )
        for rows in (train, test)
    )
    y = ranked(train["label"], train)
    gram = x.T @ x + ridge.penalty * len(x) * np.eye(2)
    expected = x_test @ np.linalg.solve(gram, x.T @ y)
    np.testing.assert_allclose(ridge.predict(test)["score"], expected, atol=1e-9)


def test_the_last_quarter_is_held_out_behind_the_horizon():
    rows = pd.DataFrame({"event_timestamp": DAYS.repeat(2)})
    before, after = ranking.hold_out(rows, 1)
    assert rows["event_timestamp"][before].unique().tolist() == DAYS[:5].tolist()
    assert rows["event_timestamp"][after].unique().tolist() == DAYS[6:].tolist()
    before, _ = ranking.hold_out(rows, 5)
    assert rows["event_timestamp"][before].unique().tolist() == DAYS[:1].tolist()


@pytest.mark.parametrize(("sessions", "horizon"), [(1, 1), (8, 6), (2, 1)])
def test_too_few_sessions_to_hold_out_are_refused(sessions, horizon):
    rows = pd.DataFrame({"event_timestamp": DAYS[:sessions]})
    with pytest.raises(DataError, match=f"{sessions} training sessions are too few.*{horizon} sessions"):
        ranking.hold_out(rows, horizon)


def test_session_ranks_are_even_about_zero():
    rows = pd.DataFrame({"event_timestamp": DAYS[[0, 1, 0, 1, 1, 0, 0]]})
    found = ranking.session_ranks(np.array([5.0, 1, 7, 3, 1, 2, 9]), rows)
    # Four symbols: -3/8, -1/8, 1/8, 3/8. Three, of which two tie: (1.5 - 0.5) / 3 - 0.5 = -1/6, 1/3.
    assert found == pytest.approx([-1 / 8, -1 / 6, 1 / 8, 1 / 3, -1 / 6, -3 / 8, 3 / 8])


def test_the_last_session_enters_relative_to_its_close():
    rows = pd.DataFrame(
        {
            "open": [50, 8],
            "close": [100, 10],
            "volume": [7, 7],
            "price_change": [50, 2],
            "rsi_14": [30, 60],
        }
    )
    inputs = ranking.tree_inputs(rows, ["open", "close", "volume", "price_change", "rsi_14"])
    np.testing.assert_allclose(inputs, [[0.5, 1, 0.5, 30], [0.8, 1, 0.2, 60]])
    assert inputs.dtype == np.float32
