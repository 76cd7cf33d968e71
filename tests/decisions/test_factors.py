"""Factors out of the market's returns, and shocks of them, by hand."""

import numpy as np
import pandas as pd
import pytest

from pitwise.decisions.factors import FACTORS, MOVE, YEAR, factor_returns, shocks

pytestmark = pytest.mark.unit
DAYS = pd.bdate_range("2015-01-02", periods=600)


def test_factors_by_hand():
    # Nine symbols: the drift falls from the first to the last, and the swing rises.
    swing = np.where(np.arange(600) % 2, 1.0, -1.0)[:, None] * np.arange(9) / 1000
    returns = pd.DataFrame(np.linspace(0.004, -0.004, 9) + swing, index=DAYS)
    found = factor_returns(returns)
    assert found.index[0] == DAYS[YEAR]
    now = returns.iloc[YEAR]
    assert found["market"].iloc[0] == pytest.approx(now.mean())
    assert found["momentum"].iloc[0] == pytest.approx(now[:3].mean() - now[6:].mean())
    assert found["volatility"].iloc[0] == pytest.approx(now[6:].mean() - now[:3].mean())
    # Of eight symbols there are no thirds.
    few = factor_returns(returns.drop(columns=8))
    assert few[["momentum", "volatility"]].isna().all(axis=None)


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(3)
    return pd.DataFrame(rng.normal(0, 0.01, (600, 30)), index=DAYS)


def test_a_factor_knows_nothing_of_its_session_or_later(drawn):
    changed = drawn.copy()
    changed.iloc[400:] *= -3
    before, after = factor_returns(drawn), factor_returns(changed)
    pd.testing.assert_frame_equal(before[: 400 - YEAR], after[: 400 - YEAR])
    # Who is in which third of session 400 was known before it.
    assert after.iloc[400 - YEAR].to_numpy() == pytest.approx(-3 * before.iloc[400 - YEAR].to_numpy())


def test_shocks_of_a_portfolio_of_factors(drawn):
    factors = factor_returns(drawn)
    portfolio = 0.001 + factors["market"] - 0.5 * factors["volatility"]
    found = {row["factor"]: row for row in shocks(portfolio, factors)}
    assert list(found) == list(FACTORS)
    assert [row["beta"] for row in found.values()] == pytest.approx([1, 0, -0.5], abs=1e-12)
    worst = max(factors["volatility"].iloc[i : i + MOVE].sum() for i in range(len(factors) - MOVE + 1))
    assert found["volatility"]["move"] == pytest.approx(worst)
    assert found["volatility"]["return"] == pytest.approx(-0.5 * worst)
    assert found["market"]["return"] < 0
    assert shocks(portfolio[: YEAR - 1], factors) == []
