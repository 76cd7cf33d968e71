import math

import numpy as np
import pandas as pd
import pytest
from support import small_runs as small

from pitwise.evaluation import baselines
from training.evaluate import measure

FIGURES = {
    "mape",
    "price_accuracy",
    "r2_price",
    "r2_return",
    "mae",
    "rmse",
    "direction_accuracy",
    "direction_accuracy_ci95",
    "brier",
    "rank_ic_mean",
    "rank_ic_t",
    "skill_vs_persistence",
}
ONLY_DIRECTION = {"direction_accuracy", "direction_accuracy_ci95", "brier"}
UP, DOWN, FALL, RISE = math.log(1.1), math.log(0.8), math.log(0.9), math.log(1.1)


@pytest.fixture
def answers() -> pd.DataFrame:
    """Two stocks on two sessions."""
    return pd.DataFrame(
        {
            "symbol": ["A", "B", "A", "B"],
            "event_timestamp": pd.to_datetime(["2024-01-02"] * 2 + ["2024-01-03"] * 2, utc=True),
            "close": [100.0, 50, 110, 40],
            "next_close": [110.0, 40, 99, 44],
            "label": [UP, DOWN, FALL, RISE],
        }
    )


def figures_of(forecast: baselines.Forecast, rows: pd.DataFrame) -> dict:
    return measure(forecast, rows, small.evaluate_params())


def test_every_figure_of_a_models_forecast(answers):
    # Prices forecast: 110, 50, 121, 40.
    forecast = baselines.of_model(np.array([UP, 0, UP, 0]), np.array([0.9, 0.2, 0.6, 0.5]))
    figures = figures_of(forecast, answers)
    assert set(figures) == FIGURES
    mape = 100 * (0 + 10 / 40 + 22 / 99 + 4 / 44) / 4
    assert figures["mape"] == pytest.approx(mape)
    assert figures["price_accuracy"] == pytest.approx(100 - mape)
    assert figures["mae"] == pytest.approx((10 + 22 + 4) / 4)
    assert figures["rmse"] == pytest.approx(math.sqrt((100 + 484 + 16) / 4))
    assert figures["r2_price"] == pytest.approx(1 - 600 / 3974.75)
    error = DOWN**2 + (FALL - UP) ** 2 + RISE**2
    assert figures["skill_vs_persistence"] == pytest.approx(1 - error / (2 * UP**2 + DOWN**2 + FALL**2))
    mean = (2 * UP + DOWN + FALL) / 4
    spread = sum((label - mean) ** 2 for label in (UP, DOWN, FALL, RISE))
    assert figures["r2_return"] == pytest.approx(1 - error / spread)
    # The first session's order is right, the second's is reversed.
    assert figures["rank_ic_mean"] == pytest.approx(0)
    assert figures["rank_ic_t"] == pytest.approx(0)
    # Directions forecast: up, down, up, down; both right on the first session, both wrong on the second.
    assert figures["direction_accuracy"] == 0.5
    assert figures["direction_accuracy_ci95"] == [0, 1]
    assert figures["brier"] == pytest.approx((0.01 + 0.04 + 0.36 + 0.25) / 4)


def test_a_perfect_forecast(answers):
    label = answers["label"].to_numpy()
    figures = figures_of(baselines.of_model(label, (label > 0).astype(float)), answers)
    ones = ["r2_price", "r2_return", "skill_vs_persistence", "direction_accuracy", "rank_ic_mean"]
    assert [figures[name] for name in ones] == pytest.approx([1] * 5)
    assert [figures[name] for name in ["mape", "mae", "rmse", "brier"]] == pytest.approx(
        [0] * 4, abs=1e-9
    )


def test_persistence_has_no_skill_over_itself_and_no_direction(answers):
    figures = figures_of(baselines.persistence(4), answers)
    assert figures["skill_vs_persistence"] == 0
    assert figures["mape"] == pytest.approx(100 * (10 / 110 + 10 / 40 + 11 / 99 + 4 / 44) / 4)
    none = {name for name, figure in figures.items() if figure is None}
    assert none == ONLY_DIRECTION | {"rank_ic_mean", "rank_ic_t"}


def test_always_up_has_directions_and_no_price(answers):
    figures = figures_of(baselines.always_up(np.array([0.1, 0.1, -0.1, 0.1]), 4), answers)
    assert {name for name, figure in figures.items() if figure is not None} == ONLY_DIRECTION
    assert figures["direction_accuracy"] == 0.5
    assert figures["brier"] == pytest.approx((2 * 0.25**2 + 2 * 0.75**2) / 4)


def test_drift_has_no_ranks_and_no_probability(answers):
    figures = figures_of(baselines.drift(np.array([0.01, 0.02]), 4), answers)
    none = {name for name, figure in figures.items() if figure is None}
    assert none == {"rank_ic_mean", "rank_ic_t", "brier"}


def test_a_score_ranks_where_a_model_has_one(answers):
    forecast = baselines.of_model(np.zeros(4), np.full(4, 0.6), np.array([2.0, 1.0, 1.0, 2.0]))
    assert figures_of(forecast, answers)["rank_ic_mean"] == pytest.approx(1)


def test_where_labels_overlap_t_is_newey_wests_and_the_interval_wider():
    rng = np.random.default_rng(4)
    n = 200
    rows = pd.DataFrame({"close": 100.0, "event_timestamp": np.repeat(np.arange(n), 5)}, range(5 * n))
    shared = np.convolve(rng.normal(size=n + 4), np.ones(5), "valid")  # as a label shares its days
    rows["label"] = np.repeat(shared, 5) * np.tile([2.0, 1, 0, -1, -2], n) + rng.normal(size=5 * n)
    rows["next_close"] = rows["close"] * np.exp(rows["label"] / 100)
    forecast = baselines.of_model(np.tile([2.0, 1, 0, -1, -2], n), np.full(5 * n, 0.6))
    plain, overlap = (measure(forecast, rows, small.evaluate_params(), h) for h in (1, 5))
    assert plain["rank_ic_mean"] == overlap["rank_ic_mean"]
    assert abs(overlap["rank_ic_t"]) < 0.7 * abs(plain["rank_ic_t"])
    assert plain["direction_accuracy"] == overlap["direction_accuracy"]
