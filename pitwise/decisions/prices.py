"""What could be traded in each session, and what a holder of a share got: arrays by session, symbol."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pitwise.errors import DataError

Array = np.ndarray
LOOK_BACK = 20
"""Sessions behind a usual dollar volume and a volatility."""
FEWEST = 5
"""Sessions with a bar that both need."""


@dataclass(frozen=True)
class Prices:
    """Traded prices; every array is (n_sessions, n_symbols), NaN where a symbol has no bar.

    A session without a bar is a halt: nothing is traded, and what is held keeps its last close. After
    its last bar, where the sessions go on, a symbol is delisted.
    """

    sessions: pd.DatetimeIndex
    """Dates, naive midnight, in order."""
    symbols: pd.Index
    open: Array
    """US dollars a share, as traded."""
    close: Array
    dollar_volume: Array
    """Dollars traded: close times volume; 0 where there is no bar."""
    split: Array
    """Shares that one share of the session before became; 1 without a split."""
    distribution: Array
    """Dollars paid for a share of the session before; 0 without. Spun-off shares count as cash."""

    def total_returns(self) -> Array:
        """(n_sessions, n_symbols) simple returns, close to close, splits and distributions in.

        0 in a session without a bar, the next one has it all; NaN before the second bar.
        """
        last = last_known(self.close)
        before = np.vstack([np.full((1, last.shape[1]), np.nan), last[:-1]])
        return (last * self.split + self.distribution) / before - 1

    def usual_dollar_volume(self) -> Array:
        """Mean dollars traded, of the sessions with a bar among the last `LOOK_BACK`, its own too."""
        traded = np.where(np.isfinite(self.close), self.dollar_volume, np.nan)
        return pd.DataFrame(traded).rolling(LOOK_BACK, min_periods=FEWEST).mean().to_numpy()

    def volatility(self) -> Array:
        """Standard deviation of the last `LOOK_BACK` sessions' returns, its own too; of one session."""
        returns = pd.DataFrame(self.total_returns())
        return returns.rolling(LOOK_BACK, min_periods=FEWEST).std().to_numpy()

    def between(self, first: pd.Timestamp, last: pd.Timestamp) -> "Prices":
        """The sessions from first to last, both included."""
        kept = np.flatnonzero((self.sessions >= first) & (self.sessions <= last))
        arrays = (self.open, self.close, self.dollar_volume, self.split, self.distribution)
        return Prices(self.sessions[kept], self.symbols, *(array[kept] for array in arrays))


def last_known(prices: Array) -> Array:
    """Each symbol's last finite price up to each session; NaN before its first."""
    rows = np.where(np.isfinite(prices), np.arange(len(prices))[:, None], 0)
    return np.take_along_axis(prices, np.maximum.accumulate(rows, axis=0), axis=0)


def prices(bars: pd.DataFrame, events: pd.DataFrame | None = None) -> Prices:
    """The arrays of clean bars.

    A step of `share_factor` is a split. What `price_factor` grows by on top of it is a distribution: the
    vendor's step is 1 / (1 - paid / close before). Spin-offs move neither: what a confirmed one's price
    fell by, (1 - `price_ratio`) of the close before, is paid in cash, as if the holder sold the new
    shares at the open. These are what happened to a holder; no decision sees them earlier.

    Args:
        bars: `symbol`, `date`, `open`, `close`, `volume`, `price_factor`, `share_factor`.
        events: `symbol`, `date`, `kind`, `status`, `price_ratio`; None for no spin-offs.

    Raises:
        DataError: there are no bars, or several of one symbol and date.
    """
    if bars.empty:
        raise DataError("there are no bars to trade. Load some: `pitwise run`.")
    if bars.duplicated(["symbol", "date"]).any():
        raise DataError("several bars of one symbol and date. `pitwise run` makes the clean bars anew.")
    sessions = pd.DatetimeIndex(np.sort(bars["date"].unique()))
    symbols = pd.Index(np.sort(bars["symbol"].astype(str).unique()), name="symbol")
    at = sessions.get_indexer(bars["date"]), symbols.get_indexer(bars["symbol"].astype(str))

    def wide(values: pd.Series, empty: float = np.nan) -> Array:
        array = np.full((len(sessions), len(symbols)), empty)
        array[at] = values.to_numpy(float)
        return array

    opens, closes = wide(bars["open"]), wide(bars["close"])
    split, adjusted = _steps(wide(bars["share_factor"])), _steps(wide(bars["price_factor"]))
    before = np.vstack([closes[:1], last_known(closes)[:-1]])
    distribution = np.nan_to_num(before * (1 - split / adjusted))
    distribution[np.abs(distribution) < 1e-9 * np.nan_to_num(before)] = 0.0  # rounding of a factor
    if events is not None:
        spun = events[(events["kind"] == "spin_off") & (events["status"] == "confirmed")]
        row, column = sessions.get_indexer(spun["date"]), symbols.get_indexer(spun["symbol"].astype(str))
        known = (row >= 0) & (column >= 0)
        row, column = row[known], column[known]
        paid = before[row, column] * (1 - spun["price_ratio"].to_numpy(float)[known])
        distribution[row, column] += np.nan_to_num(paid)
    volume = wide(bars["close"] * bars["volume"], empty=0.0)
    return Prices(sessions, symbols, opens, closes, volume, split, distribution)


def _steps(factors: Array) -> Array:
    """A factor divided by the one before it, over sessions without a bar; 1 at a symbol's first."""
    last = last_known(factors)
    steps = np.ones_like(last)
    steps[1:] = last[1:] / last[:-1]
    return np.where(np.isfinite(steps), steps, 1.0)
