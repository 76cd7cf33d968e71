from math import log
from statistics import stdev
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import markets
from ta.momentum import RSIIndicator, StochasticOscillator
from ta.trend import MACD, ADXIndicator, EMAIndicator
from ta.volatility import AverageTrueRange, BollingerBands
from ta.volume import MFIIndicator, OnBalanceVolumeIndicator

from pitwise.features.daily import daily_features
from pitwise.features.indicators import (
    BARS,
    BY_NAME,
    FEATURES,
    INDICATORS,
    NAMES,
    PREDICTORS,
    SIGNALS,
    Unit,
    compute,
    ema,
)
from pitwise.features.rolling import MANY_RUNS

ISSUE = """
    price_change, price_change_pct, daily_return, high_low_range, high_low_pct, sma_5, sma_10, sma_20,
    price_to_sma_5, price_to_sma_20, volatility_5, volatility_20, volume_sma_20, volume_ratio,
    momentum_5, momentum_10, rsi_14
""".replace(",", " ").split()
HISTORY = dict.fromkeys(["open", "high", "low", "close", "volume"], 1) | {
    "price_change": 1,
    "price_change_pct": 1,
    "daily_return": 2,
    "high_low_range": 1,
    "high_low_pct": 1,
    "sma_5": 5,
    "sma_10": 10,
    "sma_20": 20,
    "price_to_sma_5": 5,
    "price_to_sma_20": 20,
    "volatility_5": 6,
    "volatility_20": 21,
    "volume_sma_20": 20,
    "volume_ratio": 20,
    "momentum_5": 6,
    "momentum_10": 11,
    "rsi_14": 14,
    "macd": 26,
    "macd_signal": 34,
    "bollinger_pct_b": 20,
    "bollinger_width": 20,
    "atr_14": 14,
    "obv_20": 21,
    "mfi_14": 15,
    "stochastic_k": 14,
    "stochastic_d": 16,
    "adx_14": 28,
    "momentum_2": 3,
    "momentum_3": 4,
    "momentum_20": 21,
    "momentum_120_20": 21,
    "overnight_return": 2,
    "close_location": 1,
    "close_location_5": 5,
    "high_low_pct_20": 20,
    "max_return_20": 21,
    "skewness_20": 21,
    "log_dollar_volume_20": 20,
    "log_amihud_20": 21,
}


def series(closes: list[float], volumes: list[float] | None = None) -> pd.DataFrame:
    """One symbol's bars that open one below their close and span two either way."""
    bars = pd.DataFrame({"symbol": "AAA", "close": closes}).astype({"symbol": "string"})
    bars["open"], bars["high"], bars["low"] = bars["close"] - 1, bars["close"] + 2, bars["close"] - 2
    return bars.assign(volume=volumes or [100.0] * len(closes))


def slow_mean(values: list[float]) -> float:
    total = 0.0
    for value in values:
        total += value
    return total / len(values)


def slow_rsi(closes: list[float], sessions: int) -> float:
    """Wilder's averages from the first bar on, which itself counts as no change."""
    gain = loss = 0.0
    for i in range(1, len(closes)):
        change = closes[i] - closes[i - 1]
        gain = (gain * (sessions - 1) + max(change, 0.0)) / sessions
        loss = (loss * (sessions - 1) + max(-change, 0.0)) / sessions
    return 100.0 if loss == 0 else 100 - 100 / (1 + gain / loss)


def location(bar: dict) -> float:
    """From -1 at the low to 1 at the high."""
    return 2 * (bar["close"] - bar["low"]) / (bar["high"] - bar["low"]) - 1


def slow_skewness(values: list[float]) -> float:
    mean = slow_mean(values)
    second, third = (slow_mean([(value - mean) ** power for value in values]) for power in (2, 3))
    return third / second**1.5


