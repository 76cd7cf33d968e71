"""Live bars as they came, kept before anything is made of them, until they stand in a landing.

A bar on which what follows from it cannot be computed goes to the table `dead_letters` instead, with the
error: it is in no landing, and whoever has mended the cause sends it again. Once a bar of its symbol and
session is taken, it is gone from there.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from threading import RLock

import pandas as pd
from filelock import FileLock, Timeout

from pitwise.bars.landing import Landing, land
from pitwise.bars.schema import ADJUSTED_CLOSE, NUMBERS
from pitwise.errors import StoreError
from pitwise.features.incremental import LIVE
from pitwise.workspace import Workspace

VALUES = [*NUMBERS, ADJUSTED_CLOSE]
COLUMNS = ["received_at", "symbol", "date", *VALUES, "withdrawn"]
ADDED = {"withdrawn": "INTEGER NOT NULL DEFAULT 0", "batch": "INTEGER"}
"""Columns that a journal of an earlier version of this program lacks."""
WAIT_SECONDS = 30.0
"""The longest wait for another process that moves the bars into landings, or writes to the journal."""


class Journal:
    """A table in SQLite; what `add` has kept survives a kill and a power cut.

    Its methods may be called from any thread.

    Raises:
        StoreError: the file cannot be made or opened.
    """

    def __init__(self, path: Path):
        self.path = path
        self._lock = RLock()
        values = ", ".join(f"{name} REAL" for name in VALUES)
        bars = f"received_at TEXT NOT NULL, symbol TEXT NOT NULL, date TEXT NOT NULL, {values}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=WAIT_SECONDS, check_same_thread=False)
            # Each commit is on the disk when it returns, at the cost of one fsync.
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            with self._database:
                self._database.execute(
                    f"CREATE TABLE IF NOT EXISTS bars (id INTEGER PRIMARY KEY, {bars})"
                )
                self._database.execute(
                    f"CREATE TABLE IF NOT EXISTS dead_letters (id INTEGER PRIMARY KEY, {bars}, "
                    "withdrawn INTEGER NOT NULL, failed_at TEXT NOT NULL, error TEXT NOT NULL, "
                    "UNIQUE (received_at, symbol, date, withdrawn))"
                )
                there = {row[1] for row in self._database.execute("PRAGMA table_info(bars)")}
                for name, kind in ADDED.items():
                    if name not in there:
                        self._database.execute(f"ALTER TABLE bars ADD COLUMN {name} {kind}")
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"{path}: {error}. Live bars are kept there: make room or give write permission, and "
                "start again."
            ) from error

    def close(self) -> None:
        self._database.close()

    def add(self, bars: pd.DataFrame, now: pd.Timestamp, withdrawn: bool = False) -> None:
        """Keep bars as received now, or that they are withdrawn.

        Raises:
            StoreError: the disk does not take them; none of them is kept.
        """
        places = ", ".join("?" * len(COLUMNS))
        with self._changing("The bars were not taken; send them again.") as database:
            database.executemany(
                f"INSERT INTO bars ({', '.join(COLUMNS)}) VALUES ({places})", _rows(bars, now, withdrawn)
            )

    def set_aside(
        self,
        bars: pd.DataFrame,
        received_at: pd.Timestamp,
        errors: Mapping[str, str],
        withdrawn: bool = False,
    ) -> None:
        """Move bars, as `add` has kept them, to the dead letters; those that are there already stay
        once.

        Args:
            errors: symbol to why they failed.

        Raises:
            StoreError: the disk does not take them; they stay kept.
        """
        rows = _rows(bars, received_at, withdrawn)
        columns = [*COLUMNS, "failed_at", "error"]
        letters = [(*row, pd.Timestamp.now("UTC").isoformat(), errors[row[1]]) for row in rows]
        with self._changing("") as database:
            database.executemany(
                f"INSERT OR IGNORE INTO dead_letters ({', '.join(columns)}) "
                f"VALUES ({', '.join('?' * len(columns))})",
                letters,
            )
            database.executemany(
                "DELETE FROM bars WHERE received_at = ? AND symbol = ? AND date = ? AND batch IS NULL",
                [row[:3] for row in rows],
            )

    def revive(self, bars: pd.DataFrame) -> None:
        """Take the dead letters of these bars' symbols and sessions away: later ones have been taken.

        Raises:
            StoreError: the disk does not take it; they stay.
        """
        dates = bars["date"].dt.strftime("%Y-%m-%d")
        with self._changing("") as database:
            database.executemany(
                "DELETE FROM dead_letters WHERE symbol = ? AND date = ?",
                list(zip(bars["symbol"], dates, strict=True)),
            )

    def dead_letters(self) -> pd.DataFrame:
        """The bars that failed: `received_at`, symbol, date, the numbers, `withdrawn`, `failed_at` and
        `error`; in the order in which they failed."""
        with self._lock:
            return pd.read_sql("SELECT * FROM dead_letters ORDER BY id", self._database).drop(
                columns="id"
            )

    @contextmanager
    def _changing(self, remedy: str) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock, self._database:
                yield self._database
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}. {remedy}".rstrip()) from error

    def waiting(self) -> Landing | None:
        """What no landing has yet, as one; None where there is nothing."""
        with self._lock:
            return _landing(pd.read_sql("SELECT * FROM bars ORDER BY id", self._database))

    def drain(self, workspace: Workspace, timeout: float = WAIT_SECONDS) -> list[Path]:
        """Move everything into landings, see `drain`.

        Args:
            timeout: the longest wait for another process that does so, in seconds.
        """
        lock = FileLock(self.path.with_suffix(".drain"))
        try:
            lock.acquire(timeout=timeout)
        except Timeout as error:
            raise StoreError(
                f"{lock.lock_file}: another process has been moving live bars into landings for more "
                f"than {timeout:g} s. They stay in {self.path}. If a pitwise command hangs, end it."
            ) from error
        try:
            return self._drained(workspace)
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}. The live bars in it stay there.") from error
        finally:
            lock.release()

    def _drained(self, workspace: Workspace) -> list[Path]:
        landed = []
        with self._lock:
            # A part is settled before it lands: after a kill it lands again, as the same file.
            with self._database:
                self._database.execute(
                    "UPDATE bars SET batch = (SELECT COALESCE(MAX(batch), 0) + 1 FROM bars) "
                    "WHERE batch IS NULL"
                )
            batches = self._database.execute("SELECT DISTINCT batch FROM bars ORDER BY batch").fetchall()
            for (batch,) in batches:
                rows = pd.read_sql(
                    "SELECT * FROM bars WHERE batch = ? ORDER BY id", self._database, params=[batch]
                )
                landing = _landing(rows)
                assert landing is not None
                landed.append(land(workspace, landing))
                with self._database:
                    self._database.execute("DELETE FROM bars WHERE batch = ?", [batch])
        return landed


def _rows(bars: pd.DataFrame, received_at: pd.Timestamp, withdrawn: bool) -> list[tuple]:
    """`COLUMNS` of each bar."""
    nothing = [None] * len(bars)
    values = [bars[name].tolist() if name in bars else nothing for name in VALUES]
    dates = bars["date"].dt.strftime("%Y-%m-%d")
    instant = received_at.isoformat()
    return [
        (instant, symbol, date, *numbers, withdrawn)
        for symbol, date, *numbers in zip(bars["symbol"], dates, *values, strict=True)
    ]


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
    with closing(Journal(workspace.live_bars)) as journal:
        return journal.drain(workspace)


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
