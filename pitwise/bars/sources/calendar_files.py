"""A calendar of events with a publication lag, such as earnings: a CSV of what was known, and when."""

from pathlib import Path

import numpy as np
import pandas as pd

from pitwise.bars.sources.cells import days, needed_columns, numbers, refuse, symbols
from pitwise.bars.sources.tables import file_cells

EVENT_KEY = ["symbol", "kind", "date"]
EVENT = [*EVENT_KEY, "value", "known_at"]
TYPES = {
    "symbol": "string",
    "kind": "string",
    "date": "datetime64[us]",
    "value": "float64",
    "known_at": "datetime64[us, UTC]",
}
DAY = r"\d{4}-?\d\d-?\d\d"


def csv_events(path: Path) -> pd.DataFrame:
    """The events of a file: `.csv` or `.csv.gz`, columns `EVENT` in any order.

    A row of the same symbol, kind and date as another, and known later, is a correction of it.
    `known_at` is an instant, in UTC where it names no zone; a day alone means the end of that day in
    UTC, for an instant within it would be a guess that looks ahead.

    Returns:
        (n,) `TYPES`, in the order of the file; a `value` may be missing.

    Raises:
        DataError: it cannot be read, lacks a column, or a row of it cannot be believed; names the file,
            the row, the column and what to do.
    """
    name = str(path)
    cells = file_cells(path, "Mend calendar.path, or make the file")
    cells = needed_columns(name, cells, EVENT, "leave it out")
    for column in (*EVENT_KEY, "known_at"):
        what = "is there" + "; without it nothing can be joined point in time" * (column == "known_at")
        refuse(name, cells, cells[column].isna(), column, what, "Fill it in or remove the row")
    rows = pd.DataFrame(
        {
            "symbol": symbols(name, cells),
            "kind": cells["kind"].str.lower().str.replace(r"[\s-]+", "_", regex=True),
            "date": days(cells["date"], name),
            "value": numbers(cells[["value"]], name)["value"],
            "known_at": _instants(name, cells),
        },
        index=cells.index,
    ).astype(TYPES)
    refuse(name, rows, np.isinf(rows["value"]), "value", "is no finite number", "Mend or remove the row")
    strange = ~rows["kind"].str.fullmatch(r"[a-z0-9_]+").astype(bool)
    what = "is no kind: letters, digits and _ name a column"
    refuse(name, rows, strange, "kind", what, "Mend it")
    rows = rows.drop_duplicates()
    second = rows.duplicated([*EVENT_KEY, "known_at"])
    what = "is known of the same event from another row too, with another value"
    remedy = "Give the correction the later instant at which it was known"
    refuse(name, rows, second, "known_at", what, remedy)
    return rows.reset_index(drop=True)


def _instants(name: str, cells: pd.DataFrame) -> pd.Series:
    """The column `known_at` in UTC."""
    text = cells["known_at"].astype("string")
    instants = pd.to_datetime(text, errors="coerce", utc=True, format="ISO8601")
    instants = instants.where(text.str.match(DAY).astype(bool))  # a month alone is no day
    what = "is no instant such as 2014-04-23T20:30:00Z, and no day such as 2014-04-23"
    refuse(name, cells, instants.isna(), "known_at", what, "Mend it")
    day_alone = text.str.fullmatch(DAY).astype(bool)
    return instants.where(~day_alone, instants + pd.Timedelta(days=1)).astype("datetime64[us, UTC]")
