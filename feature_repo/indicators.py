"""The table of features: each one's name, formula, unit and the history it needs.

The Feast fields, the docs page, the models' scaling and the tests all come from this table.
`ta` is the definition wherever it has the indicator.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import pandas as pd
from rich.progress import track
from ta.momentum import ROCIndicator, RSIIndicator
from ta.others import DailyReturnIndicator
from ta.trend import SMAIndicator

Unit = Literal["price", "price_change", "shares", "percent", "ratio", "index"]
"""How a feature scales: with the price level, with share counts, or with neither."""
SCALE_FREE: tuple[Unit, ...] = ("percent", "ratio", "index")


@dataclass(frozen=True)
class Feature:
    """One column.

    Without `over`, the formula is of one row: it takes the whole table's columns by name, the bar
    and the features above it. With `over`, it looks back: it takes these columns of one symbol, in
    order of date.
    """

    name: str
    unit: Unit
    history: int
    """Bars needed, the session's own included, before the value is defined."""
    text: str
    formula: Callable[..., pd.Series]
    over: tuple[str, ...] = ()


def _bar(name: str, unit: Unit, text: str) -> Feature:
    return Feature(name, unit, 1, text, lambda t: t[name])


def _sma(column: str, name: str, unit: Unit, window: int) -> Feature:
    text = f"mean {column} of {window} sessions (ta SMAIndicator)"
    return Feature(
        name, unit, window, text, lambda x: SMAIndicator(x, window).sma_indicator(), (column,)
    )


def _price_to_sma(window: int) -> Feature:
    name = f"sma_{window}"
    return Feature(
        f"price_to_{name}", "ratio", window, f"close / {name}", lambda t: t["close"] / t[name]
    )


def _volatility(window: int) -> Feature:
    text = f"sample standard deviation of {window} daily returns"
    return Feature(
        f"volatility_{window}",
        "percent",
        window + 1,
        text,
        lambda r: r.rolling(window).std(),
        ("daily_return",),
    )


def _momentum(window: int) -> Feature:
    text = f"100 * (close / close {window} sessions ago - 1) (ta ROCIndicator)"
    return Feature(
        f"momentum_{window}",
        "percent",
        window + 1,
        text,
        lambda c: ROCIndicator(c, window).roc(),
        ("close",),
    )


BARS = (
    _bar("open", "price", "first price of the session"),
    _bar("high", "price", "highest price of the session"),
    _bar("low", "price", "lowest price of the session"),
    _bar("close", "price", "last price of the session"),
    _bar("volume", "shares", "shares traded in the session"),
)
"""The bar itself, on the share basis of the symbol's last bar."""

INDICATORS = (
    Feature("price_change", "price_change", 1, "close - open", lambda t: t["close"] - t["open"]),
    Feature(
        "price_change_pct",
        "percent",
        1,
        "100 * (close - open) / open",
        lambda t: 100 * t["price_change"] / t["open"],
    ),
    Feature(
        "daily_return",
        "percent",
        2,
        "100 * (close / previous close - 1) (ta DailyReturnIndicator)",
        lambda c: DailyReturnIndicator(c).daily_return(),
        ("close",),
    ),
    Feature("high_low_range", "price_change", 1, "high - low", lambda t: t["high"] - t["low"]),
    Feature(
        "high_low_pct",
        "percent",
        1,
        "100 * (high - low) / low",
        lambda t: 100 * t["high_low_range"] / t["low"],
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
        lambda t: (t["volume"] / t["volume_sma_20"]).mask(t["volume_sma_20"] <= 0, 1.0),
    ),
    _momentum(5),
    _momentum(10),
    Feature(
        "rsi_14",
        "index",
        14,
        "Wilder's relative strength index over 14 sessions, 0 to 100 (ta RSIIndicator)",
        lambda c: RSIIndicator(c, 14).rsi(),
        ("close",),
    ),
)
"""The 17 indicators that turn the file's 7 columns into 24."""

FEATURES = (*BARS, *INDICATORS)
NAMES = [f.name for f in FEATURES]
BY_NAME = {f.name: f for f in FEATURES}


def compute(bars: pd.DataFrame, progress: bool = False) -> pd.DataFrame:
    """The features of every row.

    Args:
        bars: (n,) rows sorted by symbol and date: symbol, open, high, low, close, volume.
        progress: show a bar while at it.

    Returns:
        (n, 22) float64 in the order of `FEATURES`; NaN where a feature lacks its history.
    """
    bars = bars.reset_index(drop=True)
    row_of_symbol = bars.groupby("symbol", sort=False).cumcount().to_numpy()
    starts = [*np.flatnonzero(row_of_symbol == 0), len(bars)]
    columns: dict[str, pd.Series] = {f.name: bars[f.name] for f in BARS}
    for feature in track(FEATURES, "indicators", transient=True, disable=not progress):
        if feature.over:
            inputs = [columns[name] for name in feature.over]
            parts = [
                feature.formula(*(column.iloc[a:b] for column in inputs)).to_numpy()
                for a, b in pairwise(starts)
            ]
            values = np.concatenate(parts)
        else:
            values = feature.formula(columns).to_numpy("float64")
        # The history is cut here, once, whatever a library puts into the first rows of its answer.
        columns[feature.name] = pd.Series(np.where(row_of_symbol < feature.history - 1, np.nan, values))
    return pd.DataFrame(columns)
