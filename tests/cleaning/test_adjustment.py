import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import markets
from support.faulty_bars import AT, PRICES

from pitwise.bars.basis import on_last_basis
from pitwise.bars.schema import COLUMNS
from pitwise.bars.sources.sample import sample_bars
from pitwise.cleaning.adjustment import steps, with_factors
from pitwise.cleaning.neighbours import Neighbours


def adjusted(bars: pd.DataFrame, split_step: float) -> pd.DataFrame:
    """Bars on the basis of each symbol's last, by what is believed of the adjusted close."""
    believed, _ = steps(bars, split_step)
    return on_last_basis(with_factors(bars, believed, Neighbours(bars).run))


@pytest.fixture(scope="module")
def sample() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The sample as traded and on the last basis, row for row."""
    raw = sample_bars().sort_values(["symbol", "date"], ignore_index=True)
    return raw, adjusted(raw, 1.25)


def between(bars: pd.DataFrame, symbol: str, first: str, last: str) -> pd.Series:
    return (bars["symbol"] == symbol) & bars["date"].between(first, last)


def test_apples_split_of_2005_is_no_crash(sample):
    raw, bars = sample
    days = between(bars, "AAPL", "2005-02-25", "2005-02-28")
    assert raw.loc[days, "close"].pct_change().iloc[-1] == pytest.approx(-0.4959, abs=1e-4)
    assert bars.loc[days, "close"].pct_change().iloc[-1] == pytest.approx(0.0082, abs=1e-4)


@pytest.mark.parametrize(
    ("symbol", "first", "last", "shares"),
    [
        ("AAPL", "2000-03-01", "2000-06-20", 4),
        ("AAPL", "2000-06-21", "2005-02-25", 2),
        ("AAPL", "2005-02-28", "2013-03-01", 1),
        ("MSFT", "2000-03-01", "2003-02-14", 2),
        ("MSFT", "2003-02-18", "2013-03-01", 1),
        ("IBM", "2000-03-01", "2013-03-01", 1),
        ("GOOG", "2004-08-19", "2013-03-01", 1),
    ],
)
def test_volume_is_counted_in_the_last_bars_shares(sample, symbol, first, last, shares):
    raw, bars = sample
    days = between(raw, symbol, first, last)
    assert days.any()
    np.testing.assert_allclose(bars.loc[days, "volume"], raw.loc[days, "volume"] * shares, rtol=2e-3)


def test_returns_are_those_of_the_vendors_adjusted_close(sample):
    raw, bars = sample
    ours = bars.groupby("symbol")["close"].pct_change()
    vendors = raw.groupby("symbol")["adj_close"].pct_change()
    np.testing.assert_allclose(ours, vendors, rtol=0, atol=1e-9)


def test_the_last_bar_keeps_the_price_it_traded_at(sample):
    raw, bars = sample
    last = ~bars.duplicated("symbol", keep="last")
    assert bars.loc[last, "price_factor"].tolist() == [1.0] * 5
    pd.testing.assert_frame_equal(bars.loc[last, PRICES], raw.loc[last, PRICES])


def test_price_over_factor_is_the_traded_price(sample):
    raw, bars = sample
    for price in PRICES:
        np.testing.assert_allclose(bars[price] / bars["price_factor"], raw[price], rtol=1e-12)


def test_microsofts_special_dividend_moves_prices_and_no_volume(sample):
    raw, bars = sample
    days = between(bars, "MSFT", "2004-11-12", "2004-11-15")
    factor = bars.loc[days, "price_factor"].tolist()
    assert factor[1] / factor[0] == pytest.approx(29.97 / (29.97 - 3.08), rel=0.01)
    assert (bars.loc[days, "volume"] == raw.loc[days, "volume"]).all()


def hand_made(closes: list[float], adjusted_closes: list[float]) -> pd.DataFrame:
    bars = markets.bars(1, len(closes), seed=0)[["symbol", "date"]]
    bars = bars.assign(open=closes, high=[c + 2 for c in closes], low=[c - 2 for c in closes])
    return bars.assign(close=closes, volume=10.0, adj_close=adjusted_closes)


def test_a_split_and_a_dividend_by_hand():
    result = adjusted(hand_made([100.0, 50.0, 40.0], [22.5, 22.5, 20.0]), split_step=1.25)
    assert result["price_factor"].tolist() == pytest.approx([0.45, 0.9, 1.0])
    assert result["close"].tolist() == pytest.approx([45.0, 45.0, 40.0])
    assert result["high"].tolist() == pytest.approx([45.9, 46.8, 42.0])
    assert result["low"].tolist() == pytest.approx([44.1, 43.2, 38.0])
    assert result["volume"].tolist() == pytest.approx([20.0, 10.0, 10.0])


def test_a_reverse_split_makes_fewer_shares():
    result = adjusted(hand_made([1.0, 10.0, 10.0], [10.0, 10.0, 10.0]), split_step=1.25)
    assert result["close"].tolist() == pytest.approx([10.0, 10.0, 10.0])
    assert result["volume"].tolist() == pytest.approx([1.0, 10.0, 10.0])


def test_two_splits_multiply():
    result = adjusted(hand_made([60.0, 30.0, 10.0], [10.0, 10.0, 10.0]), split_step=1.25)
    assert result["volume"].tolist() == pytest.approx([60.0, 30.0, 10.0])


def test_the_step_between_two_symbols_is_no_split():
    first = hand_made([10.0, 10.0], [10.0, 10.0])
    second = hand_made([10.0, 10.0], [1.0, 1.0]).assign(symbol="ZZZ")
    result = adjusted(pd.concat([first, second], ignore_index=True), split_step=1.25)
    assert result["volume"].tolist() == [10.0] * 4
    assert result["price_factor"].tolist() == pytest.approx([1.0] * 4)


def test_bars_without_an_adjusted_close_stay_as_they_are():
    bars = markets.bars(2, 5, seed=3)[[*COLUMNS]]
    pd.testing.assert_frame_equal(adjusted(bars, 1.25), bars.assign(price_factor=1.0))


def factors(frame: pd.DataFrame) -> tuple[list[float], list[float]]:
    believed, _ = steps(frame, split_step=1.25)
    return np.cumprod(believed.price).tolist(), np.cumprod(believed.shares).tolist()


@pytest.mark.parametrize(("shares", "price"), [(2, 50.0), (1.5, 200 / 3)])
def test_the_factors_of_a_split_grow_from_its_session_on(shares, price):
    price_factor, share_factor = factors(hand_made([100.0, price, price], [10.0, 10.0, 10.0]))
    assert price_factor == pytest.approx([1.0, shares, shares])
    assert share_factor == pytest.approx([1.0, shares, shares])


def test_a_dividend_moves_the_price_factor_alone():
    # 2 dollars on 100: the vendor multiplies the past by 0.98.
    price_factor, share_factor = factors(hand_made([100.0, 98.0, 98.0], [98.0, 98.0, 98.0]))
    assert price_factor == pytest.approx([1.0, 100 / 98, 100 / 98])
    assert share_factor == [1.0, 1.0, 1.0]


def test_a_split_and_a_dividend_of_one_session_multiply_and_one_dividend_of_another():
    closes, adjusted_closes = [100.0, 50.0, 49.0], [49.0, 49.0, 49.0]
    price_factor, share_factor = factors(hand_made(closes, adjusted_closes))
    assert price_factor == pytest.approx([1.0, 2.0, 2.0 * 50 / 49])
    assert share_factor == pytest.approx([1.0, 2.0, 2.0])


def told(frame: pd.DataFrame, actions: pd.DataFrame | None = None) -> list[tuple]:
    """(row, kind, told_by) of each event."""
    _, events = steps(frame, 1.25, actions)
    return list(zip(events["row"], events["kind"], events["told_by"], strict=True))


def test_a_special_distribution_of_30_percent_leaves_the_volumes_alone(calm):
    calm["adj_close"] = 0.7 * calm["close"]
    calm.loc[AT:, PRICES] *= 0.7
    price_factor, share_factor = factors(calm)
    assert told(calm) == [(AT, "distribution", "adjusted_close")]
    assert price_factor == pytest.approx([1.0] * AT + [1 / 0.7] * (300 - AT))
    assert share_factor == [1.0] * 300


@pytest.mark.parametrize(("old", "new"), [(4, 5), (2, 3), (1, 2), (1, 7), (10, 1)])
def test_a_split_booked_in_the_adjusted_close_rescales_the_volumes(calm, old, new):
    ratio = new / old
    calm["adj_close"] = calm["close"]
    calm.loc[AT:, PRICES] /= ratio
    price_factor, share_factor = factors(calm)
    assert told(calm) == [(AT, "split", "adjusted_close")]
    assert share_factor == pytest.approx([1.0] * AT + [ratio] * (300 - AT))
    assert price_factor == pytest.approx([1.0] * AT + [ratio] * (300 - AT))


def test_a_fifth_paid_out_on_wild_trading_is_a_distribution_and_no_split_5_for_4(calm):
    calm["adj_close"] = calm["close"]
    calm.loc[AT:, PRICES] *= 0.8
    calm.loc[AT, "volume"] *= 4
    assert told(calm) == [(AT, "distribution", "adjusted_close")]
    assert factors(calm)[1] == [1.0] * 300


@pytest.mark.parametrize("times", [1.4, 0.7, 2.0, 0.5])
def test_a_wrong_close_is_found_out_by_its_open(calm, times):
    calm["adj_close"] = calm["close"]
    calm.loc[AT, "close"] *= times
    price_factor, share_factor = factors(calm)
    assert told(calm) == [(AT, "bad_close", "adjusted_close")]
    assert price_factor == pytest.approx([1.0] * 300)
    assert share_factor == [1.0] * 300


@pytest.mark.parametrize("times", [1.4, 0.7, 2.0, 0.5])
def test_a_whole_wrong_bar_leaves_no_factor_behind(calm, times):
    calm["adj_close"] = calm["close"]
    calm.loc[AT, PRICES] *= times
    price_factor, share_factor = factors(calm)
    assert np.delete(price_factor, AT) == pytest.approx([1.0] * 299)
    assert np.delete(share_factor, AT) == pytest.approx([1.0] * 299)
    _, events = steps(calm, 1.25)
    taken = events[events["kind"] != "bad_close"]
    assert taken["takes_back"].tolist() in ([], [-1, AT])


# An adjusted close: distribution, split or news.


@pytest.mark.parametrize("traded", [1.0, 7.0])
@pytest.mark.parametrize("factor", [1.3632, 1.28, 1.45, 1.9, 2.3])
def test_a_part_that_leaves_is_a_distribution_and_moves_no_share_count(calm, factor, traded):
    """As DXC of 2015-11-30: its adjusted close says 1.3632, its volume was seven times the usual."""
    adjusted_closes = calm["close"] / factor
    calm.loc[AT:, PRICES] /= factor
    calm.loc[AT, "volume"] *= traded
    frame = calm.assign(adj_close=adjusted_closes)
    believed, events = steps(frame, 1.25)
    assert told(frame) == [(AT, "distribution", "adjusted_close")]
    assert believed.price[AT] == pytest.approx(factor)
    assert (believed.shares == 1).all()
    assert events["price_ratio"].tolist() == pytest.approx([1 / factor])
    assert events["move"].tolist() == [np.log(calm["close"][AT] / calm["close"][AT - 1])]


def test_a_step_just_short_of_a_plain_ratio_is_a_distribution_and_one_with_a_dividend_a_split(calm):
    for factor, kind in ((1.985, "distribution"), (2 * 1.008, "split")):
        frame = calm.copy()
        frame["adj_close"] = calm["close"] / factor
        frame.loc[AT:, PRICES] /= factor
        assert told(frame) == [(AT, kind, "adjusted_close")]


def test_news_moves_no_factor(calm):
    adjusted_closes = calm["close"].copy()
    calm.loc[AT:, PRICES] *= 0.7
    adjusted_closes[AT:] *= 0.7
    believed, events = steps(calm.assign(adj_close=adjusted_closes), 1.25)
    assert events.empty
    assert (believed.price.round(12) == 1).all()


def test_a_special_dividend_below_the_split_step_is_told_and_taken_out(calm):
    calm["adj_close"] = calm["close"] / 1.12
    calm.loc[AT:, PRICES] /= 1.12
    believed, _ = steps(calm, 1.25)
    assert told(calm) == [(AT, "distribution", "adjusted_close")]
    assert believed.price[AT] == pytest.approx(1.12)


# Announced actions.


def announced(frame: pd.DataFrame, *rows: tuple, at: int = AT) -> pd.DataFrame:
    """Actions of (kind, ratio, amount) with the ex-date of a row."""
    made = [
        {"symbol": frame["symbol"][at], "date": frame["date"][at], "kind": k, "ratio": r, "amount": a}
        for k, r, a in rows
    ]
    return pd.DataFrame(made).astype({"symbol": "string", "ratio": "float64", "amount": "float64"})


def fallen(calm: pd.DataFrame, factor: float, with_adjusted: bool) -> pd.DataFrame:
    """The stock with a step at `AT`, which its adjusted close has or it has none."""
    frame = calm.copy()
    frame.loc[AT:, PRICES] /= factor
    return frame.assign(adj_close=calm["close"] / factor) if with_adjusted else frame


BOTH = pytest.mark.parametrize("with_adjusted", [True, False])


@BOTH
@pytest.mark.parametrize("ratio", [2.0, 1.5, 1.25, 0.1, 1.36])
def test_an_announced_split_is_taken_once_whatever_its_ratio(calm, with_adjusted, ratio):
    frame = fallen(calm, ratio, with_adjusted)
    actions = announced(frame, ("split", ratio, None))
    believed, events = steps(frame, 1.25, actions)
    assert told(frame, actions) == [(AT, "split", "actions")]
    expected = np.where(np.arange(len(frame)) == AT, ratio, 1.0)
    assert believed.price == pytest.approx(expected)
    assert believed.shares == pytest.approx(expected)
    assert events["price_ratio"].tolist() == pytest.approx([1 / ratio])
    assert (believed.shares[:AT] == 1).all()


@BOTH
def test_an_announced_split_that_the_prices_do_not_show_is_not_applied_twice(calm, with_adjusted):
    frame = calm.assign(adj_close=calm["close"]) if with_adjusted else calm
    actions = announced(frame, ("split", 2.0, None))
    believed, _ = steps(frame, 1.25, actions)
    assert told(frame, actions) == [(AT, "bad_adjustment", "actions")]
    assert (believed.price == 1).all()
    assert (believed.shares == 1).all()


def test_an_adjusted_close_that_lags_a_split_does_not_take_it_again(calm):
    frame = fallen(calm, 2.0, with_adjusted=False)
    frame["adj_close"] = calm["close"] / 2
    frame.loc[AT, "adj_close"] /= 2  # the vendor takes it out a session late
    actions = announced(frame, ("split", 2.0, None))
    believed, _ = steps(frame, 1.25, actions)
    assert told(frame, actions) == [
        (AT, "split", "actions"),
        (AT + 1, "bad_adjustment", "adjusted_close"),
    ]
    assert np.prod(believed.price) == pytest.approx(2.0)


def test_a_dividend_besides_a_split_that_only_the_adjusted_close_knows_is_kept(calm):
    frame = fallen(calm, 2.02, with_adjusted=True)
    believed, _ = steps(frame, 1.25, announced(frame, ("split", 2.0, None)))
    assert (believed.price[AT], believed.shares[AT]) == (pytest.approx(2.02), 2.0)


@BOTH
def test_an_announced_dividend_is_what_the_adjusted_close_says_of_it(calm, with_adjusted):
    """Factor: the close before over what is left of it, as the vendors of adjusted closes have it."""
    amount = round(0.02 * calm["close"][AT - 1], 2)
    factor = calm["close"][AT - 1] / (calm["close"][AT - 1] - amount)
    frame = fallen(calm, factor, with_adjusted)
    actions = announced(frame, ("dividend", None, amount))
    believed, events = steps(frame, 1.25, actions)
    assert events.empty
    assert believed.price[AT] == pytest.approx(factor, rel=1e-12)
    assert (np.delete(believed.price, AT).round(12) == 1).all()
    assert (believed.shares == 1).all()


@pytest.mark.parametrize("apart", [-2, -1, 1, 2])
def test_a_dividend_that_feed_and_vendor_have_at_other_sessions_is_taken_once(calm, apart):
    frame = calm.assign(adj_close=calm["close"])
    frame.loc[: AT + apart - 1, "adj_close"] *= 0.98
    believed, _ = steps(
        frame, 1.25, announced(frame, ("dividend", None, 0.0201 * calm["close"][AT - 1]))
    )
    assert np.flatnonzero(np.abs(believed.price - 1) > 1e-9).tolist() == [min(AT, AT + apart)]
    assert np.prod(believed.price) == pytest.approx(1.0204, abs=2e-4)


@pytest.mark.parametrize("apart", [1, 3])
def test_two_dividends_of_unlike_size_or_far_apart_are_both_taken(calm, apart):
    frame = calm.assign(adj_close=calm["close"])
    frame.loc[: AT + apart - 1, "adj_close"] *= 0.98 if apart == 3 else 0.995
    believed, _ = steps(frame, 1.25, announced(frame, ("dividend", None, 0.02 * calm["close"][AT - 1])))
    assert (np.abs(believed.price - 1) > 1e-9).sum() == 2


@BOTH
@pytest.mark.parametrize("kind", ["special_dividend", "spin_off"])
def test_a_distribution_of_an_announced_size_goes_into_the_price_factor_alone(calm, with_adjusted, kind):
    frame = fallen(calm, 1 / 0.7, with_adjusted)
    given = (None, 0.3 * calm["close"][AT - 1]) if kind == "special_dividend" else (0.7, None)
    actions = announced(frame, (kind, *given))
    believed, _ = steps(frame, 1.25, actions)
    assert told(frame, actions) == [(AT, "distribution", "actions")]
    assert believed.price[AT] == pytest.approx(1 / 0.7)
    assert (believed.shares == 1).all()


def test_a_large_distribution_that_the_prices_do_not_show_is_left_out(calm):
    for amount in (0.5 * calm["close"][AT - 1], 2 * calm["close"][AT - 1]):
        actions = announced(calm, ("special_dividend", None, amount))
        assert told(calm, actions) == [(AT, "bad_adjustment", "actions")]
        assert (steps(calm, 1.25, actions)[0].price == 1).all()


def test_a_spin_off_of_unknown_size_is_told_and_moves_no_factor(calm):
    frame = fallen(calm, 1.2, with_adjusted=False)
    actions = announced(frame, ("spin_off", None, None))
    assert told(frame, actions) == [(AT, "spin_off", "actions")]
    assert (steps(frame, 1.25, actions)[0].price == 1).all()


def test_the_adjusted_close_says_the_size_of_an_announced_spin_off(calm):
    for factor in (1.03, 1.2, 1.6):
        frame = fallen(calm, factor, with_adjusted=True)
        actions = announced(frame, ("spin_off", None, None))
        ((row, kind, _),) = told(frame, actions)
        assert (row, kind) == (AT, "distribution")
        assert steps(frame, 1.25, actions)[0].price[AT] == pytest.approx(factor)


def test_a_split_and_a_dividend_of_one_day_multiply(calm):
    amount = 0.02 * calm["close"][AT - 1] / 2  # of a new share
    frame = fallen(calm, 2 / 0.98, with_adjusted=False)
    believed, _ = steps(frame, 1.25, announced(frame, ("split", 2.0, None), ("dividend", None, amount)))
    assert believed.price[AT] == pytest.approx(2 / 0.98)
    assert believed.shares[AT] == 2.0


def test_an_action_of_a_day_without_a_bar_is_taken_at_the_next_and_none_outside_the_bars(calm):
    frame = fallen(calm, 2.0, with_adjusted=False)
    gone = frame.drop(index=[AT - 1, AT - 2]).reset_index(drop=True)
    days = [
        calm["date"][AT - 2],
        calm["date"][0],
        pd.Timestamp("2000-01-03"),
        pd.Timestamp("2030-01-02"),
    ]
    actions = pd.concat([announced(frame, ("split", 2.0, None))] * 4, ignore_index=True)
    assert told(gone, actions.assign(date=days)) == [(AT - 2, "split", "actions")]
    other = actions.assign(date=days, symbol="ZZZ").astype({"symbol": "string"})
    assert told(gone, other) == []


@st.composite
def histories(draw) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two stocks with steps in prices, adjusted closes or both, wrong closes, and a feed that errs."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = 40
    frames, told = [], []
    for symbol in ("A", "B"):
        close = 50 * np.exp(rng.normal(0, 0.02, size).cumsum())
        opened = close * np.exp(rng.normal(0, 0.01, size))
        level = np.ones(size)
        days = pd.DatetimeIndex(markets.bars(1, size, seed=0)["date"])
        for at in draw(st.lists(st.integers(0, size - 1), max_size=6)):
            factor = draw(st.sampled_from([2.0, 1.5, 1.25, 0.1, 1.36, 1.02, 3.0]))
            places = draw(st.tuples(*[st.booleans()] * 3))
            until = at + 1 if draw(st.sampled_from([False, False, True])) else size
            if places[0]:
                close[at:until] /= factor
                opened[at + draw(st.sampled_from([0, 0, 1])) : until] /= factor
            if places[1]:
                level[at:until] *= factor
            if places[2]:
                kind = draw(st.sampled_from(["split", "spin_off", "dividend", "special_dividend"]))
                value = {"split": factor, "spin_off": min(1 / factor, 0.9)}.get(kind, 1.5)
                told.append((symbol, days[at], kind, value))
        frame = pd.DataFrame({"symbol": symbol, "date": days, "open": opened, "close": close})
        frame["high"] = frame[["open", "close"]].max(axis=1)
        frame["low"] = frame[["open", "close"]].min(axis=1)
        frame["volume"] = rng.lognormal(10, 0.5, size)
        frame["adj_close"] = close * level
        frames.append(frame)
    feed = pd.DataFrame(told, columns=["symbol", "date", "kind", "value"]).drop_duplicates(
        ["symbol", "date", "kind"]
    )
    by_ratio = feed["kind"].isin(["split", "spin_off"])
    feed = feed.assign(ratio=feed["value"].where(by_ratio), amount=feed["value"].where(~by_ratio))
    bars = pd.concat(frames, ignore_index=True).astype({"symbol": "string"})
    if draw(st.booleans()):
        bars = bars.drop(columns="adj_close")
    return bars, feed.astype({"symbol": "string", "ratio": "float64", "amount": "float64"})


@given(histories(), st.integers(1, 39))
@settings(max_examples=60, deadline=None)
def test_what_is_told_of_a_bar_depends_on_no_later_one(history, t):
    bars, actions = history
    day = bars["date"].unique()[t]
    before = (bars["date"] < day).to_numpy()
    whole, events = steps(bars, 1.25, actions)
    part, events_then = steps(bars[before].reset_index(drop=True), 1.25, actions)
    assert (whole.price[before] == part.price).all()
    assert (whole.shares[before] == part.shares).all()
    events = events[before[events["row"]]]
    place = np.cumsum(before) - 1
    events = events.assign(
        row=place[events["row"]],
        takes_back=np.where(events["takes_back"] < 0, -1, place[events["takes_back"]]),
    )
    pd.testing.assert_frame_equal(events.reset_index(drop=True), events_then, check_exact=True)


@given(histories())
@settings(max_examples=30, deadline=None)
def test_each_symbol_is_judged_by_itself_and_every_step_is_positive(history):
    bars, actions = history
    whole, _ = steps(bars, 1.25, actions)
    assert (whole.price > 0).all()
    assert np.isfinite(whole.price).all()
    assert (whole.price[~bars.duplicated("symbol")] == 1).all()
    for symbol, one in bars.groupby("symbol"):
        alone, _ = steps(one.reset_index(drop=True), 1.25, actions)
        assert (alone.price == whole.price[(bars["symbol"] == symbol).to_numpy()]).all()
