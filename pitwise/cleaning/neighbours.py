"""Bars as arrays, each beside its neighbours: the input of the checks and the event detector."""

import warnings
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pandas as pd

from pitwise.bars.calendar import session_number

MARKET_SYMBOLS = 20
"""Symbols a session needs before their median return stands for the market."""
ORDINARY_NOISE = 0.015
"""Daily volatility of a stock that has too few bars to tell its own: about that of the S&P 500's."""
SMALLEST_NOISE = 0.004
"""Daily volatility that no stock falls below for long: prices that stand still are no measure."""


def market_moves(session: np.ndarray, log_return: np.ndarray) -> np.ndarray:
    """The market's log return by number of the session: the median of all symbols, 0 of few.

    Args:
        session: (n,) the number of each bar's session.
        log_return: (n,) of its close; NaN where there is none.
    """
    sessions = pd.Series(log_return).groupby(session)
    middle = sessions.median()[sessions.count() >= MARKET_SYMBOLS]
    moves = np.zeros(int(session.max(initial=0)) + 2)
    moves[middle.index.to_numpy(int)] = middle
    return moves


class Neighbours:
    """Bars sorted by symbol and date. Returns and ranges are logs; (n,) float64 each.

    A symbol's first row has no bar before it: its `step`, `gap` and `move` are NaN.

    Args:
        market: what `market_moves` says of the whole market, if the bars are but a part of it.
    """

    def __init__(self, bars: pd.DataFrame, market: np.ndarray | None = None):
        self.open, self.high, self.low, self.close, self.volume = (
            bars[name].to_numpy("float64") for name in ("open", "high", "low", "close", "volume")
        )
        self.dates = bars["date"]
        self.market = market
        symbol = bars["symbol"]
        codes = symbol.cat.codes.to_numpy() if symbol.dtype == "category" else pd.factorize(symbol)[0]
        self.run = codes
        self.first = np.append(True, codes[1:] != codes[:-1])[: len(codes)]

    def before(self, values: np.ndarray) -> np.ndarray:
        """Each row's value one bar earlier, NaN at a symbol's first."""
        return np.where(self.first, np.nan, np.roll(values, 1))

    def after(self, values: np.ndarray) -> np.ndarray:
        """Each row's value one bar later, NaN at a symbol's last."""
        return np.where(np.roll(self.first, -1), np.nan, np.roll(values, -1))

    @cached_property
    def session(self) -> np.ndarray:
        return session_number(self.dates).astype(float)

    @cached_property
    def step(self) -> np.ndarray:
        """Sessions since the bar before: 1 unless some are missing."""
        return self.session - self.before(self.session)

    @cached_property
    def gap(self) -> np.ndarray:
        """Log of open over the close before."""
        return np.log(self.open / self.before(self.close))

    @cached_property
    def log_return(self) -> np.ndarray:
        """Of the close, on the close before."""
        return np.log(self.close / self.before(self.close))

    @cached_property
    def move(self) -> np.ndarray:
        """Log return of the close beyond the market's, see `market_moves`."""
        market = market_moves(self.session, self.log_return) if self.market is None else self.market
        return self.log_return - market[self.session.astype(int)]

    @cached_property
    def range(self) -> np.ndarray:
        return np.log(self.high / self.low)

    def around(self, values: np.ndarray, rows: np.ndarray, offsets: Sequence[int]) -> np.ndarray:
        """(len(rows), len(offsets)): the symbol's values that many bars on, NaN where it has none."""
        at = rows[:, None] + np.asarray(offsets)
        inside = np.clip(at, 0, len(values) - 1)
        same = (at == inside) & (self.run[inside] == self.run[rows][:, None])
        return np.where(same, values[inside], np.nan)

    def median(self, values: np.ndarray, rows: np.ndarray, offsets: Sequence[int]) -> np.ndarray:
        """Median of `around`; NaN where fewer than three of the bars are there."""
        found = self.around(values, rows, offsets)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # all-NaN rows are answered with NaN
            middle = np.nanmedian(found, axis=1)
        return np.where((~np.isnan(found)).sum(axis=1) >= 3, middle, np.nan)

    def noise(self, rows: np.ndarray) -> np.ndarray:
        """Standard deviation of an ordinary day's move, by the median; the bar and its next left out."""
        offsets = [*range(-60, 0), *range(2, 21)]
        noise = 1.4826 * self.median(np.abs(self.move), rows, offsets)
        return np.maximum(np.where(np.isnan(noise), ORDINARY_NOISE, noise), SMALLEST_NOISE)