def slow_row(bars: list[dict]) -> dict[str, float]:
    """The indicators at the last of one symbol's bars, as the formulas read; None before history."""
    closes = [bar["close"] for bar in bars]
    volumes = [bar["volume"] for bar in bars]
    dollars = [bar["close"] * bar["volume"] for bar in bars]
    bar, n = bars[-1], len(bars)
    returns = [100 * (closes[i] / closes[i - 1] - 1) for i in range(1, n)]
    busy = n >= 20 and slow_mean(volumes[-20:]) > 0
    values = {
        "price_change": lambda: bar["close"] - bar["open"],
        "price_change_pct": lambda: 100 * (bar["close"] - bar["open"]) / bar["open"],
        "daily_return": lambda: returns[-1],
        "high_low_range": lambda: bar["high"] - bar["low"],
        "high_low_pct": lambda: 100 * (bar["high"] - bar["low"]) / bar["low"],
        "sma_5": lambda: slow_mean(closes[-5:]),
        "sma_10": lambda: slow_mean(closes[-10:]),
        "sma_20": lambda: slow_mean(closes[-20:]),
        "price_to_sma_5": lambda: closes[-1] / slow_mean(closes[-5:]),
        "price_to_sma_20": lambda: closes[-1] / slow_mean(closes[-20:]),
        "volatility_5": lambda: stdev(returns[-5:]),
        "volatility_20": lambda: stdev(returns[-20:]),
        "volume_sma_20": lambda: slow_mean(volumes[-20:]),
        "volume_ratio": lambda: volumes[-1] / slow_mean(volumes[-20:]) if busy else 1.0,
        "momentum_5": lambda: 100 * (closes[-1] / closes[-6] - 1),
        "momentum_10": lambda: 100 * (closes[-1] / closes[-11] - 1),
        "rsi_14": lambda: slow_rsi(closes, 14),
        "overnight_return": lambda: 100 * (bar["open"] / closes[-2] - 1),
        "close_location": lambda: location(bar),
        "close_location_5": lambda: slow_mean([location(each) for each in bars[-5:]]),
        "high_low_pct_20": lambda: slow_mean(
            [100 * (each["high"] - each["low"]) / each["low"] for each in bars[-20:]]
        ),
        "max_return_20": lambda: max(returns[-20:]),
        "skewness_20": lambda: slow_skewness(returns[-20:]),
        "momentum_120_20": lambda: 100 * (closes[-21] / closes[max(n - 121, 0)] - 1),
        "log_dollar_volume_20": lambda: slow_mean([log(1 + value) for value in dollars[-20:]]),
        "log_amihud_20": lambda: log(
            slow_mean(
                [abs(returns[i]) / (dollars[i] / 1e6) if dollars[i] else 0.0 for i in range(-20, 0)]
            )
        ),
    }
    for window in (2, 3, 20):
        values[f"momentum_{window}"] = lambda w=window: 100 * (closes[-1] / closes[-w - 1] - 1)
    return {name: value() if n >= HISTORY[name] else np.nan for name, value in values.items()}


