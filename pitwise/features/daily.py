"""Clean bars to the daily table of indicators that Feast serves."""

import pandas as pd

from pitwise.bars.basis import on_first_basis
from pitwise.bars.calendar import session_close
from pitwise.features.indicators import BARS, FEATURES, compute

FACTORS = ["price_factor", "share_factor"]
"""What puts a session's prices and shares on the basis of its symbol's first session."""


def daily_features(bars: pd.DataFrame) -> pd.DataFrame:
    """Features of every symbol and session, each on the share basis of its own session.

    They are computed on the basis of the symbol's first session, which what comes later does not move,
    to the bit, and then put on the session's own.

    Args:
        bars: clean bars, sorted by symbol and date.

    Returns:
        `symbol`, `event_timestamp` (the session's close, UTC), the features, `price_factor`,
        `share_factor` and `segment`, row for row with `bars`; a feature without enough history is NaN.
    """
    price, shares = (bars[name].to_numpy("float64") for name in FACTORS)
    dollars = bars["close"] * bars["volume"]
    features = compute(on_first_basis(bars).assign(dollars=dollars))
    for feature in FEATURES:
        if feature in BARS:
            features[feature.name] = bars[feature.name].to_numpy("float64")
        elif feature.unit in ("price", "price_change"):
            features[feature.name] /= price
        elif feature.unit == "shares":
            features[feature.name] *= shares
    features.insert(0, "symbol", bars["symbol"].array)
    features.insert(1, "event_timestamp", session_close(bars["date"]).array)
    return features.assign(price_factor=price, share_factor=shares, segment=bars["segment"].array)
