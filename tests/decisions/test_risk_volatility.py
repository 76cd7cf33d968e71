import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from arch.univariate import EWMAVariance, ZeroMean, arch_model

from pitwise.decisions.drawdown import drawdowns, maximum_drawdown
from pitwise.decisions.volatility import Garch, annual, ewma, fan, fit_garch

BY_HAND = Garch(mean=0.01, omega=1e-4, alpha=0.5, gamma=0.2, beta=0.25, start=4e-4)


def test_variances_by_hand():
    # Shocks 0.02 and -0.02: 1e-4 + 0.5 x 4e-4 + 0.25 x 4e-4 = 4e-4, then 1e-4 + 0.7 x 4e-4 + 1e-4.
    assert BY_HAND.variances(np.array([0.03, -0.01])) == pytest.approx([4e-4, 4e-4, 4.8e-4])
    assert BY_HAND.shocks(np.array([0.03, -0.01])) == pytest.approx([1, -1])
    # Persistence 0.5 + 0.1 + 0.25.
    assert BY_HAND.forecast(np.array([0.03, -0.01]), 2) == pytest.approx([4.8e-4, 1e-4 + 0.85 * 4.8e-4])


def test_ewma_by_hand():
    # 0.01^2 of the first, then 0.75 of it and a quarter of 0.02^2.
    found = ewma(np.array([0.01, 0.01, 0.02]), decay=0.75)
    assert found.variances(np.array([0.01, 0.01, 0.02])) == pytest.approx([1e-4, 1e-4, 1e-4, 1.75e-4])
    assert annual(1e-4) == pytest.approx(0.01 * math.sqrt(252))


def test_ewma_agrees_with_arch(volatile):
    fit = ZeroMean(100 * volatile, volatility=EWMAVariance(0.94)).fit(disp="off")
    expected = fit.forecast(horizon=3).variance.iloc[-1].to_numpy() / 1e4
    assert ewma(volatile).forecast(volatile, 3) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("asymmetric", [False, True])
def test_garch_agrees_with_arch(volatile, asymmetric):
    dist = "t" if asymmetric else "normal"
    fit = arch_model(100 * volatile, o=int(asymmetric), dist=dist, rescale=False).fit(disp="off")
    found = fit_garch(volatile, asymmetric)
    expected = fit.conditional_volatility / 100
    np.testing.assert_allclose(np.sqrt(found.variances(volatile)[:-1]), expected, atol=1e-8)
    expected = fit.forecast(horizon=20).variance.iloc[-1].to_numpy() / 1e4
    np.testing.assert_allclose(found.forecast(volatile, 20), expected, atol=1e-10)


def test_a_price_that_never_moves_has_no_garch():
    assert fit_garch(np.zeros(300)) is None
    assert ewma(np.zeros(3)).shocks(np.zeros(3)).tolist() == [0, 0, 0]


def test_paths_by_hand():
    # One past shock of +1: each path is mean + the deviation, and 0.02^2 goes on into the variance.
    known = dataclasses.replace(BY_HAND, gamma=9.0)
    paths = known.paths(np.array([0.03]), 2, 5, np.random.default_rng(1))
    assert paths == pytest.approx(np.tile([0.03, 0.03], (5, 1)))


def test_fan_by_hand():
    paths = np.array([[0.1, 0.1], [0.0, 0.0], [-0.1, 0.2]])
    assert fan(paths, (0.0, 0.5, 1.0)) == pytest.approx(np.array([[-0.1, 0], [0, 0.08], [0.1, 0.21]]))


def _series(values):
    return pd.Series(values, index=pd.date_range("2024-01-01", periods=len(values)))


def test_drawdown_by_hand():
    # Values 1.1, 0.55, 0.66, 1.32, 1.188.
    returns = _series([0.1, -0.5, 0.2, 1.0, -0.1])
    assert drawdowns(returns).tolist() == pytest.approx([0, -0.5, -0.4, 0, -0.1])
    assert dataclasses.asdict(maximum_drawdown(returns)) == {
        "depth": pytest.approx(-0.5),
        "peak": "2024-01-01",
        "trough": "2024-01-02",
        "recovered": "2024-01-04",
        "longest_under_water": 2,
        "under_water_now": 1,
        "now": pytest.approx(-0.1),
    }


def test_a_fall_from_the_start_has_no_session_of_its_peak():
    found = maximum_drawdown(_series([-0.1, 0.05]))
    assert (found.peak, found.trough, found.recovered) == (None, "2024-01-01", None)
    assert (found.depth, found.longest_under_water) == (pytest.approx(-0.1), 2)


def test_a_history_without_a_fall_has_no_drawdown():
    found = maximum_drawdown(_series([0.1, 0.0]))
    assert (found.depth, found.peak, found.trough, found.longest_under_water) == (0, None, None, 0)
