"""Bars as arrays, each beside its neighbours, and the market beside them."""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from pitwise.bars.calendar import session_date, session_number

MARKET_SYMBOLS = 20
"""Symbols a session needs before their median is taken out of each one's move, and a spread is known."""
FEW_SYMBOLS = 3
"""Symbols that tell by their median at least whether the market moved far, held against an ordinary
spread. With fewer a stock is judged by its own past alone."""
ORDINARY_NOISE = 0.015
"""Daily volatility of a stock that has too few bars to tell its own: about that of the S&P 500's."""
SMALLEST_NOISE = 0.004
"""Daily volatility that no stock falls below for long: prices that stand still are no measure."""
NOISE_BARS = 60
"""Bars before a bar that its stock's noise is told from; sessions that the market's is told from."""
FEW_BARS = 20
"""With fewer bars a stock may be noisier than they show, and is taken to be an ordinary one at least."""
USUAL_BARS = 20
"""Bars before a bar that its usual volume and range are told from."""
ORDINARY_SPREAD = 0.011
"""Spread of a session's returns where fewer than `FEW_SESSIONS` are known: that of the S&P 500's."""
FEW_SESSIONS = 10
LONG_WICK = 0.25
"""Log: longer than any that was traded in the S&P 500 outside panics."""
LONGEST_ABSENCE = 60
"""Sessions without a bar after which a move is not held against the market's any more."""


class Market(NamedTuple):
    """The market by number of the session (`session_number`), each from sessions up to it; (s,) float64.

    Where fewer than `MARKET_SYMBOLS` have a return only `reach` and the `scale` from it are known, and
    where fewer than `FEW_SYMBOLS` have one, nothing is.
    """

    move: np.ndarray
    """Median log return; 0 where not known."""
    reach: np.ndarray
    """How far the median moved, over the usual spread; NaN where not known."""
    scale: np.ndarray
    """How much wider than usual the cross-section is, or half of `reach` if that is more; 1 at least."""
    turnover: np.ndarray
    """Median of the log of `Neighbours.turnover`; 0 where not known."""
    spread: np.ndarray
    """Standard deviation of the returns across the market, by the median; NaN where not known."""
    wicks: np.ndarray
    """Share of the symbols with a wick longer than `LONG_WICK`, 0 where it is but one."""
    gap: np.ndarray
    """Median log of the open over the close before; 0 where not known."""

    @classmethod
    def none(cls) -> "Market":
        """Of which nothing is known."""
        return cls(*np.empty((len(cls._fields), 0)))

    @classmethod
    def of_table(cls, table: pd.DataFrame) -> "Market":
        """From what `table` returned, one row a session."""
        number = session_number(table["date"])
        market = _unknown(int(number.max(initial=-2)) + 2)
        for name, values in zip(cls._fields, market, strict=True):
            if name in table:  # a table of before the field was known does not have it
                values[number] = table[name].to_numpy("float64")
        return market

    def table(self) -> pd.DataFrame:
        """`date` and the fields of the sessions of which anything is known."""
        known = np.flatnonzero(~np.isnan(self.reach))
        columns = {name: values[known] for name, values in zip(self._fields, self, strict=True)}
        return pd.DataFrame({"date": session_date(known), **columns})

    def at(self, session: np.ndarray) -> "Market":
        """The market in each of these sessions, any shape; not known after the last."""
        return Market(*(self.one(name, session) for name in self._fields))

    def one(self, name: str, session: np.ndarray) -> np.ndarray:
        """One field of what `at` gives: of millions of sessions the others are not made."""
        values = np.append(getattr(self, name), NOT_KNOWN[self._fields.index(name)])
        return values[np.minimum(session.astype(int), len(self.move))]


NOT_KNOWN = (0.0, np.nan, 1.0, 0.0, np.nan, 0.0, 0.0)
"""The fields of `Market` where it is not known."""


def _unknown(sessions: int) -> Market:
    return Market(*(np.full(sessions, value) for value in NOT_KNOWN))


