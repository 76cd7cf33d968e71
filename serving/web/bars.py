"""Bars as they were known at an instant, from the history of the daily features."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from serving.state.market import SymbolFeatures
from serving.web.files import microseconds, reading

if TYPE_CHECKING:
    import pyarrow as pa

NUMBERS = ["open", "high", "low", "close", "volume"]
KEYS = ["symbol", "event_timestamp", "created_timestamp"]
BASIS = ["price_factor", "share_factor", "segment"]
RANGE = ["atr_14", "volatility_20", "volume_sma_20"]
"""Features that stops and costs are made of."""
DAY = 86_400_000_000
"""Microseconds."""
SPAN = 260
"""Sessions of the market that its pages look back: a year, and some for symbols that lack a bar."""
NOW = None, None
TABLES = 8
"""Symbols whose rows are kept."""
PART, SYMBOLS = 1 << 17, 2000
"""Rows read, and symbols worked on, at a time."""
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


@dataclass(frozen=True)
class MarketBars:
    """The last bars of n symbols, on the share basis of each one's last.

    Arrays are (m, n). A symbol's last bar is in the last row, those before it above; where it has none
    left there is NaN. A symbol that is not there has no bar in these sessions.
    """

    symbols: list[str]
    days: Array
    """datetime64[D], the sessions of the market, in order."""
    session: Array
    """int16, of each bar its place in `days`; -1 where there is no bar."""
    close: Array
    """US dollars."""
    volume: Array
    """Shares."""

    def returns(self, last: int | None = None) -> Array:
        """(m - 1, n), of them the last (last, n), log returns from a bar to the next one."""
        close = self.close if last is None else self.close[-last - 1 :]
        return np.diff(np.log(close), axis=0)

    @cached_property
    def volatility(self) -> dict[str, float]:
        """Standard deviation of the last 20 log returns, of the symbols that have them."""
        last = self.returns(20)
        deviations = last.std(axis=0, ddof=1) if len(last) == 20 else np.full(len(self.symbols), np.nan)
        return {s: x for s, x in zip(self.symbols, deviations.tolist(), strict=True) if x == x}

    def parts(self) -> "Iterator[MarketBars]":
        """These, some symbols at a time: for what would take an array of all bars on the way."""
        for i in range(0, len(self.symbols), SYMBOLS):
            some = slice(i, i + SYMBOLS)
            arrays = (self.session[:, some], self.close[:, some], self.volume[:, some])
            yield MarketBars(self.symbols[some], self.days, *arrays)

    def has(self, day: str) -> Array:
        """(n,) whether a symbol's last bar is of a session."""
        at = np.searchsorted(self.days, np.datetime64(day, "D"))
        is_there = at < len(self.days) and str(self.days[at]) == day
        return self.session[-1] == at if is_there else np.zeros(len(self.symbols), bool)

    def with_live(self, features: Mapping[str, SymbolFeatures]) -> "MarketBars":
        """These and, of each symbol whose bar in `features` is newer than its last one, that bar."""
        lasts = np.datetime_as_string(self.days)[self.session[-1]] if self.symbols else []
        live = [
            (i, found)
            for i, (symbol, last) in enumerate(zip(self.symbols, lasts, strict=True))
            if (found := features.get(symbol)) is not None
            and found.as_of[:10] > last
            and all(found.values.get(name) is not None for name in NUMBERS)
        ]
        if not live:
            return self
        at = np.array([i for i, _ in live])
        new = np.array([found.as_of[:10] for _, found in live], "datetime64[D]")
        days = np.union1d(self.days, new)
        place = np.append(np.searchsorted(days, self.days), -1)  # the last one is that of no bar

        def followed(before: Array, last: Array) -> Array:
            after = before.copy()
            after[:-1, at], after[-1, at] = before[1:, at], last
            return after

        closes, volumes = (
            np.array([found.values[name] for _, found in live], float) for name in ("close", "volume")
        )
        return MarketBars(
            self.symbols,
            days,
            followed(place[self.session].astype(np.int16), np.searchsorted(days, new)),
            followed(self.close, closes),
            followed(self.volume, volumes),
        )


