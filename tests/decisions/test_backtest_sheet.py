"""What the tear sheet shows, from hand-computed answers."""

import numpy as np
import pandas as pd
import pytest

from pitwise.decisions.backtest import Costs, backtest
from pitwise.decisions.backtest_sheet import by_costs, compounded, quantile_returns, value_at_risk
from pitwise.decisions.drawdown import deepest
from pitwise.decisions.prices import Prices

DAYS = pd.bdate_range("2016-01-28", periods=8)


def test_the_deepest_falls_by_hand():
    # From the start to 0.92; from 1.1 to 0.88; from 1.12 to 1.008, where it still is.
    value = np.array([0.92, 1.01, 1.1, 0.88, 0.99, 1.12, 1.06, 1.008])
    returns = pd.Series(value / np.append(1, value[:-1]) - 1, index=DAYS)
    found = deepest(returns, 5)
    assert found["depth"].tolist() == pytest.approx([-0.2, -0.1, -0.08])
    assert found["peak"].tolist()[:2] == [DAYS[2], DAYS[5]]
    assert pd.isna(found["peak"][2])
    assert found["trough"].tolist() == [DAYS[3], DAYS[7], DAYS[0]]
    assert found["recovered"][[0, 2]].tolist() == [DAYS[5], DAYS[1]]
    assert pd.isna(found["recovered"][1])
    assert found["sessions"].tolist() == [2, 2, 1]
    assert len(deepest(returns, 1)) == 1
    assert deepest(returns.abs(), 5).empty


def test_months_compound():
    returns = pd.DataFrame({"ours": [0.1, 0.1, -0.5, 1.0]}, index=DAYS[[0, 1, 2, 3]])
    found = compounded(returns, "M")["ours"]
    assert found.to_dict() == pytest.approx({pd.Period("2016-01"): 0.21, pd.Period("2016-02"): 0})


def test_parts_by_score_are_above_the_mean_of_their_session():
    table = pd.DataFrame(
        {
            "event_timestamp": np.repeat(DAYS[:2], [3, 6]),
            "score": [3.0, 1, 2, *range(6)],
            "label_open": np.log1p([0.03, 0.0, 0.03, 0, 0.02, 0.02, 0.02, 0.03, 0.03]),
        }
    )
    found = quantile_returns(table)
    # The first session has three symbols, so there are three parts; of the second, two symbols each.
    assert found.columns.tolist() == [1, 2, 3]
    assert found.to_numpy() == pytest.approx(np.array([[-0.02, 0.01, 0.01], [-0.01, 0.0, 0.01]]))


def test_costs_are_paid_in_multiples():
    flat = np.full((3, 1), 10.0)
    ones, none = np.ones((3, 1)), np.zeros((3, 1))
    prices = Prices(DAYS[:3], pd.Index(["A"]), flat, flat, 1e9 * ones, ones, none)
    targets = np.array([[1.0], [0.0], [np.nan]])
    costs = Costs(commission_bp=3, half_spread_bp=7, impact=0, borrow_bp=0)
    found = by_costs(lambda charged: backtest(prices, targets, charged), costs)
    assert found["paid_bp"].tolist() == pytest.approx([10 * m for m in found["multiple"]])
    assert found["ret"].iloc[0] == 0
    assert (np.diff(found["ret"]) < 0).all()


def test_value_at_risk_needs_as_many_sessions_again(volatile):
    returns = pd.Series(volatile, index=pd.bdate_range("2014-01-01", periods=len(volatile)))
    assert value_at_risk(returns[:499])[1] == []
    table, tests = value_at_risk(returns[:500])
    assert len(table) == 250
    filtered = [one for one in tests if one["method"] == "filtered"]
    beyond = [int((table["ret"] < -table[level]).sum()) for level in (0.95, 0.99)]
    assert [one["exceptions"] for one in filtered] == beyond
    assert beyond[1] <= beyond[0] < 40