def slow_table(bars: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for _, own in bars.groupby("symbol"):
        records = own.to_dict("records")
        rows += [slow_row(records[: i + 1]) for i in range(len(records))]
    return pd.DataFrame(rows)


def bits(frame: pd.DataFrame) -> list[bytes]:
    """Each row as raw bytes: equal only if every value is, NaNs included."""
    return [row.tobytes() for row in frame.to_numpy("float64")]


def test_the_features_are_the_bar_the_17_indicators_of_the_issue_ten_signals_and_the_predictors():
    assert [f.name for f in INDICATORS] == ISSUE
    assert len(ISSUE) == 17
    assert [f.name for f in BARS] == ["open", "high", "low", "close", "volume"]
    assert [f.name for f in (*SIGNALS, *PREDICTORS)] == list(HISTORY)[22:]
    assert len(SIGNALS) == 10
    assert [f.name for f in FEATURES] == NAMES == list(BY_NAME)
    assert len(NAMES) == 44


def test_every_feature_has_its_formula_unit_and_history():
    assert {f.name: f.history for f in FEATURES} == HISTORY
    assert all(f.text for f in FEATURES)
    assert {f.unit for f in FEATURES} == set(get_args(Unit))


@pytest.fixture(scope="module")
def market() -> pd.DataFrame:
    return markets.bars(2, 140, seed=5, gaps=0.05)


@pytest.fixture(scope="module")
def slow(market) -> pd.DataFrame:
    return slow_table(market)


@pytest.mark.parametrize("name", [*ISSUE, *(f.name for f in PREDICTORS)])
def test_an_indicator_equals_a_plain_loop(market, slow, name):
    np.testing.assert_allclose(compute(market)[name], slow[name], rtol=1e-9, atol=1e-9)


def of_ta(own: pd.DataFrame) -> dict[str, pd.Series]:
    """RSI and the signals of one symbol, as ta has them."""
    own = own.reset_index(drop=True)
    high, low, close, volume = own["high"], own["low"], own["close"], own["volume"]
    macd, bands = MACD(close), BollingerBands(close, 20, 2)
    stochastic = StochasticOscillator(high, low, close, 14, 3)
    obv = OnBalanceVolumeIndicator(close, volume).on_balance_volume()
    return {
        "rsi_14": RSIIndicator(close, 14).rsi(),
        "macd": macd.macd(),
        "macd_signal": macd.macd_signal(),
        "bollinger_pct_b": bands.bollinger_pband(),
        "bollinger_width": bands.bollinger_wband(),
        "atr_14": AverageTrueRange(high, low, close, 14).average_true_range(),
        "obv_20": obv.diff(20) / volume.rolling(20).sum(),
        "mfi_14": MFIIndicator(high, low, close, volume, 14).money_flow_index(),
        "stochastic_k": stochastic.stoch(),
        "stochastic_d": stochastic.stoch_signal(),
        "adx_14": ADXIndicator(high, low, close, 14).adx(),
    }


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), sessions=st.integers(45, 400))
def test_rsi_and_the_signals_equal_ta_symbol_by_symbol(seed, sessions):
    market = markets.bars(2, sessions, seed, gaps=0.1)
    for symbol, table in compute(market).groupby(market["symbol"]):
        for name, expected in of_ta(market[market["symbol"] == symbol]).items():
            first = HISTORY[name] - 1
            np.testing.assert_allclose(
                table[name].to_numpy()[first:],
                expected.to_numpy()[first:],
                rtol=1e-9,
                atol=1e-9,
                err_msg=name,
            )


@pytest.mark.parametrize("name", ["open", "high", "low", "close", "volume"])
def test_the_bar_itself_passes_unchanged(market, name):
    assert compute(market)[name].tolist() == market[name].tolist()


CLOSES = [10.0, 11.0, 12.0, 11.0, 13.0, 14.0]
WAVE = [float(c) for c in (*range(1, 21), 18)]
STEP = [10.0] * 20 + [15.0]


