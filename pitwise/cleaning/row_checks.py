"""Checks of a bar by itself and of two bars of one session; the first that a row fails is its reason."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from pitwise.bars.calendar import has_closed
from pitwise.bars.schema import ADJUSTED_CLOSE, COLUMNS, PRICES

Check = Callable[[pd.DataFrame], np.ndarray]
CHECKS: dict[str, Check] = {
    "missing": lambda b: (
        b[_needed(b)].isna().any(axis=1).to_numpy() | (b["symbol"].fillna("") == "").to_numpy()
    ),
    # A bar of a session that is still open, or yet to come, is no bar.
    "not_a_session": lambda b: ~has_closed(b["date"], pd.Timestamp.now("UTC")),
    "non_positive": lambda b: (
        ~(b[_prices(b)] > 0).all(axis=1).to_numpy() | np.isinf(b[_needed(b)[2:]]).any(axis=1).to_numpy()
    ),
    "negative_volume": lambda b: (b["volume"] < 0).to_numpy(),
    "high_below_low": lambda b: (b["high"] < b["low"]).to_numpy(),
    "open_outside_range": lambda b: ~b["open"].between(b["low"], b["high"]).to_numpy(),
    "close_outside_range": lambda b: ~b["close"].between(b["low"], b["high"]).to_numpy(),
    "duplicate": lambda b: b.duplicated(_needed(b)).to_numpy(),
    # Two bars of one session that differ: which one is right is unknown, so neither is kept.
    "conflicting_duplicate": lambda b: b.duplicated(["symbol", "date"], keep=False).to_numpy(),
}
"""Name of each row check and the rows it refuses; a row is quarantined by the first it fails."""


def _needed(bars: pd.DataFrame) -> list[str]:
    return [*COLUMNS, *([ADJUSTED_CLOSE] if ADJUSTED_CLOSE in bars else [])]


def _prices(bars: pd.DataFrame) -> list[str]:
    return [c for c in _needed(bars) if c in (*PRICES, ADJUSTED_CLOSE)]


def reasons(bars: pd.DataFrame) -> pd.Series:
    """The name of the first row check that each row fails, or an empty string; (n,) of str."""
    reason = pd.Series("", index=bars.index)
    for name, refuses in CHECKS.items():
        good = bars[reason == ""] if (reason != "").any() else bars
        reason.loc[good.index[refuses(good)]] = name
    return reason
