"""Clean bars to the daily table of indicators that Feast serves."""

import pandas as pd

from pitwise.bars.calendar import session_close
from pitwise.features.indicators import compute


def daily_features(bars: pd.DataFrame, progress: bool = False) -> pd.DataFrame:
    """Features of every symbol and session.

    Args:
        bars: clean bars, sorted by symbol and date.

    Returns:
        `symbol`, `event_timestamp` (the session's close, UTC), the features and `segment`, row for
        row with `bars`; a feature without enough history is NaN.
    """
    features = compute(bars, progress)
    features.insert(0, "symbol", bars["symbol"].array)
    features.insert(1, "event_timestamp", session_close(bars["date"]).array)
    features["segment"] = bars["segment"].array
    return features