@pytest.mark.parametrize(
    ("name", "closes", "expected"),
    [
        ("price_change", CLOSES, 1.0),
        ("price_change_pct", CLOSES, 100 / 13),
        ("daily_return", CLOSES, 100 / 13),
        ("high_low_range", CLOSES, 4.0),
        ("high_low_pct", CLOSES, 400 / 12),
        ("sma_5", CLOSES, 12.2),
        ("price_to_sma_5", CLOSES, 14 / 12.2),
        ("momentum_5", CLOSES, 40.0),
        ("volatility_5", CLOSES, 9.662597),
        ("sma_10", WAVE, 16.2),
        ("momentum_10", WAVE, 100 * (18 / 11 - 1)),
        ("sma_20", WAVE, 227 / 20),
        ("price_to_sma_20", WAVE, 18 * 20 / 227),
        ("volatility_20", [1.0, 2.0] * 10 + [1.0], 75 * (20 / 19) ** 0.5),
        ("rsi_14", [float(c) for c in range(1, 30)], 100.0),
        ("rsi_14", [float(c) for c in range(30, 1, -1)], 0.0),
        ("rsi_14", [*map(float, range(1, 14)), 12.0], 100 * (1 - 1 / (1 + 13 * (1 - (13 / 14) ** 12)))),
        ("macd", [10.0] * 26 + [20.0], 10 * (2 / 13 - 2 / 27)),
        ("macd_signal", [10.0] * 33 + [20.0], 10 * (2 / 13 - 2 / 27) / 5),
        ("bollinger_pct_b", [1.0, 2.0] * 10, 0.75),
        ("bollinger_pct_b", [10.0] * 19 + [20.0], 0.5 + 9.5 / (4 * 4.75**0.5)),
        ("bollinger_width", [1.0, 2.0] * 10, 100 * 2 / 1.5),
        ("atr_14", [float(c) for c in range(10, 40)], 4.0),
        ("atr_14", [*map(float, range(10, 40)), 49.0], (13 * 4 + 12) / 14),
        ("obv_20", [float(c) for c in range(10, 31)], 1.0),
        ("obv_20", [*map(float, range(10, 25)), *map(float, range(23, 17, -1))], (14 - 6) / 20),
        ("mfi_14", [float(c) for c in range(10, 25)], 100.0),
        ("mfi_14", [10.0] * 13 + [20.0, 10.0], 100 * 20 / 30),
        ("stochastic_k", [float(c) for c in range(10, 24)], 100 * 15 / 17),
        ("stochastic_d", [*map(float, range(10, 25)), 23.0], 100 * (15 / 17 + 15 / 17 + 13 / 16) / 3),
        ("adx_14", [float(c) for c in range(10, 40)], 100.0),
        (
            "adx_14",
            [10.0, 11.0] * 14,
            100 / 14 * sum((1 - (-13 / 14) ** k) / 27 for k in range(14)),
        ),
        ("momentum_2", CLOSES, 100 * (14 / 11 - 1)),
        ("momentum_120_20", [10.0, 20.0, *[50.0] * 99, 40.0, *[60.0] * 20], 100.0),
        ("momentum_120_20", [10.0, *[50.0] * 9, 40.0, *[60.0] * 20], 300.0),
        ("overnight_return", [*CLOSES, 12.0], 100 * (11 / 14 - 1)),
        ("high_low_pct_20", STEP, (19 * 50 + 400 / 13) / 20),
        ("max_return_20", STEP, 50.0),
        ("max_return_20", [*STEP, *[15.0] * 20], 0.0),
        ("skewness_20", STEP, 18 / 19**0.5),
        ("log_dollar_volume_20", [2.0, *STEP[1:]], (19 * log(1001) + log(1501)) / 20),
        ("log_amihud_20", STEP, log(50 / 0.0015 / 20)),
    ],
)
def test_an_indicator_worked_out_by_hand(name, closes, expected):
    assert compute(series(closes))[name].iloc[-1] == pytest.approx(expected, rel=1e-6)


def test_volume_indicators_worked_out_by_hand():
    table = compute(series([10.0] * 21, volumes=[100.0] * 20 + [500.0]))
    assert table["volume_sma_20"].tolist()[-2:] == [100.0, 120.0]
    assert table["volume_ratio"].tolist()[-2:] == pytest.approx([1.0, 500 / 120])


def test_the_close_lies_between_the_low_and_the_high():
    bars = series([8.0, 12.0, 9.0, 10.0, 10.0]).assign(low=8.0, high=[12.0, 12.0, 12.0, 12.0, 16.0])
    table = compute(bars)
    assert table["close_location"].tolist() == [-1.0, 1.0, -0.5, 0.0, -0.5]
    assert table["close_location_5"].iloc[-1] == -0.2


