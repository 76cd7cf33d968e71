"""The schema of a bar: one symbol's session."""

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
