import math

import numpy as np
import pandas as pd
import pytest

from pitwise.decisions import contributions, performance, var
from pitwise.decisions.claims import CLAIMS, claims, of_forecasts, of_portfolios
from pitwise.decisions.performance import MEASURES, Trials

RETURNS = np.array([0.10, -0.10, 0.05])
"""Mean 0.05 / 3; equity 1.1, 0.99, 1.0395."""
COLUMNS = ["ret", "cost", "impact", "traded", "gross", "net"]


def sessions(*rows):
    return pd.DataFrame(rows, columns=COLUMNS)


def test_returns_by_hand():
    assert performance.annual_return(RETURNS) == pytest.approx(1.0395**84 - 1)
    # Squared deviations from 1/60: (1/12)^2, (7/60)^2, (1/30)^2 are 25, 49 and 4 in 1 / 3600.
    spread = math.sqrt(78 / 3600 / 2)
    assert performance.volatility(RETURNS) == pytest.approx(spread * math.sqrt(252))
    assert performance.sharpe(RETURNS) == pytest.approx(1 / 60 / spread * math.sqrt(252))
    assert performance.sortino(RETURNS) == pytest.approx(1 / 60 / math.sqrt(0.01 / 3) * math.sqrt(252))
    assert performance.max_drawdown(RETURNS) == pytest.approx(-0.1)
    assert performance.calmar(RETURNS) == pytest.approx((1.0395**84 - 1) / 0.1)
    assert performance.hit_rate(np.append(RETURNS, 0.0)) == pytest.approx(2 / 3)


def test_measures_are_those_of_empyrical():
    # What empyrical-reloaded 0.7.1 says of these returns. It brings Bottleneck, with which pandas sums
    # in another order, so it is not installed here; benchmarks/risk.py asks it anew.
    at = np.arange(1, 505.0)
    returns = np.sin(at**2) / 100 + 0.0004
    market = np.cos(at**3) / 100 + returns
    beta = contributions.betas(pd.DataFrame({"A": returns}), pd.Series(market))["A"]
    ours = [
        performance.annual_return(returns),
        performance.volatility(returns),
        performance.sharpe(returns),
        performance.sortino(returns),
        performance.calmar(returns),
        performance.max_drawdown(returns),
        *var.historical(returns, 0.95),
        *var.historical(returns, 0.99),
        beta,
    ]
    theirs = [
        0.08280403793961577,
        0.11300013389065842,
        0.7604985959570019,
        1.1237651892941407,
        1.0804158392049572,
        -0.07664089597256235,
        *(0.009501058524878637, 0.009566368377594048),
        *(0.009592583747917584, 0.009598349945643783),
        0.5005830960727653,
    ]
    assert ours == pytest.approx(theirs, abs=1e-8)


def test_a_fall_counts_from_the_start_on():
    assert performance.max_drawdown(np.array([-0.2, 0.1])) == pytest.approx(-0.2)


def test_what_there_is_not_is_not_a_number():
    gains = np.full(5, 0.01)
    assert math.isnan(performance.sharpe(gains))
    assert math.isnan(performance.sortino(gains))
    assert math.isnan(performance.calmar(gains))
    assert math.isnan(performance.hit_rate(np.zeros(3)))
    assert performance.annual_return(np.array([-1.0, 0.5])) == -1


def test_the_summary_of_sessions():
    rows = [(0.01, 0.0002, 0.0001, 0.4, 1.0, 0.5), (-0.005, 0.0004, 0.0001, 0.8, 0.8, 0.1)] * 20
    found = performance.summary(sessions(*rows), Trials(1, 0.0), samples=50, seed=7)
    assert list(found) == list(MEASURES)
    assert found["turnover"]["value"] == pytest.approx(0.3)
    assert found["cost_bp"]["value"] == pytest.approx(252 * 3)
    assert found["exposure"]["value"] == pytest.approx(0.9)
    assert found["net_exposure"]["value"] == pytest.approx(0.3)
    # One try had no choice: what is deflated is what is not.
    assert found["dsr"]["value"] == found["psr"]["value"]
    many = performance.summary(sessions(*rows), Trials(50, 0.01), samples=50, seed=7)
    assert many["dsr"]["value"] < many["psr"]["value"]


def test_a_track_that_does_not_move_has_no_ratio():
    found = performance.summary(sessions(*[(0.0,) * 6] * 30), Trials(1, 0.0), samples=20, seed=7)
    assert found["sharpe"] == {"value": None, "ci95": None}
    assert found["annual_return"] == {"value": 0.0, "ci95": [0.0, 0.0]}


def test_the_interval_of_a_mean_is_the_normal_one_where_sessions_are_independent():
    values = np.random.default_rng(7).normal(0, 1, (1000, 1))
    low, high = performance.interval(values, lambda drawn: drawn.mean(axis=0), 1000, seed=7)
    error = 1.96 * values.std() / math.sqrt(1000)
    assert low[0] == pytest.approx(values.mean() - error, abs=0.3 * error)
    assert high[0] == pytest.approx(values.mean() + error, abs=0.3 * error)


