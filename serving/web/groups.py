"""Which symbols of a session belong together: sectors where they are known, else what moves together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from serving.web.bars import MarketBars

if TYPE_CHECKING:
    import pandas as pd

WINDOW = 252
"""Sessions behind a correlation."""
LEAST = 60
"""Sessions that a symbol needs of them."""
TOGETHER = 0.3
"""Symbols are of one cluster where their average correlation, the market's mean taken out, is above."""
MOST = 1000
"""Symbols that are clustered, the most traded: what that takes grows with their square."""
FEWEST = 5
"""Symbols of a cluster that is shown; smaller ones are with the others."""
OTHERS = "others"


@dataclass(frozen=True)
class Groups:
    """Names of groups, and who is in them."""

    by: str
    """sector | cluster"""
    of: Mapping[str, str]
    """Symbol to the name of its group; who is in none is not there."""


def sectors_at(sectors: "pd.DataFrame | None", symbols: Sequence[str], day: str) -> Groups | None:
    """The sectors that hold on a day; None where none is known.

    Args:
        sectors: see `pitwise.universe.read_sectors`.
    """
    if sectors is None:
        return None
    at = np.datetime64(day, "D")
    held = sectors[(sectors["from"] <= at) & ~(sectors["to"] <= at) & sectors["symbol"].isin(symbols)]
    of = dict(zip(held["symbol"], held["value"], strict=True))
    return Groups("sector", of) if of else None


def clusters_at(bars: MarketBars, dollars: Mapping[str, float]) -> Groups | None:
    """Clusters of the last `WINDOW` sessions' returns, each less the mean of all that are clustered.

    Args:
        dollars: traded in the session, by which the `MOST` are chosen; two symbols name a cluster.

    Returns:
        None where there is none of `FEWEST` symbols or more.
    """
    session = bars.session[1:]
    is_known = (session >= len(bars.days) - WINDOW) & (bars.session[:-1] >= 0)
    enough = np.flatnonzero(is_known.sum(axis=0) >= LEAST).tolist()
    if len(enough) < FEWEST:
        return None
    import pandas as pd

    from pitwise.decisions.contributions import clusters, correlation  # bring scipy

    chosen = sorted(sorted(enough, key=lambda i: -dollars.get(bars.symbols[i], 0.0))[:MOST])
    is_known = is_known[:, chosen]
    returns = np.diff(np.log(bars.close[:, chosen]), axis=0)
    aligned = np.full((len(bars.days), len(chosen)), np.nan)
    aligned[session[:, chosen][is_known], np.nonzero(is_known)[1]] = returns[is_known]
    table = pd.DataFrame(aligned[-WINDOW:], columns=[bars.symbols[i] for i in chosen])
    excess = table.sub(table.mean(axis=1), axis=0)
    excess = excess.fillna(0.0)  # a session that is not there tells nothing
    of: dict[str, str] = {}
    for members in clusters(correlation(excess), TOGETHER):
        if len(members) >= FEWEST:
            largest = sorted(members, key=lambda symbol: -dollars.get(symbol, 0.0))[:2]
            of |= dict.fromkeys(members, ", ".join(largest))
    return Groups("cluster", of) if of else None
