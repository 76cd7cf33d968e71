"""Sessions without a bar, each taken by hand out of one calm stock or out of a market."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import markets
from support.faulty_bars import AT, CLEAN, PRICES, cleaned, kinds

from pitwise.bars.calendar import session_close
from pitwise.bars.schema import COLUMNS
from pitwise.cleaning.absences import absences, lost_sessions, new_companies, segments
from pitwise.cleaning.neighbours import Neighbours

PARAMS = CLEAN.absences
NONE_LOST = np.zeros(20_000, int)
"""By number of a session, up to long after the last bar here."""


def without(bars: pd.DataFrame, first: int, sessions: int) -> pd.DataFrame:
    return bars.drop(index=range(first, first + sessions)).reset_index(drop=True)


def away(bars: pd.DataFrame, lost: np.ndarray = NONE_LOST) -> list[tuple]:
    found = absences(Neighbours(bars), PARAMS, lost)
    return list(found[["row", "kind", "sessions"]].itertuples(index=False, name=None))


def test_a_stock_with_all_its_sessions_was_never_away(calm):
    assert away(calm) == []
    assert away(calm[:0]) == []
    assert cleaned(calm)[2].empty


def test_sessions_that_one_stock_lost_in_silence_are_a_gap(calm):
    events = cleaned(without(calm, AT, 2))[2]
    assert kinds(events) == [(calm["date"][AT], "gap")]
    assert events["sessions"].tolist() == [2]


def test_an_absence_is_told_when_the_symbol_is_back_and_not_before(calm):
    bars = without(calm, AT, 2)
    events = cleaned(bars)[2]
    back = session_close(calm["date"])[AT + 2]
    assert events["first_known"].tolist() == events["confirmed_at"].tolist() == [back]
    assert cleaned(bars[:AT])[2].empty
    assert kinds(cleaned(bars[: AT + 1])[2]) == kinds(events)


def test_sessions_before_a_burst_of_trading_are_a_halt(calm):
    calm.loc[AT + 2, "volume"] *= 6
    assert kinds(cleaned(without(calm, AT, 2))[2]) == [(calm["date"][AT], "halt")]


def test_sessions_before_a_move_are_a_halt(calm):
    calm.loc[AT + 2 :, PRICES] *= 1.15
    assert away(without(calm, AT, 2)) == [(AT, "halt", 2)]


@pytest.mark.parametrize(("symbols", "sessions"), [(15, 1), (8, 3)])
def test_sessions_that_many_stocks_lost_are_the_sources_gap(symbols, sessions):
    market = markets.bars(30, 200, seed=4)[COLUMNS]
    market["volume"] = 1e6
    days = market["date"].unique()[120 : 120 + sessions]
    lost = market["date"].isin(days) & (market["symbol"] < f"S{symbols:03d}")
    market.loc[(market["symbol"] == "S003") & (market["date"] > days[-1]), PRICES] *= 1.5
    _, _, events = cleaned(market[~lost].reset_index(drop=True))
    gone = events[events["kind"].isin(["gap", "halt"])]
    assert (gone["kind"] == "gap").all()
    assert gone["date"].unique().tolist() == [days[0]]
    assert gone["sessions"].tolist() == [sessions] * symbols


def test_a_move_of_one_stock_that_no_other_missed_is_its_own_halt():
    market = markets.bars(30, 200, seed=4)[COLUMNS]
    market["volume"] = 1e6
    day = market["date"].unique()[120]
    its = market["symbol"] == "S003"
    market.loc[its & (market["date"] > day), PRICES] *= 1.5
    events = cleaned(market[~(its & (market["date"] == day))].reset_index(drop=True))[2]
    assert ("S003", day, "halt") in list(
        zip(events["symbol"], events["date"], events["kind"], strict=True)
    )


def test_sessions_are_lost_where_far_fewer_symbols_came_than_in_those_before():
    symbols = np.array([20, 20, 16, 15, 20, 1, 20])
    assert lost_sessions(symbols, PARAMS).tolist() == [0, 0, 0, 0, 1, 1, 2, 2]
    assert lost_sessions(symbols[:0], PARAMS).tolist() == [0]


def test_a_symbol_too_few_is_no_lost_session():
    assert lost_sessions(np.array([2, 1, 2]), PARAMS).tolist() == [0, 0, 0, 0]


@given(symbols=st.lists(st.integers(0, 30), max_size=30), cut=st.integers(0, 30))
def test_whether_a_session_was_lost_hangs_on_no_later_one(symbols, cut):
    whole = lost_sessions(np.array(symbols, int), PARAMS)
    early = lost_sessions(np.array(symbols[:cut], int), PARAMS)
    assert early.tolist() == whole[: len(early)].tolist()


def test_a_quarantined_session_is_no_absence(calm):
    calm.loc[AT, "close"] = np.nan
    _, quarantine, events = cleaned(calm)
    assert quarantine["reason"].tolist() == ["missing"]
    assert events.empty


def test_a_ticker_taken_over_by_another_company_starts_anew(calm):
    calm.loc[AT + 90 :, PRICES] *= 3
    bars, _, events = cleaned(without(calm, AT, 90))
    assert kinds(events) == [(calm["date"][AT + 90], "symbol_reused")]
    assert events["sessions"].tolist() == [90]
    assert bars["segment"].tolist() == [0] * AT + [1] * (300 - AT - 90)


def test_a_ticker_that_is_back_at_its_price_and_trades_as_before_is_the_same(calm):
    bars, _, events = cleaned(without(calm, AT, PARAMS.reuse_sessions))
    assert kinds(events) == [(calm["date"][AT], "gap")]
    # An indicator does not reach across a quarter all the same.
    assert bars["segment"].iloc[[0, -1]].tolist() == [0, 1]


def test_the_same_price_at_another_turnover_is_another_company(calm):
    calm.loc[AT + 60 :, "volume"] *= 30
    assert away(without(calm, AT, 60)) == [(AT, "symbol_reused", 60)]


def test_an_absence_one_session_too_short_is_no_other_company(calm):
    calm.loc[AT + 59 :, PRICES] *= 3
    assert away(without(calm, AT, 59)) == [(AT, "halt", 59)]


def test_a_penny_stock_back_at_11_920_times_its_price_after_380_sessions_is_another_company():
    bars = markets.bars(1, 700, seed=2)[COLUMNS]
    rng = np.random.default_rng(2)
    close = 0.001 * np.exp(rng.normal(0, 0.03, 700).cumsum())
    close[500:] *= 11_920 * close[119] / close[500]
    bars["close"], bars["open"] = close, close * np.exp(rng.normal(0, 0.02, 700))
    bars["high"] = bars[["open", "close"]].max(axis=1) * 1.02
    bars["low"] = bars[["open", "close"]].min(axis=1) * 0.98
    bars["volume"] = np.round(1e6 * np.exp(rng.normal(0, 0.4, 700)))
    gone = without(bars, 120, 380)
    cleaned_bars, _, events = cleaned(gone)
    reused = events[events["kind"] == "symbol_reused"]
    assert kinds(reused) == [(bars["date"][500], "symbol_reused")]
    assert reused["sessions"].tolist() == [380]
    assert reused["price_ratio"].item() == pytest.approx(11_920)
    others = events.loc[events["date"] == bars["date"][500], "kind"].tolist()
    assert others == ["symbol_reused"]  # and neither a split nor an error of scale
    assert (cleaned_bars["price_factor"] == 1).all()
    assert cleaned_bars["segment"].tolist() == [0] * 120 + [1] * (len(cleaned_bars) - 120)


@settings(max_examples=25, deadline=None)
@given(
    runs=st.lists(st.tuples(st.integers(1, 298), st.sampled_from([1, 2, 59, 60, 90])), max_size=4),
    times=st.floats(0.2, 5),
    cut=st.integers(1, 300),
)
def test_an_absence_is_judged_by_the_bars_up_to_the_one_that_ends_it(untouched, runs, times, cut):
    bars = untouched.copy()
    gone = set()
    for first, sessions in runs:
        gone.update(range(first, min(first + sessions, 300)))
        bars.loc[first:, PRICES] *= times
    bars = bars.drop(index=list(gone)).reset_index(drop=True)
    whole = absences(Neighbours(bars), PARAMS, NONE_LOST)
    early = absences(Neighbours(bars[:cut]), PARAMS, NONE_LOST)
    pd.testing.assert_frame_equal(early, whole[whole["row"] < cut].reset_index(drop=True))
    apart = new_companies(Neighbours(bars), PARAMS)
    np.testing.assert_array_equal(new_companies(Neighbours(bars[:cut]), PARAMS), apart[:cut])


def test_a_break_follows_an_absence_of_a_quarter(calm):
    for sessions, breaks in ((58, []), (59, [AT])):
        n = Neighbours(without(calm, AT, sessions))
        assert np.flatnonzero(new_companies(n, PARAMS)).tolist() == breaks


def test_segments_count_the_breaks_of_each_symbol():
    first = np.array([1, 0, 0, 0, 1, 0, 1, 0], bool)
    breaks = np.array([0, 0, 1, 1, 0, 1, 0, 0], bool)
    assert segments(breaks, first).tolist() == [0, 0, 1, 2, 0, 1, 0, 0]
    assert segments(breaks, first).dtype == "int32"
    assert segments(breaks[:0], first[:0]).tolist() == []


def test_a_break_at_a_symbols_first_bar_is_none():
    first = np.array([1, 0, 1, 0], bool)
    assert segments(first, first).tolist() == [0, 0, 0, 0]