def market_of(
    session: np.ndarray,
    log_return: np.ndarray,
    turnover: np.ndarray,
    earlier: Market | None = None,
    wick: np.ndarray | None = None,
    gap: np.ndarray | None = None,
) -> Market:
    """The market's table from the bars of all its symbols, in any order.

    Args:
        session: (n,) int, the number of each bar's session.
        log_return: (n,) of its close; NaN where there is none.
        turnover: (n,) log of its dollar volume over the usual, see `Neighbours.turnover`.
        earlier: the sessions it knows are taken over as they are.
        wick: (n,) see `Neighbours.wick`; none is long where it is not given.
        gap: (n,) see `Neighbours.gap`; the market's is not known where it is not given.
    """
    market = _unknown(int(session.max(initial=-2)) + 2)
    returns = pd.Series(log_return).groupby(session)
    count, middle = returns.count(), returns.median()
    enough, few = (count >= least for least in (MARKET_SYMBOLS, FEW_SYMBOLS))
    known = enough.index[enough].to_numpy(int)
    market.move[known] = middle[enough]
    distance = pd.Series(np.abs(log_return - market.move[session.astype(int)]))
    market.spread[known] = 1.4826 * distance.groupby(session).median()[enough]
    market.turnover[known] = pd.Series(turnover).groupby(session).median()[enough].fillna(0.0)
    seen = few.index[few].to_numpy(int)
    market.reach[seen] = np.abs(middle[few])
    if wick is not None:
        long = pd.Series(wick > LONG_WICK).groupby(session)
        market.wicks[seen] = long.mean().where(long.sum() > 1, 0.0)[few]
    if gap is not None:
        market.gap[known] = pd.Series(gap).groupby(session).median()[enough].fillna(0.0)
    if earlier is not None:
        market = market.at(np.arange(max(len(earlier.move), len(market.move))))
        frozen = np.flatnonzero(~np.isnan(earlier.reach))
        for values, before in zip(market, earlier, strict=True):
            values[frozen] = before[frozen]
        seen = np.setdiff1d(seen, frozen)
    known = np.flatnonzero(~np.isnan(market.spread))
    usual = pd.Series(market.spread[known]).rolling(NOISE_BARS, min_periods=FEW_SESSIONS).median()
    spread = np.full(len(market.move), ORDINARY_SPREAD)
    spread[known] = np.maximum(usual.shift().fillna(ORDINARY_SPREAD), SMALLEST_NOISE)
    market.reach[seen] /= spread[seen]
    wider = np.fmax(market.spread[seen] / spread[seen], market.reach[seen] / 2)
    market.scale[seen] = np.maximum(wider, 1.0)
    return market


class Neighbours:
    """Bars sorted by symbol and date. Returns and ranges are logs; (n,) float64 each.

    A symbol's first row has no bar before it: its `step`, `gap` and `log_return` are NaN.
    """

    def __init__(self, bars: pd.DataFrame):
        self.open, self.high, self.low, self.close, self.volume = (
            bars[name].to_numpy("float64") for name in ("open", "high", "low", "close", "volume")
        )
        self.dates = bars["date"]
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
    def wick(self) -> np.ndarray:
        """Log distance of the high or the low, the larger, beyond the open and close."""
        top = np.log(self.high / np.maximum(self.open, self.close))
        return np.maximum(top, np.log(np.minimum(self.open, self.close) / self.low))

    @cached_property
    def gap(self) -> np.ndarray:
        """Log of open over the close before."""
        return np.log(self.open / self.before(self.close))

    @cached_property
    def log_return(self) -> np.ndarray:
        """Of the close, on the close before."""
        return np.log(self.close / self.before(self.close))

    @cached_property
    def age(self) -> np.ndarray:
        """(n,) int: bars that the symbol has before each one."""
        row = np.arange(len(self.first))
        return row - np.maximum.accumulate(np.where(self.first, row, 0))

    @cached_property
    def turnover(self) -> np.ndarray:
        """Log of the dollar volume over its usual, the geometric mean of the `USUAL_BARS` before.

        NaN where nothing was traded, and where none is before.
        """
        return self._over_usual(self.close * self.volume)

    @cached_property
    def shares(self) -> np.ndarray:
        """As `turnover`, of the volume."""
        return self._over_usual(self.volume)

    def _over_usual(self, values: np.ndarray) -> np.ndarray:
        traded = values > 0
        logs = np.log(np.where(traded, values, 1.0))
        total, count = np.zeros(len(logs)), np.zeros(len(logs))
        # Bar by bar, and no running sum: what a row gets must not depend on the rows around its own.
        for k in range(1, min(USUAL_BARS, len(logs) - 1) + 1):
            counts = traded[:-k] & (self.age[k:] >= k)
            total[k:] += np.where(counts, logs[:-k], 0.0)
            count[k:] += counts
        return np.where(traded & (count > 0), logs - total / np.maximum(count, 1), np.nan)

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
        found = np.sort(self.around(values, rows, offsets), axis=1)  # NaN come last
        there = (~np.isnan(found)).sum(axis=1)
        row = np.arange(len(rows))
        middle = (found[row, np.maximum(there - 1, 0) // 2] + found[row, there // 2]) / 2
        return np.where(there >= 3, middle, np.nan)

    def beyond(self, market: Market) -> np.ndarray:
        """Log return of the close beyond the market's in the sessions since the bar before; (n,)."""
        move = self.log_return - market.one("move", self.session)
        moves, end = np.append(market.move, 0.0), len(market.move)  # `Market.at` would make it each time
        with np.errstate(invalid="ignore"):
            several = np.flatnonzero((self.step > 1) & (self.step <= LONGEST_ABSENCE))
        for row in several:
            since = self.session[row] - np.arange(self.step[row])
            move[row] = self.log_return[row] - moves[np.minimum(since.astype(int), end)].sum()
        return move

    def usual_noise(self, rows: np.ndarray, move: np.ndarray | None = None) -> np.ndarray:
        """Standard deviation of an ordinary day's move before each row, by the median; (len(rows),).

        Args:
            move: (n,) log returns beyond the market's; the log returns if not given.
        """
        move = self.log_return if move is None else move
        noise = 1.4826 * self.median(np.abs(move), rows, range(-NOISE_BARS, 0))
        noise = np.maximum(np.where(np.isnan(noise), ORDINARY_NOISE, noise), SMALLEST_NOISE)
        return np.where(self.age[rows] < FEW_BARS, np.maximum(noise, ORDINARY_NOISE), noise)
