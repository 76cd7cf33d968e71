"""A feed of corporate actions: a CSV of them, as it is loaded beside the bars."""

from pathlib import Path

import numpy as np
import pandas as pd

from pitwise.bars.actions import ACTION_KEY, KINDS, SAID, TYPES
from pitwise.bars.sources.cells import MISSING, days, numbers, refuse, symbols
from pitwise.bars.sources.tables import file_cells
from pitwise.errors import DataError

NEEDED = [*ACTION_KEY, "ratio", "amount"]
RATIO = r"(\d+(?:\.\d+)?)\s*[:/]\s*(\d+(?:\.\d+)?)"
"""New shares for old, such as 3:2."""


def csv_actions(path: Path) -> pd.DataFrame:
    """The actions of a file: `.csv` or `.csv.gz`, any column order.

    Raises:
        DataError: it cannot be read, lacks a column, or a row of it says nothing that can be believed;
            names the file, the row and what to do.
    """
    name = str(path)
    cells = file_cells(path, "Give the feed with --actions, or set load.actions")
    missing = [column for column in NEEDED if column not in cells]
    if missing:
        raise DataError(
            f"{path}: has no column {', '.join(missing)}; it has {', '.join(cells.columns)}. Needed are "
            f"{', '.join(NEEDED)}; 'announced' may be there."
        )
    twice = cells.columns[cells.columns.duplicated()]
    if len(twice):
        raise DataError(f"{path}: column '{twice[0]}' stands there twice. Remove one of the two.")
    return _checked(name, _typed(name, cells))


def _typed(name: str, cells: pd.DataFrame) -> pd.DataFrame:
    """The cells in the types of `pitwise.bars.actions.TYPES`; rows keep their number in the file."""
    cells = cells.mask(cells.isin(MISSING))
    if "announced" not in cells:
        cells["announced"] = np.nan
    for column in ACTION_KEY:
        refuse(name, cells, cells[column].isna(), column, "is there", "Fill it in or remove the row")
    pair = cells["ratio"].astype("string").str.extract(f"^{RATIO}$").astype("float64")
    plain = cells["ratio"].mask(pair.notna().all(axis=1), (pair[0] / pair[1]).astype(str))
    read = numbers(pd.DataFrame({"ratio": plain, "amount": cells["amount"]}), name)
    typed = {
        "symbol": symbols(name, cells),
        "date": days(cells["date"], name),
        "kind": cells["kind"].str.lower().str.replace(r"[\s-]+", "_", regex=True),
        "ratio": read["ratio"],
        "amount": read["amount"],
        "announced": (days(cells["announced"], name) if cells["announced"].notna().any() else pd.NaT),
    }
    return pd.DataFrame(typed, index=cells.index).astype(TYPES)


def _checked(name: str, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, each once; DataError at the first that cannot be believed."""
    kind, ratio, amount = rows["kind"], rows["ratio"], rows["amount"]
    refuse(name, rows, ~kind.isin(KINDS), "kind", f"is none of {', '.join(KINDS)}", "Mend it")
    split, part = kind == "split", kind == "spin_off"
    cash = kind.isin(["dividend", "special_dividend"])
    wrong = split & ~((ratio > 0) & (ratio < np.inf) & (ratio != 1))
    what = "is not the new shares for one old share of a split"
    refuse(name, rows, wrong, "ratio", what, "Write 2 or 2:1 for two new for one old")
    wrong = part & ratio.notna() & ~((ratio > 0) & (ratio < 1))
    what = "is not the part of the price that stays after a spin-off, between 0 and 1"
    refuse(name, rows, wrong, "ratio", what, "Leave it empty where it is not known")
    wrong = (cash | part & amount.notna()) & ~((amount > 0) & (amount < np.inf))
    refuse(name, rows, wrong, "amount", "is no amount of dollars a share", "Mend or remove the row")
    wrong = ~(split | part) & ratio.notna()
    refuse(name, rows, wrong, "ratio", "has no meaning for this kind of action", "Leave it empty")
    wrong = (~(cash | part) | part & ratio.notna()) & amount.notna()
    refuse(name, rows, wrong, "amount", "has no meaning for this kind of action", "Leave it empty")
    rows = rows.drop_duplicates()
    second = rows.duplicated(ACTION_KEY)
    what = "stands there for this symbol and day in another row too, with other numbers"
    refuse(name, rows, second, "kind", what, "Write one row, the amounts added")
    return rows.reset_index(drop=True)[[*ACTION_KEY, *SAID]]