class BarHistory:
    """Every version of every bar. Of the file is read what is asked for; threads may share it.

    A session of the exchange closes on its own day in UTC too, so that its day is that of its close.

    Args:
        path: `data/features/daily.parquet`, sorted by symbol, session and when it was known.
    """

    def __init__(self, path: Path):
        self._path = path
        self._reading = threading.Lock()
        self._spans: dict[tuple[str | None, int | None], MarketBars] = {}
        self._table = lru_cache(TABLES)(self._read_table)
        days = [np.unique(microseconds(part[KEYS[1]]) // DAY) for part in self._parts(KEYS[1:2])]
        self.sessions = np.unique(np.concatenate(days or [np.empty(0, int)])).astype("datetime64[D]")
        """Days on which any symbol has a bar, in order."""

    def of(self, symbol: str, at: int | None = None) -> SymbolBars | None:
        """The bars of a symbol up to the last one, back to where its history was last broken.

        Args:
            at: the instant at which they were known, microseconds since 1970; None for now.

        Returns:
            None where no bar of it was known.
        """
        table = self._table(symbol)
        known = _known(table, at)
        if not len(known.row):
            return None
        price, share = (table[name].to_numpy()[known.row] for name in BASIS[:2])
        prices = [table[name].to_numpy()[known.row] * (price / price[-1]) for name in NUMBERS[:4]]
        numbers = [*prices, table["volume"].to_numpy()[known.row] * (share / share[-1])]
        return SymbolBars(known.day, *numbers)

    def features(
        self, symbol: str, names: Sequence[str], at: int | None
    ) -> tuple[Array, dict[str, Array]]:
        """Features of a symbol by session, the latest version that was known, as they were computed.

        Args:
            names: of features.
            at: as `of` has it.

        Returns:
            (n,) datetime64[D], the sessions in order, and (n,) float by name, NaN where a feature lacks
            its history. Without rows where no bar of the symbol was known.

        Raises:
            StoreError: the file cannot be read, or lacks a feature.
        """
        table = self._table(symbol)
        if not set(names) <= set(table.column_names):
            table = self._read_table(symbol, [*KEYS, "close", *names])
        rows = _latest(table, at)
        days = (microseconds(table[KEYS[1]])[rows] // DAY).astype("datetime64[D]")
        return days, {name: table[name].to_numpy()[rows].astype(float) for name in names}

    def market(self, day: str | None = None, at: int | None = None) -> MarketBars:
        """The bars of all symbols in the last `SPAN` sessions up to a day.

        Args:
            day: ISO 8601; None for the newest session.
            at: as `of` has it.
        """
        asked = day, at
        with self._reading, reading(self._path):  # one thread reads, the others wait for it
            if asked not in self._spans:
                # Kept are the newest span and one of the past.
                self._spans = {key: span for key, span in self._spans.items() if NOW in (key, asked)}
                self._spans[asked] = self._read(day, at)
            return self._spans[asked]

    def _read_table(self, symbol: str, columns: Sequence[str] = ()) -> "pa.Table":
        """All versions of a symbol's rows; of no columns named, what its page takes."""
        import pyarrow.parquet as pq

        with reading(self._path):
            if not columns:
                there = pq.read_schema(self._path).names
                columns = [*KEYS, *NUMBERS, *BASIS, *(name for name in RANGE if name in there)]
            wanted = list(dict.fromkeys(columns))
            return pq.read_table(self._path, columns=wanted, filters=[("symbol", "=", symbol)])

    def _read(self, day: str | None, at: int | None) -> MarketBars:
        end = len(self.sessions)
        if day is not None:
            end = int(np.searchsorted(self.sessions, np.datetime64(day, "D"), side="right"))
        days = self.sessions[max(end - SPAN, 0) : end]
        names: list[str] = []
        blocks: list[tuple[Array, Array, Array]] = []
        parts = self._parts([*KEYS, "close", "volume", *BASIS])
        for part in _of_whole_symbols(part for whole in parts if len(part := _within(whole, days))):
            known = _known(part, at)
            symbols = part["symbol"].take(known.row[known.back == 0]).to_pylist()
            close, volume, price, share = (
                part[name].to_numpy()[known.row] for name in ("close", "volume", *BASIS[:2])
            )
            shape, where = (len(days), len(symbols)), (len(days) - 1 - known.back, known.number)
            block = np.full(shape, -1, np.int16), np.full(shape, np.nan), np.full(shape, np.nan)
            block[0][where] = np.searchsorted(days, known.day)
            block[1][where] = close * (price / price[known.last])
            block[2][where] = volume * (share / share[known.last])
            names += symbols
            blocks.append(block)
        if not blocks:
            return MarketBars([], days, *(np.empty((len(days), 0)) for _ in range(3)))
        return MarketBars(names, days, *(np.hstack(each) for each in zip(*blocks, strict=True)))

    def _parts(self, columns: list[str]) -> "Iterator[pa.Table]":
        import pyarrow as pa
        import pyarrow.parquet as pq

        with pq.ParquetFile(self._path) as file:
            for batch in file.iter_batches(PART, columns=columns):
                yield pa.Table.from_batches([batch])


@dataclass(frozen=True)
class _Known:
    """The bars of a table that were known, (k,) each, in its order."""

    row: Array
    """In the table."""
    day: Array
    """datetime64[D]"""
    number: Array
    """Of its symbol, 0 for the first one."""
    last: Array
    """Place of its symbol's last bar."""

    @property
    def back(self) -> Array:
        """How many bars of its symbol follow."""
        return self.last - np.arange(len(self.last))


def _known(table: "pa.Table", at: int | None) -> _Known:
    """The latest version of each bar, of each symbol back to where its history was last broken.

    Args:
        table: of whole symbols, sorted as the file is.
        at: see `BarHistory.of`.
    """
    symbols, rows = _numbers(table), _latest(table, at)
    segment = table["segment"].to_numpy()
    rows = rows[segment[rows] == segment[rows][_lasts(symbols[rows])]]
    last = _lasts(symbols[rows])
    number = np.cumsum(np.diff(symbols[rows], prepend=-1) != 0) - 1
    days = (microseconds(table[KEYS[1]])[rows] // DAY).astype("datetime64[D]")
    return _Known(rows, days, number, last)


def _latest(table: "pa.Table", at: int | None) -> Array:
    """Which rows are the latest versions that were known, but of withdrawn bars; see `_known`."""
    closes, created = (microseconds(table[name]) for name in KEYS[1:])
    rows = np.arange(len(table)) if at is None else np.flatnonzero(created <= at)
    is_next = np.diff(closes[rows], append=0) != 0
    is_next |= np.diff(_numbers(table)[rows], append=-1) != 0
    rows = rows[is_next]
    return rows[~np.isnan(table["close"].to_numpy()[rows])]


def _numbers(table: "pa.Table") -> Array:
    """Of each row the number of its symbol."""
    return table["symbol"].combine_chunks().dictionary_encode().indices.to_numpy()


def _lasts(symbols: Array) -> Array:
    """(k,) Of each row the last one of its symbol; those of a symbol lie together."""
    ends = np.flatnonzero(np.diff(symbols, append=-1))
    return np.repeat(ends, np.diff(ends, prepend=-1))


def _within(table: "pa.Table", days: Array) -> "pa.Table":
    """The rows of sessions that lie between the first and the last of these."""
    day = microseconds(table[KEYS[1]]) // DAY
    is_within = (day >= days[0].astype(int)) & (day <= days[-1].astype(int)) if len(days) else day < 0
    return table if is_within.all() else table.take(np.flatnonzero(is_within))


def _of_whole_symbols(parts: "Iterator[pa.Table]") -> "Iterator[pa.Table]":
    """Parts of a table that is sorted by symbol, cut where a symbol ends."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rest: pa.Table | None = None
    for part in parts:
        table = part if rest is None else pa.concat_tables([rest, part])
        start = pc.index(table["symbol"], table["symbol"][-1]).as_py()
        rest = table.slice(start)
        if start:
            yield table.slice(0, start)
    if rest is not None:
        yield rest
