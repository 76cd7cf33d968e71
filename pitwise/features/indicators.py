"""The table of features: each one's name, formula, unit and the history it needs.

The Feast fields, the docs page, the models' scaling and the tests all come from this table.
`ta` is the definition wherever it has the indicator, and what computes it where it is quick. Where it
loops in Python (ATR, MFI, ADX), wraps a few divisions in pandas (returns, rates of change, RSI), or
keeps a running sum that still carries the rounding of values long gone (pandas' rolling means and
deviations), the same formula stands here over the window's own values.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import pandas as pd
from ta.utils import _ema as ta_ema

from pitwise.features.rolling import (
    MANY_RUNS,
    highest,
    lowest,
    share,
    skewness,
    smoothed,
    std,
    total,
    wilder,
)

Unit = Literal["price", "price_change", "shares", "percent", "ratio", "index", "log"]
"""How a feature scales: with the price level, with share counts, or with neither. A log is of dollars
traded."""
SCALE_FREE: tuple[Unit, ...] = ("percent", "ratio", "index", "log")

Runs = Mapping[str, np.ndarray]
"""The bars' columns, `dollars` traded and the features above, (n_runs, longest run) each.

A run is one symbol's sessions without a break, in order of date; shorter ones end in NaN.
"""
AT_ONCE = 2**15
"""Values of a column that are computed with at a time; a run longer than that is on its own."""

TAIL = 500
"""Sessions of recent bars that give the same latest features as the whole history.

Most features are of a window of at most 121 sessions: these agree to the bit. RSI, MACD, ATR and ADX
never quite forget. Wilder's average is the slowest: 500 sessions leave 8e-17 of what came before, 3e-15
in ADX, an average of averages. They agree to 1e-6 of their scale (the close; 100 for an index), even
after a fall from $5,000 to $0.50. One exception: where the price stood still for the last 100 sessions
and more, RSI and ADX stay those of the moves before, which may lie outside the tail.
"""


@dataclass(frozen=True)
class Feature:
    """One column."""

    name: str
    unit: Unit
    history: int
    """Bars needed, the session's own included, before the value is defined."""
    text: str
    formula: Callable[[Runs], np.ndarray]
    """(n_runs, n) values, the last of them at the last session; before `history` they are not read."""


def _bar(name: str, unit: Unit, text: str) -> Feature:
    return Feature(name, unit, 1, text, lambda run: run[name])


def _sma(column: str, name: str, unit: Unit, window: int) -> Feature:
    text = f"mean {column} of {window} sessions (equals ta SMAIndicator)"
    return Feature(name, unit, window, text, lambda run: total(run[column], window) / window)


def _price_to_sma(window: int) -> Feature:
    name = f"sma_{window}"
    return Feature(
        f"price_to_{name}", "ratio", window, f"close / {name}", lambda run: run["close"] / run[name]
    )


def _volatility(window: int) -> Feature:
    text = f"sample standard deviation of {window} daily returns"
    return Feature(
        f"volatility_{window}",
        "percent",
        window + 1,
        text,
        lambda run: std(run["daily_return"], window, ddof=1),
    )


def _momentum(window: int) -> Feature:
    text = f"100 * (close / close {window} sessions ago - 1) (equals ta ROCIndicator)"
    return Feature(
        f"momentum_{window}",
        "percent",
        window + 1,
        text,
        lambda run: _rate_of_change(run["close"], window),
    )


def _rate_of_change(close: np.ndarray, window: int) -> np.ndarray:
    return (close[:, window:] - close[:, :-window]) / close[:, :-window] * 100


def ema(values: np.ndarray, window: int) -> np.ndarray:
    """Each run's exponential mean so far, NaN until `window` values have come."""
    if len(values) < MANY_RUNS:
        # What ta's EMAIndicator calls with one series takes a column a run as well, seven times as fast.
        return ta_ema(pd.DataFrame(values.T), window).to_numpy().T
    new = 2 / (window + 1)
    old = 1 - new
    means = np.array(values.T, order="C")
    for before, now in pairwise(means):  # as pandas does, to the bit
        begun = (now != before) & ~np.isnan(before)
        now[begun] = (old * before[begun] + new * now[begun]) / (old + new)
    means[np.cumsum(~np.isnan(values.T), axis=0) < window] = np.nan
    return means.T