def test_trials_are_counted_with_their_variance():
    assert performance.trials([0.1, 0.3, math.nan]) == pytest.approx((2, 0.02))
    assert performance.trials([0.1]) == (1, 0.0)


def test_break_even_and_capacity_by_hand():
    def excess(rows, other=0.0):
        found = performance.excess(sessions(*rows), 100.0, samples=5, seed=7, other=other)
        return {name: one["value"] for name, one in found.items()}

    one = [(0.001, 0.0005, 0.0002, 0.5, 1, 0)] * 3
    # 15 bp are earned before costs, and half is traded; 12 bp before impact are 6 times the impact.
    assert excess(one) == pytest.approx({"return": 0.252, "break_even_bp": 30, "capacity": 3600})
    above = excess(one, pd.Series([0.002] * 3))
    assert above == pytest.approx({"return": -0.252, "break_even_bp": -10, "capacity": 0})
    idle = excess([(0.0,) * 6] * 3)
    assert idle == {"return": 0, "break_even_bp": None, "capacity": None}


def test_half_the_returns_are_half_the_fall_and_the_same_ratios():
    other = pd.Series([0.1, -0.2, 0.15, 0.05, -0.01] * 8)
    names = ("risk_adjusted_return", "max_drawdown", "sharpe")
    found = of_portfolios(other / 2, other, names, samples=50, seed=7)
    assert found["sharpe"].value == pytest.approx(0)
    assert found["risk_adjusted_return"].value == pytest.approx(0)
    assert found["sharpe"][1:3] == pytest.approx((0, 0))
    depth = performance.max_drawdown
    expected = depth(other.to_numpy() / 2) / depth(other.to_numpy()) - 1
    assert found["max_drawdown"].value == pytest.approx(expected)


def test_a_ratio_to_a_loss_is_left_out():
    other = pd.Series([0.01, -0.03] * 10)
    found = of_portfolios(-other, other, ("sharpe", "max_drawdown"), samples=20, seed=7)
    assert list(found) == ["max_drawdown"]


def table(log_return, p_up):
    return pd.DataFrame(
        {
            "symbol": ["A", "B"] * 2,
            "event_timestamp": pd.to_datetime(["2016-01-04"] * 2 + ["2016-01-05"] * 2, utc=True),
            "log_return": log_return,
            "p_up": p_up,
            "label": [0.01, -0.01, 0.02, -0.02],
            "label_open": [0.01, -0.01, 0.0001, 0.02],
        }
    )


def test_claims_of_forecasts_by_hand():
    tables = {
        "lstm": table([0.01, -0.01, 0.0, 0.0], [0.6, 0.6, 0.6, 0.4]),
        "ann": table([0.0, 0.0, -0.02, 0.02], [0.5] * 4),
        "reversal": table([math.nan] * 4, [math.nan] * 4),
    }
    found = of_forecasts(tables, "lstm", cost=0.001, samples=20, seed=7)
    # Squared errors: lstm 2 x 0.02^2, ann 2 x 0.01^2 + 2 x 0.04^2; of the labels 0.001.
    assert found["r2_lstm"].value == pytest.approx(1 - 0.0008 / 0.001)
    assert found["r2_ann"].value == pytest.approx(1 - 0.0034 / 0.001)
    assert found["net_better"].value == pytest.approx(1 - 0.0008 / 0.0034)
    mape = 100 * (math.expm1(0.02) + 1 - math.exp(-0.02)) / 4
    assert found["mape_lstm"].value == pytest.approx(mape)
    assert found["price_accuracy"].value == pytest.approx(100 - mape)
    # Above the cost are the first and the last; the first was called, as were the second and third.
    assert found["buy_recall"].value == pytest.approx(0.5)
    assert found["buy_recall"].beside["precision"] == pytest.approx(1 / 3)
    assert found["buy_recall"].beside["share_of_all_called"] == pytest.approx(0.75)
    # Of the two above the cost, the first was called and expected to be.
    assert found["buy_recall"].beside["expected_to_pay_its_cost"] == pytest.approx(0.5)
    stated = claims(found)
    assert list(stated) == list(CLAIMS)
    assert stated["buy_recall"]["short_by"] == pytest.approx(0.17)
    assert stated["mape_lstm"]["short_by"] == 0
    assert stated["sharpe"]["value"] is None
    assert stated["sharpe"]["why"]


def test_a_document_has_none_for_what_is_no_number():
    found = {"a": float("nan"), "b": [1.0, float("inf")], "c": {"d": 2, "e": "x"}}
    assert performance.defined(found) == {"a": None, "b": [1.0, None], "c": {"d": 2, "e": "x"}}