@pytest.mark.parametrize("feature", FEATURES, ids=NAMES)
def test_only_the_first_rows_of_a_symbol_lack_history(market, feature):
    values = compute(market)[feature.name]
    row = market.groupby("symbol").cumcount()
    assert values.isna().tolist() == (row < feature.history - 1).tolist()


@pytest.mark.parametrize("feature", FEATURES, ids=NAMES)
def test_the_shortest_history_that_will_do_has_one_value_and_a_longer_one_the_same(market, feature):
    own = market[market["symbol"] == "S001"]
    short, longer = (compute(own.head(feature.history + more))[feature.name] for more in (0, 9))
    assert short.isna().tolist() == [True] * (feature.history - 1) + [False]
    assert short.iloc[-1] == longer.iloc[feature.history - 1]


def test_a_symbol_shorter_than_the_history_is_all_nan_and_lends_nothing():
    market = markets.bars(3, 40, seed=1)
    short = market[(market["symbol"] != "S001") | (market.index < 44)]
    table = compute(short)[(short["symbol"] == "S001").to_numpy()]
    assert len(table) == 4
    assert all(table[f.name].isna().all() == (f.history > 4) for f in FEATURES)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_market_is_its_symbols_one_by_one_bit_for_bit(seed):
    market = markets.bars(4, 130, seed, gaps=0.1, lives=True)
    alone = pd.concat([compute(own) for _, own in market.groupby("symbol")] or [compute(market)])
    assert bits(compute(market)) == bits(alone)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    cut=st.integers(1, 89),
    scale=st.floats(1e-3, 1e3),
    keep=st.floats(0, 1),
)
def test_changing_the_future_moves_no_past_value_by_a_bit(seed, cut, scale, keep):
    market = markets.bars(3, 90, seed, gaps=0.1)
    horizon = market["date"].drop_duplicates().sort_values().iloc[cut - 1]
    past = (market["date"] <= horizon).to_numpy()
    changed = market.copy()
    changed.loc[~past, ["open", "high", "low", "close", "volume"]] *= scale
    changed = changed[past | (np.random.default_rng(seed).random(len(market)) < keep)]
    now = compute(changed)[(changed["date"] <= horizon).to_numpy()]
    assert bits(now) == bits(compute(market)[past])


def test_the_values_do_not_depend_on_the_tables_index(market):
    relabelled = market.set_axis(np.arange(len(market))[::-1] * 3)
    table = compute(relabelled)
    assert bits(table) == bits(compute(market))
    assert table.index.tolist() == list(range(len(market)))


@pytest.mark.parametrize("spike", [1.0, 1e12])
def test_a_price_that_stands_still_without_volume_stays_finite(spike):
    bars = series([7.0] * 60, volumes=[spike] * 10 + [0.0] * 50)
    table = compute(bars)
    whole = table.iloc[33:]
    assert np.isfinite(whole.to_numpy()).all()
    assert (whole[["daily_return", "volatility_5", "volatility_20", "momentum_10"]] == 0).all(axis=None)
    assert (whole[["price_to_sma_5", "price_to_sma_20"]] == 1).all(axis=None)
    idle = table.iloc[30:]
    assert (idle["volume_sma_20"] == 0).all()
    assert (idle["volume_ratio"] == 1).all()
    assert (table["volume_ratio"].iloc[20:29] == 0).all()
    assert (whole["rsi_14"] == 100).all()
    assert (idle["log_dollar_volume_20"] == 0).all()
    assert (whole["log_amihud_20"] == np.log(1e-6)).all()


def flat(sessions: int, price: float, volume: float) -> pd.DataFrame:
    """One symbol whose every price is the same."""
    bars = pd.DataFrame({"symbol": ["AAA"] * sessions, "volume": volume})
    return bars.assign(open=price, high=price, low=price, close=price)