def _true_range(run: Runs) -> np.ndarray:
    """Of every session; the run's first has no previous close, so its own range."""
    before = np.hstack([run["close"][:, :1], run["close"][:, :-1]])
    return np.maximum(run["high"], before) - np.minimum(run["low"], before)


def _momentum_120_20(run: Runs) -> np.ndarray:
    close = run["close"]
    before = np.hstack([np.repeat(close[:, :1], 100, axis=1), close[:, :-100]])[:, : close.shape[1]]
    return 100 * (close[:, :-20] / before[:, :-20] - 1)


def _amihud(run: Runs) -> np.ndarray:
    millions = run["dollars"][:, 1:] / 1e6
    illiquidity = share(np.abs(run["daily_return"][:, 1:]), millions, otherwise=0)
    return np.log(np.maximum(total(illiquidity, 20) / 20, 1e-6))


def _close_location(run: Runs) -> np.ndarray:
    above, below = run["close"] - run["low"], run["high"] - run["close"]
    return share(above - below, run["high"] - run["low"], otherwise=0)


def _rsi(run: Runs) -> np.ndarray:
    moves = np.diff(run["close"])
    # As ta's, from the first move on, before which there was none.
    none = np.zeros((len(moves), 1))
    rising, falling = (smoothed(none, np.maximum(side, 0), 14) for side in (moves, -moves))
    return 100 * share(rising, rising + falling, otherwise=1)


def _obv(run: Runs) -> np.ndarray:
    close, volume = run["close"], run["volume"][:, 1:]
    signed = np.where(close[:, 1:] < close[:, :-1], -volume, volume)
    return share(total(signed, 20), total(volume, 20), otherwise=0)


def _mfi(run: Runs) -> np.ndarray:
    typical = (run["high"] + run["low"] + run["close"]) / 3
    flow, move = (typical * run["volume"])[:, 1:], np.diff(typical)
    rising, falling = (total(np.where(side, flow, 0), 14) for side in (move > 0, move < 0))
    return 100 * share(rising, rising + falling, otherwise=0.5)


def _stochastic(run: Runs) -> np.ndarray:
    bottom, top = lowest(run["low"], 14), highest(run["high"], 14)
    return 100 * share(run["close"][:, 13:] - bottom, top - bottom, otherwise=0.5)


def _adx(run: Runs) -> np.ndarray:
    up, down = np.diff(run["high"]), -np.diff(run["low"])
    plus = wilder(np.where((up > down) & (up > 0), up, 0), 14)
    minus = wilder(np.where((down > up) & (down > 0), down, 0), 14)
    # ta divides both by the true range first, which the ratio takes out again.
    return wilder(100 * share(np.abs(plus - minus), plus + minus, otherwise=0), 14)


BARS = (
    _bar("open", "price", "first price of the session"),
    _bar("high", "price", "highest price of the session"),
    _bar("low", "price", "lowest price of the session"),
    _bar("close", "price", "last price of the session"),
    _bar("volume", "shares", "shares traded in the session"),
)
"""The bar itself, as it was traded."""

INDICATORS = (
    Feature("price_change", "price_change", 1, "close - open", lambda run: run["close"] - run["open"]),
    Feature(
        "price_change_pct",
        "percent",
        1,
        "100 * (close - open) / open",
        lambda run: 100 * run["price_change"] / run["open"],
    ),
    Feature(
        "daily_return",
        "percent",
        2,
        "100 * (close / previous close - 1) (equals ta DailyReturnIndicator)",
        lambda run: 100 * (run["close"][:, 1:] / run["close"][:, :-1] - 1),
    ),
    Feature("high_low_range", "price_change", 1, "high - low", lambda run: run["high"] - run["low"]),
    Feature(
        "high_low_pct",
        "percent",
        1,
        "100 * (high - low) / low",
        lambda run: 100 * run["high_low_range"] / run["low"],
    ),
    _sma("close", "sma_5", "price", 5),
    _sma("close", "sma_10", "price", 10),
    _sma("close", "sma_20", "price", 20),
    _price_to_sma(5),
    _price_to_sma(20),
    _volatility(5),
    _volatility(20),
    _sma("volume", "volume_sma_20", "shares", 20),
    Feature(
        "volume_ratio",
        "ratio",
        20,
        "volume / volume_sma_20; 1 where nothing traded for 20 sessions",
        lambda run: share(run["volume"], run["volume_sma_20"], otherwise=1),
    ),
    _momentum(5),
    _momentum(10),
    Feature(
        "rsi_14",
        "index",
        14,
        "Wilder's relative strength index over 14 sessions, 0 to 100; 100 where the close never fell "
        "(equals ta RSIIndicator)",
        _rsi,
    ),
)
"""The 17 indicators that turn the file's 7 columns into 24."""

