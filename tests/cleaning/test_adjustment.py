import numpy as np
import pandas as pd
import pytest
from support import markets
from support.faulty_bars import CLEAN, PRICES

from pitwise.bars.sources.sample import sample_bars
from pitwise.cleaning.adjustment import adjusted
from pitwise.cleaning.clean import clean


@pytest.fixture(scope="module")
def sample() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The sample before and after `clean`, row for row."""
    raw = sample_bars().sort_values(["symbol", "date"], ignore_index=True)
    bars, quarantine, _ = clean(raw, CLEAN)
    assert quarantine[["symbol", "low"]].values.tolist() == [["MSFT", 23.19]]  # a wick of 2008-07-01
    refused = (raw["symbol"] == "MSFT") & (raw["date"] == quarantine["date"][0])
    raw = raw[~refused].reset_index(drop=True)
    assert (raw["date"] == bars["date"]).all()
    return raw, bars


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
    bars = markets.bars(2, 5, seed=3).drop(columns=["price_factor", "segment"])
    pd.testing.assert_frame_equal(adjusted(bars, 1.25), bars.assign(price_factor=1.0))
