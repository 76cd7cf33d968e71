"""Clean bars to the daily table of indicators that Feast serves."""

from typing import Any

import numpy as np
import pandas as pd

from pitwise.bars.basis import on_first_basis
from pitwise.bars.calendar import session_close
from pitwise.features.indicators import BARS, FEATURES, NAMES, compute_into

FACTORS = ["price_factor", "share_factor"]
"""What puts a session's prices and shares on the basis of its symbol's first session."""
VALUES = [*NAMES, *FACTORS]
"""The columns of `feature_values`."""


def daily_features(bars: pd.DataFrame) -> pd.DataFrame:
    """Features of every symbol and session, each on the share basis of its own session.

    Args:
        bars: clean bars, sorted by symbol and date.

    Returns:
        `symbol`, `event_timestamp` (the session's close, UTC), the features, `price_factor`,
        `share_factor` and `segment`, row for row with `bars`; a feature without enough history is NaN.
    """
    closes = session_close(bars["date"])
    return daily_table(feature_values(bars), bars["symbol"].array, closes.array, bars["segment"].array)


def daily_table(values: np.ndarray, symbol: Any, event_timestamp: Any, segment: Any) -> pd.DataFrame:
    """The table of `daily_features`; `values` are those of `feature_values`, the others columns."""
    table = pd.DataFrame(values.T, columns=VALUES)
    table.insert(0, "symbol", symbol)
    table.insert(1, "event_timestamp", event_timestamp)
    table["segment"] = segment
    return table


def feature_values(bars: pd.DataFrame) -> np.ndarray:
    """(n_features + n_factors, n) float64 of (n,) bars, see `daily_features`.

    They are computed on the basis of the symbol's first session, which what comes later does not move,
    to the bit, and then put on the session's own.
    """
    price, shares = (bars[name].to_numpy("float64") for name in FACTORS)
    values = np.empty((len(VALUES), len(bars)))
    values[len(NAMES) :] = price, shares
    dollars = bars["close"] * bars["volume"]
    compute_into(values[: len(NAMES)], on_first_basis(bars).assign(dollars=dollars))
    for feature, row in zip(FEATURES, values[: len(NAMES)], strict=True):
        if feature in BARS:
            row[:] = bars[feature.name]
        elif feature.unit in ("price", "price_change"):
            row /= price
        elif feature.unit == "shares":
            row *= shares
    return values
