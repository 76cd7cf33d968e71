"""Bars of which another session of the symbol has the prices, and what judging them takes."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pitwise.bars.calendar import session_number
from pitwise.cleaning.neighbours import ORDINARY_NOISE, SMALLEST_NOISE, Neighbours

ORDINARY = 20
"""Bars before the one judged that tell the stock's noise and tick."""
CHUNK = 50_000
"""Equal bars described at a time: what they need lies in memory."""


def equal_bars(bars: pd.DataFrame) -> pd.DataFrame:
    """The bars that have three prices of another session of their symbol, and what judging them takes.

    Open, high and low are equal; or high, low and close, where the open is another.

    Args:
        bars: of complete sessions, passed by the row checks, sorted by symbol and date; all of a symbol.

    Returns:
        (m,) sorted by `group` and `row`; a row may be in two groups. `group` (of equal bars), `row` (in
        `bars`), `number` (of the session), `date`, `open`, `high`, `low`, `close`, `volume`,
        `close_before`, `open_after`; and of the bars before it `day_noise` and `night_noise` (log, of a
        session and of an opening) and `tick` (in the price).
    """
    n = Neighbours(bars)
    alike = _alike(n)
    row, group = _groups(n, alike, (n.open, n.high, n.low))
    but_open, group_but_open = _groups(n, alike, (n.high, n.low, n.close))
    same = np.append(False, n.open[but_open[1:]] == n.open[but_open[:-1]])[: len(but_open)]
    same[np.append(True, np.diff(group_but_open) > 0)[: len(same)]] = True
    other = np.isin(group_but_open, group_but_open[~same])
    row = np.append(row, but_open[other])
    group = np.append(group, group_but_open[other] + len(bars))
    parts = np.split(row, range(CHUNK, len(row), CHUNK))
    described = pd.concat([_described(n, part) for part in parts], ignore_index=True)
    described.insert(0, "group", group)
    return described


def _alike(n: Neighbours) -> np.ndarray:
    """The few rows that may have high and low of another row of their symbol; ascending."""
    # One number out of both is quicker to look up among millions than they are.
    mixed = n.run.astype("uint64")
    for each in (n.high, n.low):
        bits = np.ascontiguousarray(each).view("uint64")
        mixed = (mixed ^ (mixed >> np.uint64(29)) ^ bits) * np.uint64(0x9E3779B97F4A7C15)
    return np.flatnonzero(pd.Series(mixed).duplicated(keep=False))


def _groups(
    n: Neighbours, rows: np.ndarray, prices: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Of `rows` those with equal prices in one symbol: row and number of the group, sorted by both."""
    keys = [each[rows] for each in (*prices, n.run)]
    order = np.lexsort(keys)  # stable: a group's rows keep their order
    same = np.logical_and.reduce([key[order][1:] == key[order][:-1] for key in keys])
    kept = (np.append(same, False) | np.append(False, same))[: len(rows)]
    return rows[order][kept], np.cumsum(np.append(True, ~same)[: len(rows)][kept])


def _described(n: Neighbours, rows: np.ndarray) -> pd.DataFrame:
    """See `equal_bars`."""
    before = range(-ORDINARY, 0)
    day, night = (1.4826 * n.median(np.abs(moves), rows, before) for moves in (n.log_return, n.gap))
    all_prices = (n.open, n.high, n.low, n.close)
    return pd.DataFrame(
        {
            "row": rows,
            "number": session_number(n.dates.iloc[rows]).astype("int64"),
            "date": n.dates.to_numpy()[rows],
            **{name: getattr(n, name)[rows] for name in ("open", "high", "low", "close", "volume")},
            "close_before": n.around(n.close, rows, [-1])[:, 0],
            "open_after": n.around(n.open, rows, [1])[:, 0],
            "day_noise": np.maximum(np.where(np.isnan(day), ORDINARY_NOISE, day), SMALLEST_NOISE),
            "night_noise": np.maximum(np.where(np.isnan(night), ORDINARY_NOISE, night), SMALLEST_NOISE)
            / 2,
            "tick": _tick(np.hstack([n.around(p, rows, range(-ORDINARY, 1)) for p in all_prices])),
        }
    )


def _tick(prices: np.ndarray) -> np.ndarray:
    """The steps in which each row's prices move: the tenth part of them is as small; (m,).

    Where all prices are one it is that price: being equal is then no evidence.
    """
    prices = np.sort(prices, axis=1)  # unknown ones last
    steps = np.diff(prices, axis=1)
    steps = np.sort(np.where(steps > 1e-9 * prices[:, :1], steps, np.nan), axis=1)
    known = (~np.isnan(steps)).sum(axis=1)
    small = steps[np.arange(len(steps)), known // 10] if len(steps) else np.zeros(0)
    return np.where(known > 0, small, prices[:, 0])