FLAT = {
    "macd": 0,
    "macd_signal": 0,
    "bollinger_pct_b": 0.5,
    "bollinger_width": 0,
    "atr_14": 0,
    "mfi_14": 50,
    "stochastic_k": 50,
    "stochastic_d": 50,
    "adx_14": 0,
    "rsi_14": 100,
    "momentum_120_20": 0,
    "close_location_5": 0,
    "high_low_pct_20": 0,
    "max_return_20": 0,
    "skewness_20": 0,
    "log_amihud_20": np.log(1e-6),
}


@pytest.mark.parametrize(("volume", "obv"), [(0.0, 0.0), (300.0, 1.0)])
@pytest.mark.parametrize("price", [0.1, 7.0, 4321.77])
def test_a_market_where_high_is_low_has_stated_values(price, volume, obv):
    whole = compute(flat(80, price, volume)).iloc[33:]
    assert np.isfinite(whole.to_numpy()).all()
    for name, value in {**FLAT, "obv_20": obv}.items():
        assert whole[name].to_numpy() == pytest.approx(value, abs=1e-12 * price), name


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), idle=st.floats(0, 1))
def test_every_feature_is_finite_from_its_history_on(seed, idle):
    market = markets.bars(2, 80, seed)
    still = np.random.default_rng(seed).random(len(market)) < idle
    market.loc[still, "volume"] = 0
    market.loc[still, ["open", "high", "low", "close"]] = 0.07
    values = compute(market).to_numpy()
    row = market.groupby("symbol").cumcount().to_numpy()
    for feature, column in zip(FEATURES, values.T, strict=True):
        assert np.isfinite(column[row >= feature.history - 1]).all(), feature.name


def test_a_history_starts_anew_at_each_segment():
    market = markets.bars(2, 120, seed=3)
    row = market.groupby("symbol").cumcount()
    market["segment"] = np.select([row < 50, row < 60], [0, 1], 2).astype("int32")
    parts = [compute(own) for _, own in market.groupby(["symbol", "segment"])]
    assert [len(part) for part in parts] == [50, 10, 60] * 2
    assert bits(compute(market)) == bits(pd.concat(parts))


def test_two_symbols_of_the_same_segment_share_no_history():
    market = markets.bars(2, 40, seed=3).assign(segment=4)
    assert bits(compute(market)) == bits(compute(market.drop(columns="segment")))


def test_volatility_forgets_a_glitch_that_left_its_window():
    closes = [100.0 + i % 3 for i in range(80)]
    glitched = [*closes[:30], 1e6, *closes[31:]]
    calm, after = (compute(series(c))["volatility_20"].to_numpy()[52:] for c in (closes, glitched))
    np.testing.assert_allclose(after, calm, rtol=1e-4)


def test_daily_features_carry_symbol_and_close_of_each_bar(market):
    daily = daily_features(market.set_axis(np.arange(len(market)) + 7))
    assert daily.columns.tolist() == [
        "symbol",
        "event_timestamp",
        *NAMES,
        "price_factor",
        "share_factor",
        "segment",
    ]
    assert daily["symbol"].tolist() == market["symbol"].tolist()
    assert daily["event_timestamp"].dt.date.tolist() == market["date"].dt.date.tolist()
    assert set(daily["event_timestamp"].dt.hour) == {17, 20, 21}  # half a day, summer, winter
    assert bits(daily[NAMES]) == bits(compute(market))


def test_exponential_means_of_many_runs_are_those_of_ta_to_the_bit():
    """Runs that begin late, stand still and end early, as where one exponential mean is of another."""
    runs = np.random.default_rng(5).normal(size=(MANY_RUNS, 120))
    runs[:, :25] = np.nan
    runs[10:20, 40:60] = 7.0
    runs[-10:, 100:] = np.nan
    alone = np.vstack([EMAIndicator(pd.Series(run), 9).ema_indicator() for run in runs])
    there = ~np.isnan(runs)
    assert ema(runs, 9)[there].tobytes() == alone[there].tobytes()
    assert np.isnan(ema(runs, 9)[:, :33]).all()
