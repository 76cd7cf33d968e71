"""Returns of closes."""

import numpy as np
import pandas as pd


def returns(bars: pd.DataFrame) -> pd.Series:
    """Simple return of each clean bar on the one before, NaN at a segment's first; (n,) fraction."""
    return bars["close"] / _close_before(bars) - 1


def log_returns(bars: pd.DataFrame) -> pd.Series:
    """Log return of each clean bar on the one before, NaN at a segment's first; (n,)."""
    return np.log(bars["close"] / _close_before(bars))


def _close_before(bars: pd.DataFrame) -> pd.Series:
    return bars.groupby(["symbol", "segment"])["close"].shift()
