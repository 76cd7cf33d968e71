"""Which symbols of a session belong together: sectors where they are known, else what moves together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from serving.web.bars import SymbolBars

if TYPE_CHECKING:
    import pandas as pd

WINDOW = 252
"""Sessions behind a correlation."""
LEAST = 60
"""Sessions that a symbol needs of them."""
TOGETHER = 0.3
"""Symbols are of one cluster where their average correlation, the market's mean taken out, is above."""
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


def clusters_at(bars: Mapping[str, SymbolBars], dollars: Mapping[str, float]) -> Groups | None:
    """Clusters of the last `WINDOW` sessions' returns, each less the mean of all symbols.

    Args:
        dollars: traded in the session; its two largest symbols name a cluster.

    Returns:
        None where there is none of `FEWEST` symbols or more.
    """
    if not bars:
        return None
    import pandas as pd

    from pitwise.decisions.contributions import clusters, correlation  # bring scipy

    days = np.unique(np.concatenate([b.day[-WINDOW:] for b in bars.values()]))[-WINDOW:]
    returns = {}
    for symbol, b in bars.items():
        known = b.returns[b.day[1:] >= days[0]]
        if len(known) >= LEAST:
            column = np.full(len(days), np.nan)
            column[np.searchsorted(days, b.day[len(b.day) - len(known) :])] = known
            returns[symbol] = column
    if len(returns) < FEWEST:
        return None
    table = pd.DataFrame(returns)
    excess = table.sub(table.mean(axis=1), axis=0).fillna(
        0.0
    )  # a session that is not there tells nothing
    of: dict[str, str] = {}
    for members in clusters(correlation(excess), TOGETHER):
        if len(members) >= FEWEST:
            largest = sorted(members, key=lambda symbol: -dollars.get(symbol, 0.0))[:2]
            of |= dict.fromkeys(members, ", ".join(largest))
    return Groups("cluster", of) if of else None
