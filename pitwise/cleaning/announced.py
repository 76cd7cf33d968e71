"""What corporate actions that a feed announces do to a symbol's factors, checked against the prices.

An announced action is believed. Only one so large that the prices must show it, and do not, is left out:
the feed is wrong, or the prices are on the later share basis already and would be adjusted twice.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from pitwise.bars.news import SHIFT
from pitwise.cleaning.neighbours import Neighbours

SPECIAL = 0.05
"""Log step beyond which a distribution is no regular dividend."""
CASH = ("dividend", "special_dividend", "spin_off")


class Announced(NamedTuple):
    """By bar, (n,) each; 1 and False where nothing was announced."""

    shares: np.ndarray
    """New shares for old of the splits that are believed."""
    price: np.ndarray
    """What distributions take out of the price: the price before, less the splits, over what is left."""
    parted: np.ndarray
    """bool; a part left the company, and it is not said how much."""
    refused: np.ndarray
    """bool; the prices do not show what they would have to."""
    changed: np.ndarray
    """bool; the ticker is another company's from here on."""
    special: np.ndarray
    """bool; a distribution that is no regular dividend, or too large for one."""


def announced(n: Neighbours, bars: pd.DataFrame, actions: pd.DataFrame, large: float) -> Announced:
    """What is believed of announced actions, each at the first bar from its ex-date on.

    A row depends on bars up to it and on actions up to its date.

    Args:
        n: of the bars.
        bars: sorted by symbol and date.
        actions: see `pitwise.bars.versions.known_actions`.
        large: a log step from which the prices must show it.
    """
    size = len(bars)
    at, which = _rows(n, bars, actions)
    kind = actions["kind"].to_numpy(object)[which]
    ratio, amount = (actions[name].to_numpy("float64")[which] for name in ("ratio", "amount"))
    split, part = kind == "split", kind == "spin_off"
    paid = np.isin(kind, CASH) & ~np.isnan(amount)
    kept = part & ~np.isnan(ratio)

    shares, left, cash = np.ones(size), np.ones(size), np.zeros(size)
    np.multiply.at(shares, at[split], ratio[split])
    np.multiply.at(left, at[kept], ratio[kept])
    np.add.at(cash, at[paid], amount[paid])
    refused = ~_shown(n, np.log(shares), large)
    shares[refused] = 1.0

    before = n.before(n.close) / shares
    with np.errstate(divide="ignore", invalid="ignore"):
        price = np.where(at_any(size, at[paid]), before / (before - cash), 1.0) / left
    sane = np.isfinite(price) & (price > 0)
    price[~sane] = 1.0
    there = sane & _shown(n, np.log(price), large, np.log(shares))
    price[~there] = 1.0
    special = at_any(size, at[(kept | paid) & (kind != "dividend")]) | (np.log(price) > SPECIAL)
    return Announced(
        shares,
        price,
        at_any(size, at[part & ~kept & ~paid]),
        refused | ~there,
        at_any(size, at[kind == "symbol_change"]),
        special & (price != 1),
    )


def at_any(size: int, rows: np.ndarray) -> np.ndarray:
    """(size,) bool, True at some rows."""
    mask = np.zeros(size, bool)
    mask[rows] = True
    return mask


def shows(
    n: Neighbours, rows: np.ndarray, step: np.ndarray, besides: np.ndarray | float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Whether the close, and whether the open, moved by about what a log step of the factor says.

    Args:
        besides: log step of what else is known to have moved the price.
    """
    near = 0.5 * np.abs(step)
    moved = (values[rows] + step + besides for values in (n.log_return, n.gap))
    close, opened = (np.abs(rest) <= near for rest in moved)
    return close, opened


def _shown(
    n: Neighbours, step: np.ndarray, large: float, besides: np.ndarray | None = None
) -> np.ndarray:
    """Whether the prices show each bar's log step, or it is too small to tell; (n,) bool."""
    shown = np.ones(len(step), bool)
    rows = np.flatnonzero(np.abs(step) > large)
    close, opened = shows(n, rows, step[rows], 0.0 if besides is None else besides[rows])
    shown[rows] = close | opened
    return shown


def _rows(n: Neighbours, bars: pd.DataFrame, actions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The first bar from each action's ex-date on, and the action's number.

    Left out are actions behind a symbol's last bar, and those up to its first: they move nothing.
    """
    starts = np.flatnonzero(n.first)
    place = {str(name): i for i, name in enumerate(bars["symbol"].iloc[starts])}
    symbol = actions["symbol"].map(place).to_numpy("float64", na_value=np.nan)
    which = np.flatnonzero(~np.isnan(symbol))
    block = symbol[which].astype("int64")
    held = (np.cumsum(n.first) - 1) * SHIFT + _day(bars["date"])
    rows = np.searchsorted(held, block * SHIFT + _day(actions["date"])[which])
    inside = (rows > starts[block]) & (rows < np.append(starts[1:], len(bars))[block])
    return rows[inside], which[inside]


def _day(dates: pd.Series) -> np.ndarray:
    return dates.to_numpy("datetime64[D]").astype("int64") + SHIFT // 2
