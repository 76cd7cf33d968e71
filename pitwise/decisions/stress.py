"""What a portfolio would lose in the market's falls of the past, and in ones that are only supposed."""

from typing import NamedTuple

import numpy as np
import pandas as pd

SHOCKS = (-0.05, -0.10, -0.20)
"""Returns of the market."""


class Episode(NamedTuple):
    name: str
    peak: str
    """The last close before the fall."""
    trough: str


EPISODES = (
    Episode("2008", "2008-08-29", "2008-11-20"),
    Episode("2011-08", "2011-07-22", "2011-08-08"),
    Episode("2015-08", "2015-08-17", "2015-08-25"),
    Episode("2018-02", "2018-01-26", "2018-02-08"),
    Episode("2020-03", "2020-02-19", "2020-03-23"),
)
"""Falls of the S&P 500, from a close at or near the peak to the lowest."""


def episode(
    returns: pd.DataFrame, market: pd.Series, weights: pd.Series, beta: pd.Series, of: Episode
) -> dict[str, object]:
    """What today's weights, bought at the peak and held, would have lost by the trough.

    A symbol that lacks a return in between takes the market's times its beta of today, and is named.

    Args:
        returns: simple returns, sessions x symbols, NaN where there is none.
        market: the market's simple returns of the same sessions.

    Returns:
        name, first, last (sessions), `return` of the portfolio, `market`, `by_beta` (symbols). Where the
        history does not hold the whole of it, `return` and `market` are None and `untested` says why.
    """
    said: dict[str, object] = {"name": of.name, "first": of.peak, "last": of.trough}
    days = returns.index
    if not (days[0] <= pd.Timestamp(of.peak) and days[-1] >= pd.Timestamp(of.trough)):
        why = f"the history is of {days[0].date()} to {days[-1].date()}"
        return said | {"return": None, "market": None, "by_beta": [], "untested": why}
    inside = slice(pd.Timestamp(of.peak) + pd.Timedelta(days=1), pd.Timestamp(of.trough))
    held = returns.loc[inside, weights.index]
    fell = float(np.prod(1 + market.loc[inside]) - 1)
    whole = held.notna().all().to_numpy()
    own = np.prod(1 + held.to_numpy(float), axis=0) - 1
    each = np.where(whole, own, np.maximum(beta[weights.index].to_numpy() * fell, -1))
    return said | {
        "return": float(each @ weights.to_numpy()),
        "market": fell,
        "by_beta": sorted(weights.index[~whole]),
        "untested": None,
    }


def shock(weights: pd.Series, beta: pd.Series, market: float) -> dict[str, float]:
    """The portfolio's return where the market's is so: each symbol its beta times it, at least -1."""
    each = np.maximum(beta[weights.index].to_numpy() * market, -1)
    return {"market": market, "return": float(each @ weights.to_numpy())}
