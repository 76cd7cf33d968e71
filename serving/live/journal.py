"""Live bars as they came, kept before anything is made of them, until they stand in a landing."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd
from filelock import FileLock

from pitwise.bars.landing import Landing, land
from pitwise.bars.schema import ADJUSTED_CLOSE, NUMBERS
from pitwise.errors import StoreError
from pitwise.features.incremental import LIVE
from pitwise.workspace import Workspace

VALUES = [*NUMBERS, ADJUSTED_CLOSE]
COLUMNS = ["received_at", "symbol", "date", *VALUES, "withdrawn"]
ADDED = {"withdrawn": "INTEGER NOT NULL DEFAULT 0", "batch": "INTEGER"}
"""Columns that a journal of an earlier version of this program lacks."""


class Journal:
    """A table in SQLite; what `add` has kept survives a kill and a power cut."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        with closing(self._open()) as database, database:
            values = ", ".join(f"{name} REAL" for name in VALUES)
            database.execute(
                "CREATE TABLE IF NOT EXISTS bars (id INTEGER PRIMARY KEY, received_at TEXT NOT NULL, "
                f"symbol TEXT NOT NULL, date TEXT NOT NULL, {values})"
            )
            there = {row[1] for row in database.execute("PRAGMA table_info(bars)")}
            for name, kind in ADDED.items():
                if name not in there:
                    database.execute(f"ALTER TABLE bars ADD COLUMN {name} {kind}")

    def add(self, bars: pd.DataFrame, now: pd.Timestamp, withdrawn: bool = False) -> None:
        """Keep bars as received now, or that they are withdrawn.

        Raises:
            StoreError: the disk does not take them; none of them is kept.
        """
        rows = [
            (
                now.isoformat(),
                bar["symbol"],
                f"{bar['date']:%Y-%m-%d}",
                *(bar.get(name) for name in VALUES),
                withdrawn,
            )
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

    def waiting(self) -> Landing | None:
        """What no landing has yet, as one; None where there is nothing."""
        with closing(self._open()) as database:
            return _landing(pd.read_sql("SELECT * FROM bars ORDER BY id", database))

    def drain(self, workspace: Workspace) -> list[Path]:
        """Move everything into landings, see `drain`."""
        landed = []
        with FileLock(self.path.with_suffix(".drain")), closing(self._open()) as database:
            # A part is settled before it lands: after a kill it lands again, as the same file.
            with database:
                database.execute(
                    "UPDATE bars SET batch = (SELECT COALESCE(MAX(batch), 0) + 1 FROM bars) "
                    "WHERE batch IS NULL"
                )
            batches = database.execute("SELECT DISTINCT batch FROM bars ORDER BY batch").fetchall()
            for (batch,) in batches:
                rows = pd.read_sql(
                    "SELECT * FROM bars WHERE batch = ? ORDER BY id", database, params=[batch]
                )
                landing = _landing(rows)
                assert landing is not None
                landed.append(land(workspace, landing))
                with database:
                    database.execute("DELETE FROM bars WHERE batch = ?", [batch])
        return landed

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=60)
        database.execute("PRAGMA synchronous = FULL")
        return database


def drain(workspace: Workspace) -> list[Path]:
    """Move the live bars of a workspace into landings, each from its own instant.

    It may be called while a service runs, and again after a kill at any point: a bar is in the journal
    until its landing is on the disk, and lands once.

    Returns:
        the new landings' files.

    Raises:
        StoreError: a landing cannot be written; what it should hold stays in the journal.
    """
    if not workspace.live_bars.exists():
        return []
    return Journal(workspace.live_bars).drain(workspace)


def _landing(rows: pd.DataFrame) -> Landing | None:
    """Rows of the journal as a delivery."""
    if rows.empty:
        return None
    known_at = pd.to_datetime(rows["received_at"], utc=True, format="ISO8601")
    bars = rows[["symbol", "date", *VALUES]].assign(
        symbol=rows["symbol"].astype("string"),
        date=pd.to_datetime(rows["date"]).astype("datetime64[us]"),
        **{name: rows[name].astype("float64") for name in VALUES},
        known_at=known_at.astype("datetime64[us, UTC]"),
        withdrawn=rows["withdrawn"].astype(bool),
    )
    if bars[ADJUSTED_CLOSE].isna().all():
        bars = bars.drop(columns=ADJUSTED_CLOSE)
    return Landing(bars, LIVE, known_at.max(), basis="traded", history="observed")
