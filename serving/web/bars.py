"""Bars as they were known at an instant, from the history of the daily features."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from serving.web.files import microseconds

NUMBERS = ["open", "high", "low", "close", "volume"]
COLUMNS = [
    "symbol",
    "event_timestamp",
    "created_timestamp",
    *NUMBERS,
    "price_factor",
    "share_factor",
    "segment",
]
DAY = 86_400_000_000
"""Microseconds."""
Array = np.ndarray


@dataclass(frozen=True)
class SymbolBars:
    """One symbol's bars in order of session, on the share basis of the last one; (n,) each."""

    day: Array
    """datetime64[D], the session."""
    open: Array
    """US dollars, as high, low and close."""
    high: Array
    low: Array
    close: Array
    volume: Array
    """Shares."""

    @cached_property
    def returns(self) -> Array:
        """(n - 1,) log returns from close to close."""
        return np.diff(np.log(self.close))

    def volatility(self, sessions: int = 20) -> float | None:
        """Standard deviation of the last daily log returns; None with fewer than `sessions` of them."""
        last = self.returns[-sessions:]
        return float(last.std(ddof=1)) if len(last) == sessions else None

    def with_live(self, day: str, values: "dict[str, float | None]") -> "SymbolBars":
        """These and a newer session's bar (`values` by feature), where it is newer."""
        session = np.datetime64(day, "D")
        if session <= self.day[-1] or any(values.get(name) is None for name in NUMBERS):
            return self
        numbers = [np.append(getattr(self, name), np.float64(values[name] or 0)) for name in NUMBERS]
        return SymbolBars(np.append(self.day, session), *numbers)


class BarHistory:
    """Every version of every bar.

    A session of the exchange closes on its own day in UTC too, so that its day is that of its close.

    Args:
        path: `data/features/daily.parquet`.
    """

    def __init__(self, path: Path):
        import pyarrow.parquet as pq

        table = pq.read_table(path, columns=COLUMNS).combine_chunks()
        symbols = table["symbol"].combine_chunks().dictionary_encode()
        codes = symbols.indices.to_numpy()
        closes, created = (microseconds(table[name]) for name in COLUMNS[1:3])
        order = np.lexsort((created, closes, codes))
        self._closes, self._created = closes[order], created[order]
        self._columns = {name: table[name].to_numpy()[order] for name in COLUMNS[3:]}
        names = symbols.dictionary.to_pylist()
        bounds = np.searchsorted(codes[order], np.arange(len(names) + 1))
        self._rows = {name: slice(*bounds[i : i + 2]) for i, name in enumerate(names)}
        self.sessions = np.unique(self._closes // DAY).astype("datetime64[D]")
        """Days on which any symbol has a bar, in order."""

    @property
    def symbols(self) -> list[str]:
        return sorted(self._rows)

    def of(self, symbol: str, at: int | None = None) -> SymbolBars | None:
        """The bars of a symbol up to the last one, back to where its history was last broken.

        Args:
            at: the instant at which they were known, microseconds since 1970; None for now.

        Returns:
            None where no bar of it was known.
        """
        rows = self._rows.get(symbol)
        if rows is None:
            return None
        here = np.arange(rows.start, rows.stop)
        if at is not None:
            here = here[self._created[rows] <= at]
        closes = self._closes[here]
        here = here[np.diff(closes, append=0) != 0]  # of each session the latest version
        here = here[~np.isnan(self._columns["close"][here])]  # a withdrawn bar has none
        if not len(here):
            return None
        segment = self._columns["segment"][here]
        here = here[segment == segment[-1]]
        price, share = (self._columns[name][here] for name in ("price_factor", "share_factor"))
        prices = [self._columns[name][here] * (price / price[-1]) for name in NUMBERS[:4]]
        numbers = [*prices, self._columns["volume"][here] * (share / share[-1])]
        return SymbolBars((self._closes[here] // DAY).astype("datetime64[D]"), *numbers)