SIGNALS = (
    Feature(
        "macd",
        "price_change",
        26,
        "exponential mean close of 12 sessions less that of 26 (ta MACD)",
        lambda run: ema(run["close"], 12) - ema(run["close"], 26),
    ),
    Feature(
        "macd_signal",
        "price_change",
        34,
        "exponential mean of 9 sessions' macd (ta MACD)",
        lambda run: ema(run["macd"], 9),
    ),
    Feature(
        "bollinger_pct_b",
        "ratio",
        20,
        "where the close stands from the lower band (0) to the upper (1), 2 population deviations "
        "about sma_20; 0.5 where 20 closes are equal (equals ta BollingerBands)",
        lambda run: (
            0.5 + share((run["close"] - run["sma_20"])[:, 19:], 4 * std(run["close"], 20, ddof=0), 0)
        ),
    ),
    Feature(
        "bollinger_width",
        "percent",
        20,
        "100 * (upper band - lower band) / sma_20; 0 where 20 closes are equal "
        "(equals ta BollingerBands)",
        lambda run: 100 * 4 * std(run["close"], 20, ddof=0) / run["sma_20"][:, 19:],
    ),
    Feature(
        "atr_14",
        "price_change",
        14,
        "Wilder's average true range over 14 sessions; 0 where nothing moved "
        "(equals ta AverageTrueRange)",
        lambda run: wilder(_true_range(run), 14),
    ),
    Feature(
        "obv_20",
        "ratio",
        21,
        "change of the on-balance volume (ta OnBalanceVolumeIndicator) over 20 sessions / shares traded "
        "in them, -1 to 1; 0 where none were",
        _obv,
    ),
    Feature(
        "mfi_14",
        "index",
        15,
        "money flow index over 14 sessions, 0 to 100; 50 where no money flowed (equals ta MFIIndicator)",
        _mfi,
    ),
    Feature(
        "stochastic_k",
        "index",
        14,
        "where the close stands from the lowest low (0) to the highest high (100) of 14 sessions; "
        "50 where they are equal (equals ta StochasticOscillator)",
        _stochastic,
    ),
    Feature(
        "stochastic_d",
        "index",
        16,
        "mean stochastic_k of 3 sessions (equals ta StochasticOscillator)",
        lambda run: total(run["stochastic_k"], 3) / 3,
    ),
    Feature(
        "adx_14",
        "index",
        28,
        "Wilder's average directional index over 14 sessions, 0 to 100; 0 where highs and lows stand "
        "still (equals ta ADXIndicator)",
        _adx,
    ),
)
"""Ten more of trend, bands, range and volume."""

