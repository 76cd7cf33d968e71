"""Bars that carry another session's prices: planted ones, and as a slow and plain way finds them."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import markets

from pitwise.cleaning.copies import LOOK_BACK, Copies, _judged, copies, session_copies
from pitwise.cleaning.equal_bars import equal_bars
from pitwise.cleaning.pairs import Pairs, columns_of

OHL = ["open", "high", "low"]
HLC = ["high", "low", "close"]
ALL = [*OHL, "close", "volume"]


@pytest.fixture(scope="module")
def market() -> pd.DataFrame:
    """60 symbols, 300 sessions, in cents."""
    return in_cents(markets.bars(60, 300, seed=11))


def in_cents(bars: pd.DataFrame) -> pd.DataFrame:
    bars = bars[["symbol", "date", *ALL]].sort_values(["symbol", "date"], ignore_index=True)
    bars[ALL[:4]] = bars[ALL[:4]].round(2)
    return bars.assign(volume=bars["volume"].astype("float64").round())


def found(bars: pd.DataFrame, assumed: bool = True) -> pd.DataFrame:
    equal = equal_bars(bars)
    return copies(equal, session_copies([equal]), np.full(len(bars), assumed))


def carry(bars: pd.DataFrame, symbols, at: int, source: int) -> pd.DataFrame:
    """The bars, with that session's of these symbols (by number) replaced by another session's."""
    bars = bars.copy()
    sessions = bars["date"].nunique()
    for symbol in symbols:
        bars.loc[symbol * sessions + at, ALL] = bars.loc[symbol * sessions + source, ALL].to_numpy()
    return bars


def test_of_bars_as_they_were_traded_none_is_a_copy(market):
    assert found(market).empty


@pytest.mark.parametrize("lag", [2, 9, 60])
@pytest.mark.parametrize("kind", ["displaced", "repeated"])
def test_a_session_that_carries_another_ones_prices_is_the_copy(market, lag, kind):
    source = 100 + (lag if kind == "displaced" else -lag)
    copied = found(carry(market, range(30), 100, source))
    assert (copied["reason"] == kind).all()
    assert copied["row"].tolist() == [symbol * 300 + 100 for symbol in range(30)]
    assert copied["other"].tolist() == [symbol * 300 + source for symbol in range(30)]
    assert set(copied["copy_of"]) == {market["date"][source]}
    assert (copied["told"] == copied[["row", "other"]].max(axis=1)).all()
    assert (copied["symbols"] == 30).all()
    assert (copied["volume_ratio"] == 1).all()
    assert (copied["confidence"] > 0.9).all()


def test_of_bars_observed_live_the_later_one_is_the_copy(market):
    bars = carry(market, range(30), 100, 104)
    assumed = (bars["date"] < bars["date"][102]).to_numpy()
    equal = equal_bars(bars)
    copied = copies(equal, session_copies([equal]), assumed)
    assert set(copied["reason"]) == {"repeated"}
    assert set(bars["date"][copied["row"]]) == {bars["date"][104]}
    assert set(copied["copy_of"]) == {bars["date"][100]}


def test_a_lone_copy_needs_the_same_volume_and_one_of_many_does_not(market):
    cheap = market.copy()
    cheap.loc[cheap["symbol"] == "S007", ALL[:4]] *= 10 / cheap["close"][7 * 300]
    cheap = in_cents(cheap)
    lone, many = carry(cheap, [7], 100, 104), carry(cheap, range(30), 100, 104)
    for bars in (lone, many):
        bars.loc[7 * 300 + 104, "volume"] *= 1.3
        close, high, low = bars.loc[7 * 300 + 104, ["close", "high", "low"]]
        bars.loc[7 * 300 + 104, "close"] = round(
            close + (high - low) / 20 * (1 if close < high else -1), 2
        )
    assert found(lone).empty
    assert 7 * 300 + 100 in set(found(many)["row"])
    assert found(many).set_index("row")["volume_ratio"][7 * 300 + 100] == pytest.approx(1 / 1.3)


def test_a_copy_with_an_open_of_its_own_is_one(market):
    bars = carry(market, [7], 100, 104)
    bars.loc[7 * 300 + 100, "open"] = bars.loc[7 * 300 + 100, ["high", "low"]].mean().round(3)
    assert found(bars)["row"].tolist() == [7 * 300 + 100]


def test_equal_prices_of_a_penny_stock_are_chance():
    rng = np.random.default_rng(5)
    bars = in_cents(markets.bars(1, 300, seed=3))
    middle = 0.5 + np.cumsum(rng.integers(-1, 2, 300)) * 0.01
    bars["open"], bars["close"] = middle, middle
    bars["high"], bars["low"] = middle + rng.integers(1, 3, 300) * 0.01, middle - 0.01
    bars[ALL[:4]] = bars[ALL[:4]].round(2)
    bars["volume"] = np.exp(rng.normal(13, 0.4, 300)).round()
    assert len(equal_bars(bars)) > 100
    assert found(bars).empty


def test_bars_further_apart_than_live_keeps_are_not_compared(market):
    assert found(carry(market, range(30), 20, 20 + LOOK_BACK))["reason"].eq("displaced").all()
    assert found(carry(market, range(30), 20, 21 + LOOK_BACK)).empty


def test_a_bar_carried_on_and_on_is_told_each_time_from_the_traded_one(market):
    bars = carry(market, range(30), 104, 100)
    bars = carry(bars, range(30), 107, 100)
    copied = found(bars, assumed=False)
    assert len(copied) == 60
    assert set(copied["copy_of"]) == {bars["date"][100]}


def test_how_symbols_are_stored_and_grouped_makes_no_difference(market):
    bars = carry(market, range(30), 100, 104)
    whole = found(bars)
    for kind in ("string", "category", object):
        pd.testing.assert_frame_equal(found(bars.astype({"symbol": kind})), whole)
    halves = [bars[: 40 * 300], bars[40 * 300 :].reset_index(drop=True)]
    equal = [equal_bars(half) for half in halves]
    together = session_copies(iter(equal))
    assumed = [np.ones(len(half), bool) for half in halves]
    parts = [copies(e, together, known) for e, known in zip(equal, assumed, strict=True)]
    for column in ("row", "other", "told"):
        parts[1][column] += 40 * 300
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), whole)


def test_no_bars_and_bars_without_volume(market):
    assert found(market[:0]).empty
    assert found(market[:1]).empty
    assert len(found(carry(market, range(30), 100, 104).assign(volume=0.0))) == 30


@cache
def four_symbols(seed: int) -> pd.DataFrame:
    return in_cents(markets.bars(4, 40, seed=seed))


@st.composite
def small_markets(draw) -> pd.DataFrame:
    """Few symbols, coarse prices, so that equal bars and copies are many."""
    bars = four_symbols(draw(st.integers(0, 3)))
    bars = bars[bars["symbol"].isin(bars["symbol"].unique()[: draw(st.integers(1, 4))])].copy()
    coarse = draw(st.sampled_from([0.01, 0.5, 5.0]))
    bars[ALL[:4]] = (bars[ALL[:4]] / coarse).round().clip(lower=1) * coarse
    rows = st.integers(0, len(bars) - 1)
    for at, source in draw(st.lists(st.tuples(rows, rows), max_size=25)):
        if bars["symbol"][at] == bars["symbol"][source]:
            columns = draw(st.sampled_from([ALL, OHL, HLC, ALL[:4]]))
            bars.loc[at, columns] = bars.loc[source, columns].to_numpy()
    gone = draw(st.sets(rows, max_size=20))
    return bars.drop(index=list(gone)).reset_index(drop=True)


def slow_groups(bars: pd.DataFrame) -> set[tuple[int, ...]]:
    """Rows with equal open, high and low; or high, low and close, if the opens are not all one."""
    groups = set()
    for _, symbol in bars.groupby("symbol"):
        for _, rows in symbol.groupby(OHL):
            groups |= {tuple(rows.index)} if len(rows) > 1 else set()
        for _, rows in symbol.groupby(HLC):
            groups |= {tuple(rows.index)} if rows["open"].nunique() > 1 else set()
    return groups


def slow_copies(equal: pd.DataFrame, market: Copies, assumed: np.ndarray) -> dict[int, tuple]:
    """Row: reason, other row; one pair of bars after another."""
    seen = []
    for _, group in equal.groupby("group"):
        standing = group[:1]
        for at in range(1, len(group)):
            bar = group[at : at + 1]
            pair = pd.concat([standing, bar], ignore_index=True).assign(group=0)
            both = assumed[pair["row"]].all()
            judged = one_pair(pair, market, both, standing["row"].item() == group["row"].iloc[at - 1])
            earlier, later = pair["row"]
            if judged is None:
                standing = bar
                continue
            reason, confidence = judged
            if reason == "displaced":
                seen.append((later, -confidence, earlier, reason, later))
                standing = bar
            else:
                seen.append((later, -confidence, later, reason, earlier))
    first: dict[int, tuple] = {}
    for _, _, row, reason, other in sorted(seen):
        first.setdefault(row, (reason, other))
    return first


def one_pair(pair: pd.DataFrame, market: Copies, assumed: bool, adjacent: bool):
    pairs = Pairs(columns_of(pair), np.array([0]), np.array([1]))
    judged = _judged(pairs, market, np.array([assumed]), np.array([adjacent])).iloc[0]
    return (judged["reason"], judged["confidence"]) if judged["reason"] else None


@pytest.mark.property
@settings(deadline=None, max_examples=60)
@given(small_markets(), st.booleans())
def test_what_is_found_is_what_comparing_bar_by_bar_finds(bars, assumed):
    equal = equal_bars(bars)
    assert {tuple(rows) for _, rows in equal.groupby("group")["row"]} == slow_groups(bars)
    together, known = session_copies([equal]), np.full(len(bars), assumed)
    told = copies(equal, together, known)
    assert told["row"].is_unique
    fast = dict(zip(told["row"], zip(told["reason"], told["other"], strict=True), strict=True))
    assert fast == slow_copies(equal, together, known)


@pytest.mark.property
@settings(deadline=None, max_examples=60)
@given(small_markets(), st.booleans(), st.integers(0, 40))
def test_what_is_told_by_a_session_is_told_whether_later_ones_are_there_or_not(bars, assumed, sessions):
    """But for displaced bars, which are told later than they came."""
    days = np.sort(bars["date"].unique())[:sessions]
    known = bars["date"].isin(days).to_numpy()
    row = np.flatnonzero(known)
    then = found(bars[known].reset_index(drop=True), assumed)
    for column in ("row", "other", "told"):
        then[column] = row[then[column].to_numpy(int)]
    now = found(bars, assumed)
    now = now[known[now["told"].to_numpy(int)]].reset_index(drop=True)
    pd.testing.assert_frame_equal(then.sort_values("row", ignore_index=True), now, check_dtype=False)
    assert assumed or set(now["reason"]) <= {"repeated"}
