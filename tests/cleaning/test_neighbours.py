import numpy as np
import pandas as pd
import pytest
from support import markets

from pitwise.cleaning.neighbours import (
    MARKET_SYMBOLS,
    ORDINARY_NOISE,
    SMALLEST_NOISE,
    Neighbours,
)


@pytest.fixture
def two() -> Neighbours:
    """A has three bars, one session missing before the last; B has two."""
    closes = [100.0, 110.0, 121.0, 10.0, 5.0]
    dates = ["2014-01-02", "2014-01-03", "2014-01-07", "2014-01-02", "2014-01-03"]
    bars = pd.DataFrame({"symbol": list("AAABB"), "date": pd.to_datetime(dates), "close": closes})
    return Neighbours(
        bars.assign(open=bars["close"] / 2, high=bars["close"] * 2, low=bars["close"], volume=1.0)
    )


def test_a_bar_has_its_own_symbols_neighbours_only(two):
    nan = np.nan
    np.testing.assert_array_equal(two.before(two.close), [nan, 100, 110, nan, 10])
    np.testing.assert_array_equal(two.after(two.close), [110, 121, nan, 5, nan])
    np.testing.assert_array_equal(two.first, [True, False, False, True, False])
    found = two.around(two.close, np.array([1, 3]), [-1, 0, 1, 2])
    np.testing.assert_array_equal(found, [[100, 110, 121, nan], [nan, 10, 5, nan]])


def test_steps_count_sessions_and_returns_are_logs_on_the_bar_before(two):
    nan = np.nan
    np.testing.assert_array_equal(two.step, [nan, 1, 2, nan, 1])
    np.testing.assert_allclose(two.log_return, [nan, np.log(1.1), np.log(1.1), nan, np.log(0.5)])
    np.testing.assert_allclose(two.gap, [nan, np.log(0.55), np.log(0.55), nan, np.log(0.25)])
    np.testing.assert_allclose(two.range, np.log(2))


def test_a_median_needs_three_bars(two):
    rows = np.array([1, 3])
    np.testing.assert_array_equal(two.median(two.close, rows, [-1, 0, 1]), [110, np.nan])


@pytest.mark.parametrize("symbols", [MARKET_SYMBOLS - 1, MARKET_SYMBOLS])
def test_the_markets_move_is_taken_out_where_there_are_enough_symbols(symbols):
    bars = markets.bars(symbols, 30, seed=1)
    found = Neighbours(bars)
    sessions = pd.Series(found.log_return).groupby(found.session)
    market = sessions.transform("median").to_numpy() if symbols == MARKET_SYMBOLS else 0.0
    np.testing.assert_allclose(found.move, found.log_return - market)


def test_noise_is_the_ordinary_one_of_few_bars_and_never_below_the_smallest(two):
    assert two.noise(np.array([1, 4])).tolist() == [ORDINARY_NOISE] * 2
    still = markets.bars(1, 40, seed=1)
    still[["open", "high", "low", "close"]] = 10.0
    assert Neighbours(still).noise(np.array([20])).tolist() == [SMALLEST_NOISE]
