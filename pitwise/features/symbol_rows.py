"""Rows of many symbols, held so that to add or replace a few costs what they are, not what is held."""

from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np
import pandas as pd

ROOM = 64
"""Rows that each symbol can be given before all are laid out anew."""


class SymbolRows:
    """The last rows of each symbol, in order of time.

    A symbol's rows stand together, with room behind them. In the frames that come out they are sorted by
    symbol, and `symbol` is a category of all the names. Symbols are asked for by `codes`, and rows by
    their position among the symbol's: (n,) int each, the codes ascending.

    Args:
        rows: sorted by symbol and time.
        names: all symbols that there may be, sorted.
        time: the column that the rows of a symbol are sorted by.
        keep: how many rows of a symbol stay when all are laid out anew.
    """

    def __init__(self, rows: pd.DataFrame, names: Sequence[str], time: str, keep: int):
        self.names = pd.Index(names, dtype="string")
        self._code_of = {name: code for code, name in enumerate(names)}
        self._time, self._keep = time, keep
        self.dtypes = {name: dtype for name, dtype in rows.dtypes.items() if name != "symbol"}
        """Of the columns beside `symbol`."""
        self._lay_out(self.codes_of(rows), self._columns(rows))

    def code(self, name: str) -> int | None:
        """The code of a symbol; None where it is not known."""
        return self._code_of.get(name)

    def codes(self, names: Collection[str]) -> np.ndarray:
        """The codes of some symbols, ascending; those that are not known are left out."""
        return np.array(sorted(self._code_of[name] for name in names if name in self._code_of), int)

    def codes_of(self, rows: pd.DataFrame) -> np.ndarray:
        """(n,) the code of each row's symbol."""
        symbol = rows["symbol"].array
        if isinstance(symbol, pd.Categorical) and symbol.categories is self.names:
            return symbol.codes.astype("int64")
        return self.names.get_indexer(symbol)

    def symbols(self, codes: np.ndarray) -> pd.Categorical:
        """The column `symbol` of rows of these codes, in any order."""
        return pd.Categorical.from_codes(codes, self.names, validate=False)

    @property
    def all(self) -> np.ndarray:
        """The codes of all symbols."""
        return np.arange(len(self.names))

    def size(self, codes: np.ndarray) -> np.ndarray:
        """How many rows each has."""
        return self._size[codes]

    def before(
        self,
        codes: np.ndarray,
        times: np.ndarray | np.datetime64,
        side: Literal["left", "right"] = "left",
    ) -> np.ndarray:
        """How many rows each has before an instant; with `side="right"` those at it count too.

        Args:
            times: one for all, or (n,); a NaT is after all.
        """
        times = np.broadcast_to(np.asarray(times, "datetime64[us]"), codes.shape)
        column, starts, sizes = self._held[self._time], self._start[codes], self._size[codes]
        found = [
            column[start : start + size].searchsorted(time, side)
            for start, size, time in zip(starts.tolist(), sizes.tolist(), times, strict=True)
        ]
        return np.array(found, "int64")

    def column(self, code: int, name: str) -> np.ndarray:
        """A column of one symbol's rows; not to be written to."""
        start = self._start[code]
        return self._held[name][start : start + self._size[code]]

    def last(self, name: str) -> np.ndarray:
        """A datetime column of each symbol's last row, of all symbols; NaT where there is none."""
        last = self._held[name][self._start + np.maximum(self._size - 1, 0)]
        return np.where(self._size > 0, last, np.datetime64("NaT"))

    def values(
        self,
        codes: np.ndarray,
        names: Sequence[str],
        first: np.ndarray | int = 0,
        end: np.ndarray | None = None,
    ) -> tuple[np.ndarray, ...]:
        """Columns of the rows of some symbols from a position to another, and the code of each row."""
        at, of = self._at(codes, first, end)
        return (*(self._held[name][at] for name in names), of)

    def frame(
        self, codes: np.ndarray, first: np.ndarray | int = 0, end: np.ndarray | None = None
    ) -> pd.DataFrame:
        """The rows of some symbols from a position to another."""
        at, of = self._at(codes, first, end)
        return self._framed({name: column[at] for name, column in self._held.items()}, of)

    def replaced(
        self,
        codes: np.ndarray,
        first: np.ndarray,
        rows: pd.DataFrame,
        begin: np.ndarray | int = 0,
    ) -> pd.DataFrame:
        """The rows of some symbols, from `begin` on, as they are after `replace`."""
        at, of = self._at(codes, np.minimum(begin, first), first)
        added = self.codes_of(rows)
        order = np.argsort(np.append(of, added), kind="stable")
        place = np.empty(len(order), "int64")
        place[order] = np.arange(len(order))
        columns = {}
        for name, values in self._columns(rows).items():
            held = self._held[name]
            columns[name] = np.empty(len(order), held.dtype)
            columns[name][place[: len(at)]] = held[at]
            columns[name][place[len(at) :]] = values
        return self._framed(columns, np.append(of, added)[order])

    def replace(self, codes: np.ndarray, first: np.ndarray, rows: pd.DataFrame) -> None:
        """Put `rows` in place of what some symbols have from a position on.

        Args:
            first: (n,) where the rows of each of `codes` begin to be others.
            rows: of these symbols alone, sorted by symbol and time.
        """
        of, columns = self.codes_of(rows), self._columns(rows)
        added = np.bincount(of, minlength=len(self.names))[codes]
        if (first + added > self._room[codes]).any():
            ends = self._size.copy()
            ends[codes] = first
            at, held = self._at(self.all, 0, ends)
            of = np.append(held, of)
            order = np.argsort(of, kind="stable")
            parts = {name: np.append(self._held[name][at], new) for name, new in columns.items()}
            self._lay_out(of[order], {name: column[order] for name, column in parts.items()})
            return
        self._size[codes] = first + added
        at, _ = self._at(codes, first, None)
        for name, column in columns.items():
            self._held[name][at] = column

    def _lay_out(self, of: np.ndarray, columns: dict[str, np.ndarray]) -> None:
        """Give every symbol its last rows and room behind them; `of` are the rows' codes, ascending."""
        sizes = np.bincount(of, minlength=len(self.names))
        self._size = np.minimum(sizes, self._keep)
        self._room = self._size + ROOM
        self._start = np.cumsum(self._room) - self._room
        kept = np.arange(len(of)) >= (np.cumsum(sizes) - self._size)[of]
        at, _ = self._at(self.all, 0, None)
        self._held = {}
        for name, column in columns.items():
            self._held[name] = np.empty(int(self._room.sum()), column.dtype)
            self._held[name][at] = column[kept]

    def _columns(self, rows: pd.DataFrame) -> dict[str, np.ndarray]:
        columns = {}
        for name, dtype in self.dtypes.items():
            column = rows[name]
            if isinstance(dtype, pd.DatetimeTZDtype):
                columns[name] = column.dt.tz_convert(None).to_numpy("datetime64[us]")
            else:
                columns[name] = column.to_numpy(dtype if dtype.kind in "Mbiuf" else object)
        return columns

    def _framed(self, columns: dict[str, np.ndarray], codes: np.ndarray) -> pd.DataFrame:
        """A table of columns as they are held; it shares their memory."""
        whole: dict[str, object] = {"symbol": self.symbols(codes)}
        for name, dtype in self.dtypes.items():
            if isinstance(dtype, pd.DatetimeTZDtype):
                whole[name] = pd.DatetimeIndex(columns[name]).tz_localize("UTC")
            else:
                whole[name] = columns[name]
        return pd.DataFrame(whole, copy=False)

    def _at(
        self, codes: np.ndarray, first: np.ndarray | int, end: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where the rows of some symbols are, and the code of each one's symbol."""
        counts = np.maximum((self._size[codes] if end is None else end) - first, 0)
        begins = self._start[codes] + first
        skipped = np.cumsum(counts) - counts
        return np.arange(counts.sum()) + np.repeat(begins - skipped, counts), np.repeat(codes, counts)
