"""Bars that nobody traded so, as their own close shows: prices over and over, no volume, or absurd."""

import numpy as np
import pandas as pd

from pitwise.bars.schema import PRICES
from pitwise.cleaning.copies import LOOK_BACK
from pitwise.cleaning.neighbours import Neighbours

USUAL = 60
"""Bars before the one judged that tell the usual volume."""
FEWEST = 30
"""Of these, bars with a volume that it takes: a new listing is traded thinly, when issued."""


def untraded(bars: pd.DataFrame, stale_bars: int, absurd_volume: float) -> np.ndarray:
    """The reason why a bar was not traded so, or an empty string; (n,) of str.

    `no_volume`, `stale` or `absurd_volume`, the first that holds.

    Args:
        bars: as of `pitwise.cleaning.equal_bars`.
        stale_bars: repeats of all four prices, from this one on they are no chance.
        absurd_volume: times the usual one.
    """
    n = Neighbours(bars)
    reason = np.full(len(bars), "", object)
    reason[absurd(n, absurd_volume)] = "absurd_volume"
    reason[stale(n, stale_bars)] = "stale"
    reason[no_volume(n)] = "no_volume"
    return reason


def no_volume(n: Neighbours) -> np.ndarray:
    """Bars without volume, of a symbol that has one as a rule, or at one price, the last; (n,) bool.

    As a rule: in most of the bars before it. A source without volumes keeps its bars.
    """
    row = np.arange(len(n.volume))
    begin = np.maximum.accumulate(np.where(n.first, row, 0))
    since = np.maximum(begin, row - LOOK_BACK)
    traded = np.append(0, np.cumsum(n.volume > 0))  # whole numbers: exact wherever the bars begin
    with_volume = traded[row] - traded[since]
    as_a_rule = (with_volume >= FEWEST) & (2 * with_volume > row - since)
    carried = (n.high == n.low) & (n.close == n.before(n.close))
    return (n.volume == 0) & (as_a_rule | carried)


def stale(n: Neighbours, stale_bars: int) -> np.ndarray:
    """Bars that repeat the prices before them for the `stale_bars`-th time or more; (n,) bool.

    The repeats before that were chance, as far as one could see then.
    """
    same = np.logical_and.reduce([getattr(n, name) == n.before(getattr(n, name)) for name in PRICES])
    row = np.arange(len(same))
    return same & (row - np.maximum.accumulate(np.where(same, 0, row)) >= stale_bars)


def absurd(n: Neighbours, times: float) -> np.ndarray:
    """Bars with a volume that many times the median of those before that have one; (n,) bool."""
    volume = np.where(n.volume > 0, n.volume, np.inf)
    # The median is not below the least of them, which is quick to find for all rows at once.
    least = pd.Series(volume).rolling(USUAL + 1, min_periods=1).min().to_numpy()
    rows = np.flatnonzero(n.volume > times * least)
    before = n.around(np.where(n.volume > 0, n.volume, np.nan), rows, range(-USUAL, 0))
    known = (~np.isnan(before)).sum(axis=1) >= FEWEST
    rows, before = rows[known], before[known]
    refused = np.zeros(len(volume), bool)
    refused[rows[n.volume[rows] > times * np.nanmedian(before, axis=1)]] = True
    return refused
