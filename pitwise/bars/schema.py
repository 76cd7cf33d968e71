"""The schema of a bar: one symbol's session."""

import numpy as np
import pandas as pd

PRICES = ["open", "high", "low", "close"]
"""US dollars a share."""
NUMBERS = [*PRICES, "volume"]
BAR_KEY = ["symbol", "date"]
COLUMNS = [*BAR_KEY, *NUMBERS]
ADJUSTED_CLOSE = "adj_close"
"""Optional: the close adjusted by the vendor for later splits and dividends."""


def in_order(bars: pd.DataFrame) -> pd.DataFrame:
    """The bars with each symbol's together, oldest first; rows keep their index."""
    return bars.sort_values(BAR_KEY)


def came_late(rows: pd.DataFrame, known: str) -> np.ndarray:
    """(n,) bool: rows that became known after a later row of their symbol.

    Args:
        rows: `symbol` and the instant `known`, in order of symbol and session.
    """
    instants = rows[known].to_numpy("datetime64[us]").astype("int64")
    backwards = pd.Series(instants[::-1]).groupby(pd.factorize(rows["symbol"])[0][::-1], sort=False)
    return instants > backwards.cummin().to_numpy()[::-1]
