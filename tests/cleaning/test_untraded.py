"""Bars that nobody traded so: stale, without volume, or with an absurd one."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import markets

from pitwise.cleaning.copies import LOOK_BACK
from pitwise.cleaning.untraded import FEWEST, USUAL, untraded

PRICES = ["open", "high", "low", "close"]


@pytest.fixture
def calm() -> pd.DataFrame:
    """Two symbols, 300 sessions each, a million shares or so a session."""
    bars = markets.bars(2, 300, seed=1)[["symbol", "date", *PRICES, "volume"]]
    return bars.assign(volume=np.random.default_rng(0).uniform(5e5, 2e6, 600).round())


def reasons(bars: pd.DataFrame) -> dict[int, str]:
    reason = untraded(bars, stale_bars=3, absurd_volume=100)
    return {int(row): reason[row] for row in np.flatnonzero(reason != "")}


def test_bars_as_they_were_traded_stay(calm):
    assert reasons(calm) == {}
    assert reasons(calm[:0]) == {}


def test_a_bar_is_stale_from_the_third_repeat_on(calm):
    calm.loc[101:105, PRICES] = calm.loc[100, PRICES].to_numpy()
    assert reasons(calm) == dict.fromkeys([103, 104, 105], "stale")


def test_repeats_do_not_run_from_one_symbol_into_the_next(calm):
    calm.loc[298:302, PRICES] = calm.loc[298, PRICES].to_numpy()
    assert reasons(calm) == {}


def test_a_run_without_volume_is_refused_and_the_bar_between_two_of_them_is_not(calm):
    rows = [*range(100, 128), *range(129, 140)]
    calm.loc[rows, "volume"] = 0
    assert reasons(calm) == dict.fromkeys(rows, "no_volume")


def test_a_source_without_volumes_keeps_its_bars(calm):
    calm["volume"] = 0.0
    assert reasons(calm) == {}


def test_the_last_price_carried_on_without_volume_is_no_bar(calm):
    calm["volume"] = 0.0
    calm.loc[50:52, PRICES] = calm["close"][49]
    assert reasons(calm) == dict.fromkeys([50, 51, 52], "no_volume")


@pytest.mark.parametrize(("times", "refused"), [(300, True), (20, False)])
def test_a_volume_far_above_the_usual_one_is_absurd(calm, times, refused):
    calm.loc[100, "volume"] *= times
    assert reasons(calm) == ({100: "absurd_volume"} if refused else {})


def test_the_usual_volume_is_told_from_bars_with_a_volume_and_from_enough_of_them(calm):
    calm.loc[100:159, "volume"] = np.where(np.arange(60) % 2, 0, 1e6)
    calm.loc[300 + FEWEST - 1, "volume"] *= 1000  # the second symbol's first bars
    assert set(reasons(calm).values()) == {"no_volume"}
    calm.loc[300 + FEWEST, "volume"] *= 1000
    assert reasons(calm)[300 + FEWEST] == "absurd_volume"


@st.composite
def histories(draw) -> pd.DataFrame:
    """Two symbols with runs of repeats, of no volume, and of absurd ones."""
    bars = markets.bars(2, 300, seed=draw(st.integers(0, 2)))[["symbol", "date", *PRICES, "volume"]]
    bars = bars.assign(volume=1e6)
    faults = st.sampled_from(["same", "none", "absurd"])
    runs = st.tuples(st.integers(0, 599), st.integers(1, 160), faults)
    for start, length, fault in draw(st.lists(runs, max_size=8)):
        run = bars.index[start : start + length]
        if fault == "same":
            bars.loc[run, PRICES] = bars["close"][start]
        else:
            bars.loc[run, "volume"] = 0 if fault == "none" else 3e8
    return bars


def slow(bars: pd.DataFrame) -> list[str]:
    """Bar by bar, each from what came before it."""
    told = []
    for _, symbol in bars.groupby("symbol"):
        for at in range(len(symbol)):
            bar, before = symbol.iloc[at], symbol.iloc[max(at - LOOK_BACK, 0) : at]
            traded = before["volume"][before["volume"] > 0]
            usual = before["volume"][-USUAL:]
            usual = usual[usual > 0]
            last = symbol.iloc[max(at - 3, 0) : at + 1]
            carried = at > 0 and bar["high"] == bar["low"] and bar["close"] == before["close"].iloc[-1]
            as_a_rule = len(traded) >= FEWEST and 2 * len(traded) > len(before)
            if bar["volume"] == 0 and (as_a_rule or carried):
                told.append("no_volume")
            elif len(last) == 4 and (last[PRICES].nunique() == 1).all():
                told.append("stale")
            elif len(usual) >= FEWEST and bar["volume"] > 100 * usual.median():
                told.append("absurd_volume")
            else:
                told.append("")
    return told


@pytest.mark.property
@settings(deadline=None, max_examples=8)
@given(histories(), st.integers(1, 300))
def test_each_bar_is_judged_by_those_before_it(bars, sessions):
    reason = untraded(bars, stale_bars=3, absurd_volume=100)
    assert list(reason) == slow(bars)
    known = np.arange(600) % 300 < sessions
    then = untraded(bars[known].reset_index(drop=True), stale_bars=3, absurd_volume=100)
    assert list(then) == list(reason[known])
