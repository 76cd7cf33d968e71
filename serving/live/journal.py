"""Live bars as they came, kept before anything is made of them."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd

from pitwise.bars.schema import ADJUSTED_CLOSE, NUMBERS
from pitwise.errors import StoreError

VALUES = [*NUMBERS, ADJUSTED_CLOSE]
COLUMNS = ["received_at", "symbol", "date", *VALUES]


class Journal:
    """A table in SQLite that only grows; what `add` has kept survives a kill and a power cut."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        with closing(self._open()) as database, database:
            values = ", ".join(f"{name} REAL" for name in VALUES)
            database.execute(
                "CREATE TABLE IF NOT EXISTS bars (id INTEGER PRIMARY KEY, received_at TEXT NOT NULL, "
                f"symbol TEXT NOT NULL, date TEXT NOT NULL, {values})"
            )

    def add(self, bars: pd.DataFrame, now: pd.Timestamp) -> None:
        """Keep bars as received now.

        Raises:
            StoreError: the disk does not take them; none of them is kept.
        """
        rows = [
            (now.isoformat(), bar["symbol"], f"{bar['date']:%Y-%m-%d}", *(bar.get(v) for v in VALUES))
            for bar in bars.to_dict("records")
        ]
        places = ", ".join("?" * len(COLUMNS))
        try:
            with closing(self._open()) as database, database:
                database.executemany(f"INSERT INTO bars ({', '.join(COLUMNS)}) VALUES ({places})", rows)
        except sqlite3.Error as error:
            raise StoreError(
                f"{self.path}: {error}. The bars were not taken; send them again."
            ) from error

    def bars(self) -> pd.DataFrame:
        """The newest bar of each symbol and session: received_at (UTC), symbol, date and the numbers."""
        with closing(self._open()) as database:
            rows = pd.read_sql("SELECT * FROM bars ORDER BY id", database)
        rows = rows.drop_duplicates(["symbol", "date"], keep="last").drop(columns="id")
        return rows.assign(
            received_at=pd.to_datetime(rows["received_at"], utc=True, format="ISO8601"),
            symbol=rows["symbol"].astype("string"),
            date=pd.to_datetime(rows["date"]),
            **{name: rows[name].astype("float64") for name in VALUES},
        ).reset_index(drop=True)

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path)
