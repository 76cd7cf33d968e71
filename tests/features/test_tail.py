"""A tail of recent bars has the latest features of the whole history, whatever came before it."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pitwise.features.indicators import BY_NAME, NAMES, TAIL, compute

ENDLESS = ["rsi_14", "macd", "macd_signal", "atr_14", "adx_14"]
"""The exponential averages; every other feature is of a window."""
LOWEST, HIGHEST = np.log(0.5), np.log(5000)
STILL = 100
"""Sessions that the price may have stood still for, see `TAIL`."""


def folded(log_price: np.ndarray) -> np.ndarray:
    """A walk reflected at $0.50 and $5,000; (n,) prices."""
    width = HIGHEST - LOWEST
    return np.exp(LOWEST + np.abs((log_price - LOWEST + width) % (2 * width) - width))


def wild_bars(
    seed: int, before: int, volatility: float, df: float, idle: float, halt: int
) -> pd.DataFrame:
    """One symbol with Student-t steps.

    Args:
        before: sessions before the last `TAIL`.
        volatility: scale of a step; `df`, its degrees of freedom: below 2 the variance is infinite.
        idle: share of sessions without a trade: no volume, every price the close before.
        halt: sessions without a trade at the end.
    """
    rng = np.random.default_rng(seed)
    sessions = before + TAIL
    steps, overnight = volatility * rng.standard_t(df, (2, sessions)).clip(-50, 50)
    close = folded(rng.uniform(LOWEST, HIGHEST) + steps.cumsum())
    opening = folded(np.log(close) + overnight)
    high = np.maximum(opening, close) * (1 + volatility * rng.random(sessions))
    low = np.minimum(opening, close) / (1 + volatility * rng.random(sessions))
    volume = np.floor(np.exp(rng.normal(13, 2, sessions)))

    traded = rng.random(sessions) >= idle
    traded[sessions - halt :] = False
    last_trade = np.maximum.accumulate(np.where(traded, np.arange(sessions), 0))
    close = close[last_trade]
    prices = {"open": opening, "high": high, "low": low, "close": close}
    bars = {name: np.where(traded, values, close) for name, values in prices.items()}
    return pd.DataFrame({"symbol": "AAA", **bars, "volume": np.where(traded, volume, 0), "segment": 0})


def difference(name: str, whole: pd.Series, tail: pd.Series) -> float:
    """Of the exponential averages relative to their scale, as they may be near 0; else of the value."""
    if name not in ENDLESS:
        return 0.0 if whole[name] == tail[name] else np.inf
    return abs(whole[name] - tail[name]) / (100 if BY_NAME[name].unit == "index" else whole["close"])


def assert_tail_agrees(bars: pd.DataFrame) -> None:
    whole, tail = compute(bars).iloc[-1], compute(bars.tail(TAIL)).iloc[-1]
    assert np.isfinite(whole).all()
    assert {n: d for n in NAMES if not (d := difference(n, whole, tail)) <= 1e-6} == {}


wild = given(
    seed=st.integers(0, 10**6),
    before=st.integers(1, 1500),
    volatility=st.sampled_from([0.001, 0.01, 0.05]),
    df=st.sampled_from([1.2, 2.0, 5.0]),
    idle=st.sampled_from([0.0, 0.1, 0.5]),
    halt=st.integers(0, STILL),
)


@settings(max_examples=60, deadline=None)
@wild
def test_a_tail_has_the_latest_features_of_the_whole_history(seed, before, volatility, df, idle, halt):
    assert_tail_agrees(wild_bars(seed, before, volatility, df, idle, halt))


@settings(max_examples=60, deadline=None)
@wild
@example(seed=0, before=300, volatility=0.001, df=5.0, idle=0.5, halt=STILL)
def test_a_tail_forgets_a_fall_just_before_it(seed, before, volatility, df, idle, halt):
    bars = wild_bars(seed, before, volatility, df, idle, halt)
    bars.loc[: before - 1, ["open", "high", "low", "close"]] = [4999.0, 5000.0, 4998.0, 5000.0]
    bars.loc[: before - 1, "volume"] = 1e10
    recent = bars.loc[before:, ["open", "high", "low", "close"]]
    bars.loc[before:, ["open", "high", "low", "close"]] = recent * (0.5 / recent["close"].iloc[0])
    assert_tail_agrees(bars)


@pytest.mark.parametrize("sessions", [1, 30, 300])
def test_a_history_that_starts_within_the_tail_agrees_to_the_bit(sessions):
    bars = wild_bars(seed=3, before=700, volatility=0.02, df=2.0, idle=0.1, halt=0)
    bars.loc[len(bars) - sessions :, "segment"] = 1
    whole, tail = compute(bars).tail(1), compute(bars.tail(TAIL)).tail(1)
    assert whole.to_numpy().tobytes() == tail.to_numpy().tobytes()


def test_half_the_tail_would_not_do():
    bars = wild_bars(seed=0, before=600, volatility=0.02, df=5.0, idle=0.0, halt=0)
    bars.loc[: len(bars) - TAIL // 2 - 1, ["open", "high", "low", "close"]] *= 10_000
    whole, short = compute(bars).iloc[-1], compute(bars.tail(TAIL // 2)).iloc[-1]
    assert max(difference(name, whole, short) for name in ENDLESS) > 1e-6
