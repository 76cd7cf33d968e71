"""The gauge of markets whose parts are known."""

import numpy as np
import pandas as pd
import pytest

from pitwise.decisions.sentiment import PARTS, sentiment

pytestmark = pytest.mark.unit


def market(changes: np.ndarray, above: np.ndarray | None = None) -> pd.DataFrame:
    """Symbols with these gross returns, (n_sessions, n_symbols); all above their mean by default."""
    n, symbols = changes.shape
    above = np.ones(changes.shape) if above is None else above
    return pd.DataFrame(
        {
            "date": np.tile(pd.bdate_range("2016-01-04", periods=n), symbols),
            "run": np.repeat(np.arange(symbols), n),
            "adjusted": np.cumprod(changes, axis=0).T.ravel(),
            "price_to_sma_20": np.where(above.T.ravel() > 0, 1.1, 0.9),
        }
    )


def test_a_market_that_only_rises_and_then_falls_at_once():
    # Doubling is exact in binary: all returns are equal, and each is in the middle of its ties.
    changes, above = np.full((300, 4), 2.0), np.ones((300, 4))
    changes[-1], above[-1] = 0.5, [1, 0, 0, 0]
    table = sentiment(market(changes, above))
    assert table.iloc[-2][["sentiment", *PARTS]].tolist() == [75, 100, 50, 50, 100]
    # The month is the year's worst and the most volatile; of five sessions four had highs, none a low.
    assert table.iloc[-1][["sentiment", *PARTS]].tolist() == [31.25, 25, 0, 0, 100]


def test_highs_are_held_against_lows():
    changes = np.full((300, 4), 2.0)
    changes[:, 3] = 0.5
    table = sentiment(market(changes))
    assert table["highs_lows"].iloc[-1] == 75


def test_without_a_high_or_low_that_part_is_in_the_middle():
    # Up and down between two extremes, which are in the year of the sessions looked at.
    changes = np.tile([[2.0], [0.5]], (150, 1))
    changes[10:13] = [[2.0**10], [2.0**-20], [2.0**10]]
    assert sentiment(market(changes))["highs_lows"].iloc[251:261].eq(50).all()


def test_each_part_waits_for_its_history():
    table = sentiment(market(np.full((300, 2), 2.0)))
    first = {name: int(table[name].first_valid_index()) for name in ("sentiment", *PARTS)}
    # Momentum: 252 returns over 20 sessions; volatility: of 20 returns each.
    assert first == {
        "sentiment": 271,
        "breadth": 0,
        "momentum": 271,
        "volatility": 271,
        "highs_lows": 251,
    }


def test_what_comes_later_changes_nothing():
    rng = np.random.default_rng(3)
    rows = market(np.exp(rng.normal(0, 0.01, (320, 3))))
    days = rows["date"].unique()
    whole, cut = sentiment(rows), sentiment(rows[rows["date"] <= days[299]])
    pd.testing.assert_frame_equal(whole.iloc[:300], cut)
