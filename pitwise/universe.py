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
from pitwise.bars.sources.cells import days, needed_columns, refuse, symbols
from pitwise.bars.sources.tables import file_cells
from pitwise.errors import DataError
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
    """A `.csv` or `.csv.gz` of what held of each symbol, and from which day to which.

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
    columns = ["symbol", "from", "to", *(["value"] if with_value else [])]
    cells = needed_columns(
        name, file_cells(path, "Make it, or mend its path"), columns, "remove the file"
    )
    for column in columns:
        if column != "to":
            refuse(name, cells, cells[column].isna(), column, "is there", "Fill it in")
    rows = cells.assign(symbol=symbols(name, cells))
    for column in ("from", "to"):
        read = days(cells[column], name) if cells[column].notna().any() else pd.NaT
        rows[column] = pd.Series(read, cells.index, dtype="datetime64[us]")
    wrong = rows["to"] <= rows["from"]
    remedy = "It is the first day on which this no longer holds"
    refuse(name, cells, wrong, "to", "is not after 'from'", remedy)
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
