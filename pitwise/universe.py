"""Who belongs to the universe, and to which sector, in each session: tables of intervals of days.

Prices that are at hand today are mostly those of companies that are still there. A model that is fitted
and judged on them alone looks better than it would have been: survivorship bias.
Source: Brown, Goetzmann, Ibbotson and Ross (1992), Survivorship bias in performance studies.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pitwise.bars.calendar import session_days
from pitwise.bars.sources.cells import MISSING, days
from pitwise.bars.sources.tables import text_cells
from pitwise.errors import DataError, one_line
from pitwise.workspace import Workspace

UNIVERSE = "universe/universe.csv"
SECTORS = "universe/sectors.csv"
NO_UNIVERSE = (
    "no universe given: training and figures are of every symbol with bars, and flatter survivors; "
    "see docs/universe.md"
)
SHOWN = 5
"""Symbols that a message names."""


def read_universe(workspace: Workspace) -> pd.DataFrame | None:
    """The workspace's `universe/universe.csv`, see `read_intervals`; None where it has none."""
    path = workspace.root / UNIVERSE
    return read_intervals(path) if path.is_file() else None


def read_sectors(workspace: Workspace) -> pd.DataFrame | None:
    """The workspace's `universe/sectors.csv` with its `value`s; None where it has none."""
    path = workspace.root / SECTORS
    return read_intervals(path, with_value=True) if path.is_file() else None


def read_intervals(path: Path, with_value: bool = False) -> pd.DataFrame:
    """A CSV of what held of each symbol, and from which day to which.

    Columns are `symbol`, `from`, `to` and, where it is wanted, `value`, in any order; others are not
    read. An interval has its first day and not the day `to`; an empty `to` says that it still holds. A
    symbol that left and came back has a row for each time.

    Returns:
        `symbol`, `from`, `to` (naive midnights; NaT: still) and, if wanted, `value`, sorted by symbol
        and from.

    Raises:
        DataError: the file cannot be read, lacks a column, or a row of it cannot be believed; names the
            file, the row and what to do.
    """
    name = str(path)
    try:
        cells = text_cells(name, path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {one_line(error)}.") from error
    columns = ["symbol", "from", "to", *(["value"] if with_value else [])]
    for column in columns:
        if (n := list(cells.columns).count(column)) != 1:
            raise DataError(
                f"{path}: has {n or 'no'} column{'s' * (n > 1)} '{column}'; it has "
                f"{', '.join(cells.columns)}. Needed once each are {', '.join(columns)}."
            )
    cells = cells[columns].mask(cells[columns].isin(MISSING))
    if cells.empty:
        raise DataError(f"{path}: has no rows. Fill it in, or remove the file.")
    for column in columns:
        if column != "to":
            _refuse(name, cells, cells[column].isna(), column, "is empty. Fill it in")
    wrong = ~cells["symbol"].map(str.isascii).astype(bool)
    _refuse(name, cells, wrong, "symbol", "holds a character that no symbol has. Mend it")
    rows = cells.assign(symbol=cells["symbol"].str.upper())
    for column in ("from", "to"):
        read = days(cells[column], name) if cells[column].notna().any() else pd.NaT
        rows[column] = pd.Series(read, cells.index, dtype="datetime64[us]")
    wrong = rows["to"] <= rows["from"]
    what = "is not after 'from'. It is the first day on which this no longer holds"
    _refuse(name, cells, wrong, "to", what)
    rows = rows.sort_values(["symbol", "from"], kind="stable")
    same = rows["symbol"] == rows["symbol"].shift()
    before = rows["to"].shift()
    overlap = same & (before.isna() | (before > rows["from"]))
    if overlap.any():
        at = int(overlap.to_numpy().argmax())
        raise DataError(
            f"{path}: rows {rows.index[at - 1]} and {rows.index[at]} of {rows['symbol'].iat[at]} "
            "overlap. Let one end ('to') on the day that the other begins ('from')."
        )
    return rows.reset_index(drop=True)


def _refuse(name: str, cells: pd.DataFrame, wrong: pd.Series, column: str, what: str) -> None:
    if wrong.any():
        row = wrong.index[wrong.argmax()]
        cell = cells.at[row, column]
        shown = "" if pd.isna(cell) else f": {str(cell)[:40]!r}"
        raise DataError(f"{name}: row {row}, column '{column}'{shown} {what}.")


def holding(intervals: pd.DataFrame, rows: pd.DataFrame) -> np.ndarray:
    """Which interval holds of each row's symbol on the day of its session.

    Args:
        intervals: see `read_intervals`.
        rows: `symbol` and `event_timestamp`, the instant of a session's close.

    Returns:
        (n,) positions in `intervals`, -1 where none holds.
    """
    day = session_days(rows["event_timestamp"]).astype("datetime64[us]")
    asked = {"symbol": rows["symbol"].astype(str).to_numpy(object), "day": day.to_numpy()}
    wanted = pd.DataFrame(asked).assign(row=np.arange(len(rows))).sort_values("day", kind="stable")
    known = intervals[["symbol", "from", "to"]].assign(at=np.arange(len(intervals)))
    # They do not overlap, so that of those begun only the last can hold.
    begun = pd.merge_asof(
        wanted,
        known.astype({"symbol": object}).sort_values("from", kind="stable"),
        left_on="day",
        right_on="from",
        by="symbol",
    )
    holds = begun["at"].notna() & ~(begun["to"] <= begun["day"])
    result = np.full(len(rows), -1)
    result[begun["row"]] = begun["at"].where(holds, -1).astype(int)
    return result


def members(universe: pd.DataFrame | None, rows: pd.DataFrame) -> np.ndarray:
    """Whether each row's symbol belongs to the universe in its session; (n,) bool, all where it is None.

    Args:
        universe, rows: see `holding`.
    """
    return np.full(len(rows), True) if universe is None else holding(universe, rows) >= 0


def values(intervals: pd.DataFrame, rows: pd.DataFrame) -> np.ndarray:
    """The `value` that holds of each row, such as its sector; (n,) of str, None where none does."""
    at = holding(intervals, rows)
    found = intervals["value"].to_numpy(object)[at]
    found[at < 0] = None
    return found


def survivorship(universe: pd.DataFrame | None, symbols: set[str], where: Path) -> dict[str, Any]:
    """How much of the universe the bars cover.

    Args:
        symbols: those with bars.
        where: the universe's file, for messages.

    Returns:
        survivorship: why figures may flatter survivors, None where nothing speaks for it; universe: None
        or `symbols`, `without_bars` and `never_members`, the last two by name.

    Raises:
        DataError: no symbol of the universe has bars.
    """
    if universe is None:
        return {"survivorship": NO_UNIVERSE, "universe": None}
    named = set(universe["symbol"])
    if not named & symbols:
        raise DataError(
            f"{where}: none of its symbols, such as {_shown(named)}, has bars; those with bars are "
            f"{_shown(symbols)}. Spell them as the bars do, or remove the file."
        )
    without = sorted(named - symbols)
    told = f"{len(without)} of the universe's {len(named)} symbols have no bars: {_shown(set(without))}"
    return {
        "survivorship": told if without else None,
        "universe": {
            "symbols": len(named),
            "without_bars": without,
            "never_members": sorted(symbols - named),
        },
    }


def _shown(symbols: set[str]) -> str:
    return ", ".join(sorted(symbols)[:SHOWN]) + (", ..." if len(symbols) > SHOWN else "")