PREDICTORS = (
    _momentum(2),
    _momentum(3),
    _momentum(20),
    Feature(
        "momentum_120_20",
        "percent",
        21,
        "100 * (close 20 sessions ago / close 120 sessions ago - 1), from the first close on where the "
        "history is shorter",
        _momentum_120_20,
    ),
    Feature(
        "overnight_return",
        "percent",
        2,
        "100 * (open / previous close - 1)",
        lambda run: 100 * (run["open"][:, 1:] / run["close"][:, :-1] - 1),
    ),
    Feature(
        "close_location",
        "ratio",
        1,
        "where the close stands from the low (-1) to the high (1); 0 where they are equal",
        _close_location,
    ),
    Feature(
        "close_location_5",
        "ratio",
        5,
        "mean close_location of 5 sessions",
        lambda run: total(run["close_location"], 5) / 5,
    ),
    Feature(
        "high_low_pct_20",
        "percent",
        20,
        "mean high_low_pct of 20 sessions",
        lambda run: total(run["high_low_pct"], 20) / 20,
    ),
    Feature(
        "max_return_20",
        "percent",
        21,
        "largest of 20 daily returns",
        lambda run: highest(run["daily_return"], 20),
    ),
    Feature(
        "skewness_20",
        "ratio",
        21,
        "skewness of 20 daily returns, third moment / cube of the population deviation; 0 where they "
        "are equal",
        lambda run: skewness(run["daily_return"], 20),
    ),
    Feature(
        "log_dollar_volume_20",
        "log",
        20,
        "mean log(1 + dollars traded, close * volume) of 20 sessions",
        lambda run: total(np.log1p(run["dollars"]), 20) / 20,
    ),
    Feature(
        "log_amihud_20",
        "log",
        21,
        "log of the mean absolute daily return per million dollars traded, of 20 sessions; one without "
        "trades counts 0; at least log(1e-6)",
        _amihud,
    ),
)
"""What has ranked returns in the literature: reversal and momentum over several spans (Jegadeesh 1990,
Jegadeesh and Titman 1993), the night's return, the close within the range, the largest return (Bali,
Cakici and Whitelaw 2011), skewness, size and illiquidity (Amihud 2002)."""

FEATURES = (*BARS, *INDICATORS, *SIGNALS, *PREDICTORS)
NAMES = [f.name for f in FEATURES]
BY_NAME = {f.name: f for f in FEATURES}


def symbol_edges(symbol: pd.Series) -> np.ndarray:
    """Where each symbol begins, and the end of the last one; (n_symbols + 1,)."""
    names = symbol.to_numpy(object)
    is_edge = np.ones(len(names) + 1, bool)
    is_edge[1:-1] = names[1:] != names[:-1]
    return np.flatnonzero(is_edge)


def _run_edges(bars: pd.DataFrame) -> list[int]:
    """The first row of each run, and the end of the last one."""
    edges = symbol_edges(bars["symbol"])
    if "segment" in bars:
        edges = np.union1d(edges, np.flatnonzero(np.diff(bars["segment"])) + 1)
    return edges.tolist()


def _batches(edges: list[int]) -> Iterator[np.ndarray]:
    """The edges of some consecutive runs at a time, `AT_ONCE` values with their padding or less."""
    first = longest = 0
    for i, (start, end) in enumerate(pairwise(edges)):
        longest = max(longest, end - start)
        if i > first and longest * (i + 1 - first) > AT_ONCE:
            yield np.array(edges[first : i + 1])
            first, longest = i, end - start
    yield np.array(edges[first:])


def compute(bars: pd.DataFrame) -> pd.DataFrame:
    """The features of every row. A history starts anew with each symbol and each of its segments.

    Args:
        bars: (n,) rows sorted by symbol and date: symbol, open, high, low, close, volume and, where
            histories break, segment; where prices or volumes are not those traded, `dollars`, the close
            times the volume that were.

    Returns:
        (n, n_features) float64 in the order of `FEATURES`; NaN where a feature lacks its history.
    """
    table = np.empty((len(FEATURES), len(bars)))
    compute_into(table, bars)
    return pd.DataFrame(table.T, columns=NAMES)


def compute_into(table: np.ndarray, bars: pd.DataFrame) -> None:
    """As `compute`, into (n_features, n) float64 that there is already."""
    columns = {f.name: bars[f.name].to_numpy("float64") for f in BARS}
    dollars = bars.get("dollars", bars["close"] * bars["volume"])
    columns["dollars"] = dollars.to_numpy("float64")
    for edges in _batches(_run_edges(bars)):
        rows, lengths = slice(edges[0], edges[-1]), np.diff(edges)
        is_bar = np.arange(lengths.max(initial=0)) < lengths[:, None]
        run = {}
        for name, values in columns.items():
            run[name] = np.full(is_bar.shape, np.nan)
            run[name][is_bar] = values[rows]
        for feature, row in zip(FEATURES, table[:, rows], strict=True):
            found = np.full(is_bar.shape, np.nan)
            defined = found[:, feature.history - 1 :]
            if defined.size:
                defined[:] = feature.formula(run)[:, -defined.shape[1] :]
            run[feature.name] = found
            row[:] = found[is_bar]
