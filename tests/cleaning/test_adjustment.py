import numpy as np
import pandas as pd
import pytest
from support import markets
from support.faulty_bars import AT, CLEAN, PRICES, kinds

from pitwise.bars.basis import on_last_basis
from pitwise.bars.schema import COLUMNS
from pitwise.bars.sources.sample import sample_bars
from pitwise.cleaning.adjustment import adjusted, vendor_steps
from pitwise.cleaning.clean import clean


@pytest.fixture(scope="module")
def sample() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The sample before and after `clean`, on the last basis, row for row."""
    raw = sample_bars().sort_values(["symbol", "date"], ignore_index=True)
    bars, quarantine, _ = clean(raw, CLEAN)
    assert quarantine[["symbol", "low"]].values.tolist() == [["MSFT", 23.19]]  # a wick of 2008-07-01
    refused = (raw["symbol"] == "MSFT") & (raw["date"] == quarantine["date"][0])
    raw = raw[~refused].reset_index(drop=True)
    assert (raw["date"] == bars["date"]).all()
    pd.testing.assert_frame_equal(bars[[*PRICES, "volume"]], raw[[*PRICES, "volume"]])  # as traded
    return raw, on_last_basis(bars)


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
    steps, _ = vendor_steps(frame, split_step=1.25)
    return np.cumprod(steps.price).tolist(), np.cumprod(steps.shares).tolist()


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


def cleaned(calm: pd.DataFrame, verdicts: str):
    return clean(calm, CLEAN.model_copy(update={"verdicts": verdicts}))


MODES = pytest.mark.parametrize("verdicts", ["all", "look_back", "off"])


@MODES
def test_a_special_distribution_of_30_percent_leaves_the_volumes_alone(calm, verdicts):
    adjusted_closes = 0.7 * calm["close"]
    calm.loc[AT:, PRICES] *= 0.7
    bars, quarantine, events = cleaned(calm.assign(adj_close=adjusted_closes), verdicts)
    assert quarantine.empty
    assert kinds(events) == [(calm["date"][AT], "distribution")]
    assert bars["price_factor"].tolist() == pytest.approx([1.0] * AT + [1 / 0.7] * (300 - AT))
    assert (bars["share_factor"] == 1).all()
    assert (bars["segment"] == 0).all()


@MODES
@pytest.mark.parametrize(("old", "new"), [(4, 5), (2, 3), (1, 2), (1, 7), (10, 1)])
def test_a_split_booked_in_the_adjusted_close_rescales_the_volumes(calm, verdicts, old, new):
    ratio = new / old
    adjusted_closes = calm["close"].copy()
    calm.loc[AT:, PRICES] /= ratio
    calm.loc[AT:, "volume"] *= ratio
    bars, quarantine, events = cleaned(calm.assign(adj_close=adjusted_closes), verdicts)
    assert quarantine.empty
    assert kinds(events) == [(calm["date"][AT], "split")]
    assert bars["share_factor"].tolist() == pytest.approx([1.0] * AT + [ratio] * (300 - AT))
    assert bars["price_factor"].tolist() == pytest.approx([1.0] * AT + [ratio] * (300 - AT))


@MODES
def test_a_fifth_paid_out_on_wild_trading_is_a_distribution_and_no_split_5_for_4(calm, verdicts):
    adjusted_closes = calm["close"].copy()
    calm.loc[AT:, PRICES] *= 0.8
    calm.loc[AT, "volume"] *= 4
    bars, _, events = cleaned(calm.assign(adj_close=adjusted_closes), verdicts)
    assert kinds(events) == [(calm["date"][AT], "distribution")]
    assert (bars["share_factor"] == 1).all()


@pytest.mark.parametrize("times", [1.4, 0.7, 2.0, 0.5])
@pytest.mark.parametrize("along", [True, False])
@pytest.mark.parametrize("whole_bar", [True, False])
def test_a_close_wrong_for_a_day_is_a_bad_print_and_no_split(calm, times, along, whole_bar):
    adjusted_closes = calm["close"].copy()
    calm.loc[AT, PRICES if whole_bar else ["close"]] *= times
    calm.loc[AT, "high"] = calm.loc[AT, ["high", "close"]].max()
    calm.loc[AT, "low"] = calm.loc[AT, ["low", "close"]].min()
    raw = calm.assign(adj_close=calm["close"] if along else adjusted_closes)
    bars, quarantine, events = clean(raw, CLEAN)
    assert kinds(events) == [(calm["date"][AT], "bad_print")]
    assert quarantine["date"].tolist() == [calm["date"][AT]]
    assert (bars["price_factor"] == 1).all()
    assert (bars["share_factor"] == 1).all()


@pytest.mark.parametrize("verdicts", ["look_back", "off"])
@pytest.mark.parametrize("times", [1.4, 0.7, 2.0, 0.5])
def test_looking_back_a_wrong_close_is_found_out_by_its_open(calm, verdicts, times):
    adjusted_closes = calm["close"].copy()
    calm.loc[AT, "close"] *= times
    calm.loc[AT, "high"] = calm.loc[AT, ["high", "close"]].max()
    calm.loc[AT, "low"] = calm.loc[AT, ["low", "close"]].min()
    bars, _, events = cleaned(calm.assign(adj_close=adjusted_closes), verdicts)
    assert kinds(events) == [(calm["date"][AT], "bad_close")]
    assert (bars["price_factor"].round(12) == 1).all()
    assert (bars["share_factor"] == 1).all()


@pytest.mark.parametrize("times", [1.4, 0.7, 2.0, 0.5])
def test_looking_back_a_whole_wrong_bar_leaves_no_factor_behind(calm, times):
    adjusted_closes = calm["close"].copy()
    calm.loc[AT, PRICES] *= times
    bars, _, _ = cleaned(calm.assign(adj_close=adjusted_closes), "look_back")
    assert (bars["price_factor"].drop(AT).round(12) == 1).all()
    assert (bars["share_factor"].drop(AT).round(12) == 1).all()
