import numpy as np
import pandas as pd
import pytest
from support import markets

from pitwise.cleaning.neighbours import (
    FEW_BARS,
    FEW_SESSIONS,
    FEW_SYMBOLS,
    MARKET_SYMBOLS,
    NOISE_BARS,
    ORDINARY_NOISE,
    ORDINARY_SPREAD,
    SMALLEST_NOISE,
    Market,
    Neighbours,
    market_of,
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
    of = market_of(found.session.astype("int16"), found.log_return, found.turnover)
    np.testing.assert_allclose(found.beyond(of), found.log_return - market)


def test_noise_is_the_ordinary_one_of_few_bars_and_never_below_the_smallest(two):
    assert two.usual_noise(np.array([1, 4])).tolist() == [ORDINARY_NOISE] * 2
    still = markets.bars(1, 40, seed=1)
    still[["open", "high", "low", "close"]] = 10.0
    assert Neighbours(still).usual_noise(np.array([20])).tolist() == [SMALLEST_NOISE]


def market(bars: pd.DataFrame, earlier: Market | None = None) -> Market:
    n = Neighbours(bars)
    return market_of(n.session.astype("int16"), n.log_return, n.turnover, earlier, gap=n.gap)


def test_turnover_is_over_the_geometric_mean_of_the_bars_before(two):
    nan = np.nan
    expected = [nan, np.log(1.1), np.log(121 / np.sqrt(100 * 110)), nan, np.log(0.5)]
    np.testing.assert_allclose(two.turnover, expected)
    np.testing.assert_allclose(two.shares, [nan, 0, 0, nan, 0], atol=1e-12)
    np.testing.assert_array_equal(two.age, [0, 1, 2, 0, 1])


def test_no_volume_is_no_turnover_and_counts_for_none():
    bars = markets.bars(1, 60, seed=2).assign(volume=5.0)
    bars.loc[30, "volume"] = 0.0
    shares = Neighbours(bars).shares
    assert np.flatnonzero(np.isnan(shares)).tolist() == [0, 30]
    np.testing.assert_allclose(np.delete(shares, [0, 30]), 0, atol=1e-12)


def test_usual_noise_is_told_from_the_bars_before():
    bars = markets.bars(1, 200, seed=3)
    n = Neighbours(bars)
    before = np.abs(n.log_return[150 - NOISE_BARS : 150])
    assert n.usual_noise(np.array([150]))[0] == 1.4826 * np.median(before)
    bars.loc[150:, "close"] *= 3
    assert Neighbours(bars).usual_noise(np.array([150]))[0] == 1.4826 * np.median(before)


def test_usual_noise_of_few_bars_is_not_below_an_ordinary_stocks():
    still = markets.bars(1, 40, seed=1)
    still[["open", "high", "low", "close"]] = 10.0
    rows = np.array([0, FEW_BARS - 1, FEW_BARS])
    expected = [ORDINARY_NOISE, ORDINARY_NOISE, SMALLEST_NOISE]
    assert Neighbours(still).usual_noise(rows).tolist() == expected


def test_the_market_is_the_median_of_its_symbols_and_their_spread():
    bars = markets.bars(MARKET_SYMBOLS, 90, seed=4)
    n, of = Neighbours(bars), market(bars)
    day = n.session == n.session[80]
    there = of.at(n.session[[80]])
    returns = n.log_return[day]
    assert there.move[0] == np.median(returns)
    spread = 1.4826 * np.median(np.abs(returns - np.median(returns)))
    assert there.spread[0] == spread
    assert there.turnover[0] == np.median(n.turnover[day])
    assert there.gap[0] == np.median(n.gap[day])
    usual = np.median(of.table()["spread"][79 - NOISE_BARS : 79])
    assert there.reach[0] == abs(np.median(returns)) / usual
    assert there.scale[0] == max(1, spread / usual)


def test_a_session_that_moves_far_has_a_scale_though_all_move_alike():
    bars = markets.bars(40, 90, seed=5)
    day = bars["date"].unique()[70]
    bars.loc[bars["date"] >= day, ["open", "high", "low", "close"]] *= 0.5
    there = market(bars).at(Neighbours(bars).session[[70, 71]])
    assert there.reach[0] > 10
    assert there.scale[0] == there.reach[0] / 2
    assert there.scale[1] < 2


def test_early_sessions_are_held_against_an_ordinary_spread():
    early = market(markets.bars(40, 90, seed=6)).table()[:FEW_SESSIONS]
    np.testing.assert_array_equal(early["reach"], np.abs(early["move"]) / ORDINARY_SPREAD)


def test_of_a_small_market_it_is_known_how_far_it_moved():
    bars = markets.bars(MARKET_SYMBOLS - 1, 90, seed=4)
    n = Neighbours(bars)
    of, median = market(bars).table(), pd.Series(n.log_return).groupby(n.session).median()
    reach = np.abs(median.to_numpy()[1:]) / ORDINARY_SPREAD
    np.testing.assert_array_equal(of["reach"], reach)
    np.testing.assert_array_equal(of["scale"], np.maximum(reach / 2, 1))
    assert (of[["move", "gap"]] == 0).all(axis=None)
    assert of["spread"].isna().all()


def test_too_few_symbols_are_no_market():
    bars = markets.bars(FEW_SYMBOLS - 1, 90, seed=4)
    session = Neighbours(bars).session
    for of in (market(bars), Market.none()):
        assert of.table().empty
        there = of.at(session)
        assert (there.move == 0).all()
        assert (there.scale == 1).all()
        assert np.isnan(there.reach).all()
        assert np.isnan(there.spread).all()


def test_a_market_does_not_hang_on_later_sessions():
    bars = markets.bars(40, 120, seed=7)
    then = market(bars[bars["date"] <= bars["date"].unique()[75]]).table()
    pd.testing.assert_frame_equal(then, market(bars).table()[: len(then)], check_exact=True)


def test_a_market_goes_on_from_its_table():
    bars = markets.bars(40, 200, seed=8)
    days = bars["date"].unique()
    whole = market(bars).table()
    then = Market.of_table(market(bars[bars["date"] <= days[150]]).table())
    recent = bars[bars["date"] > days[100]]
    pd.testing.assert_frame_equal(market(recent, then).table(), whole, check_exact=True)
    corrected = bars.assign(close=bars["close"].where(bars["date"] != days[120], 1.0))
    frozen = market(corrected, then).table()
    pd.testing.assert_frame_equal(frozen[:150], whole[:150], check_exact=True)


def test_a_table_of_before_the_markets_gap_was_kept_has_none():
    table = market(markets.bars(40, 90, seed=8)).table()
    assert (table["gap"] != 0).all()
    assert (Market.of_table(table.drop(columns="gap")).gap == 0).all()
    np.testing.assert_array_equal(Market.of_table(table).table()["gap"], table["gap"])


def test_a_move_over_missing_sessions_is_beyond_the_market_of_all_of_them():
    bars = markets.bars(40, 90, seed=9)
    of = market(bars)
    n = Neighbours(bars.drop(index=[50, 51]).reset_index(drop=True))
    sessions = n.session[50] - np.arange(3)
    assert n.step[50] == 3
    assert n.beyond(of)[50] == n.log_return[50] - of.at(sessions).move.sum()
    assert n.beyond(of)[49] == n.log_return[49] - of.at(n.session[[49]]).move[0]
