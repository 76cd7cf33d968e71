"""The newest market state in a SQLite file: one process commits, others follow.

The file is a cache: where something is wrong with it, the writer makes it anew. It is not forced to the
disk, but of a process that is killed it keeps what was committed.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

import orjson

from pitwise.errors import StoreError
from serving.state.market import MarketState, ModelInfo, PartStatus, SymbolFeatures, SymbolForecast

FORMAT = 2
"""`PRAGMA user_version`; a file of another one is made anew."""
TABLES = f"""
BEGIN;
CREATE TABLE market (number INTEGER NOT NULL, newest INTEGER NOT NULL, newest_close TEXT NOT NULL,
  model TEXT NOT NULL);
CREATE TABLE symbols (symbol TEXT PRIMARY KEY, state INTEGER NOT NULL, changed INTEGER NOT NULL,
  forecast TEXT, features TEXT, fault TEXT) WITHOUT ROWID;
CREATE INDEX by_state ON symbols (state);
CREATE TABLE status (part TEXT PRIMARY KEY, status TEXT NOT NULL) WITHOUT ROWID;
PRAGMA user_version = {FORMAT};
COMMIT;
"""
LOCKED_SECONDS = 5.0
"""The longest wait for another process's transaction; they take milliseconds."""


class _Row(NamedTuple):
    """What a state has of one symbol; all None where it is no longer of the market."""

    state: int
    """Number of the state that changed any of it."""
    changed: int
    """Number of the state that changed the forecast or the fault."""
    forecast: SymbolForecast | None = None
    features: SymbolFeatures | None = None
    fault: str | None = None


class _Market(NamedTuple):
    """What a state has of the whole market."""

    newest: int
    newest_close: str
    model: ModelInfo


class StateWriter:
    """The one that commits; it goes on from what was committed to the file before.

    Safe to use from several threads.

    Raises:
        StoreError: the file cannot be made.
    """

    def __init__(self, path: Path):
        self._path = path
        self._lock = threading.Lock()
        self._market: _Market | None = None
        self._rows: dict[str, _Row] = {}
        self._number = 0
        self._state: MarketState | None = None
        self._statuses: dict[str, PartStatus] = {}
        self._database: sqlite3.Connection | None = None
        try:
            try:
                database = self._open()
                if database.execute("PRAGMA quick_check").fetchall() != [("ok",)]:
                    raise ValueError("is damaged")
                self._number, self._market = _read_market(database) or (0, None)
                self._rows = _read_rows(database, 0)
                self._state = self._as_state()
            except (OSError, sqlite3.Error, ValueError, TypeError):
                # Not there, of another format, or torn by a power cut.
                self._market, self._rows = None, {}
                self._make()
        except (OSError, sqlite3.Error) as error:
            raise _unwritable(path, error) from error

    @property
    def state(self) -> MarketState | None:
        """What is committed; None where nothing is."""
        return self._state

    def commit(
        self,
        model: ModelInfo,
        newest: int,
        newest_close: str,
        forecasts: Mapping[str, SymbolForecast],
        features: Mapping[str, SymbolFeatures],
        faults: Mapping[str, str],
        whole: bool,
    ) -> MarketState:
        """Make a state of what is new in these, in one transaction; where nothing is, the old one stays.

        Args:
            forecasts, features, faults: see `MarketState`; all that there is of the symbols named.
            whole: they are of the whole market: a symbol not named is no longer of it.

        Raises:
            StoreError: the file cannot be written. The old state stays.
        """
        with self._lock:
            number = max(self._number + 1, time.time_ns() // 1000)
            named = {*forecasts, *features, *faults} | (set(self._rows) if whole else set())
            new: dict[str, _Row] = {}
            for symbol in named:
                old = self._rows.get(symbol, _Row(0, 0))
                parts = forecasts.get(symbol), features.get(symbol), faults.get(symbol)
                if parts != (old.forecast, old.features, old.fault):
                    same_forecast = (parts[0], parts[2]) == (old.forecast, old.fault)
                    new[symbol] = _Row(number, old.changed if same_forecast else number, *parts)
            market = _Market(newest, newest_close, model)
            if self._state and not new and market == self._market:
                return self._state
            self._write(lambda database: _insert(database, number, market, new))
            self._number, self._market = number, market
            self._rows.update(new)
            self._state = self._as_state()
            assert self._state
            return self._state

    def report(self, statuses: Mapping[str, PartStatus]) -> None:
        """Tell the readers how parts do; those not named are as they were. To be called now and then: it
        makes a file anew that others cannot read.

        Raises:
            StoreError: the file cannot be written.
        """
        with self._lock:
            self._mend()
            self._write(lambda database: _insert_statuses(database, statuses))
            self._statuses.update(statuses)

    def close(self) -> None:
        with self._lock:
            if self._database:
                self._database.close()
            self._database = None

    def _as_state(self) -> MarketState | None:
        return _as_state(self._number, self._market, self._rows)

    def _mend(self) -> None:
        """Look at the file as who opens it does: this process may hold pages that others cannot read."""
        try:
            with closing(_opened(self._path)) as other:
                other.execute("SELECT number FROM market").fetchone()
        except sqlite3.OperationalError:  # held for long, or the disk's
            return
        except (OSError, ValueError, sqlite3.DatabaseError):
            with suppress(OSError, sqlite3.Error):  # the write that follows says it
                self._make()

    def _write(self, insert: Callable[[sqlite3.Connection], None]) -> None:
        """One transaction, in a file made anew where the old one was deleted or damaged."""
        try:
            if _inode(self._path) != self._file:
                self._make()
            try:
                self._transact(insert)
            except sqlite3.OperationalError:  # the disk is full, or another process holds the file
                raise
            except sqlite3.DatabaseError:
                self._make()
                self._transact(insert)
        except (OSError, sqlite3.Error) as error:
            raise _unwritable(self._path, error) from error

    def _transact(self, insert: Callable[[sqlite3.Connection], None]) -> None:
        database = self._database or self._open()
        database.execute("BEGIN IMMEDIATE")
        try:
            insert(database)
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise

    def _make(self) -> None:
        """The file anew, with all that is committed. It appears with its tables."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f".{self._path.name}.tmp")
        temporary.unlink(missing_ok=True)
        with closing(sqlite3.connect(temporary)) as database:
            database.executescript(TABLES)
            if self._market:
                _insert(database, self._number, self._market, self._rows)
            _insert_statuses(database, self._statuses)
            database.commit()
        if self._database:
            self._database.close()
        for end in ("-wal", "-shm"):
            Path(f"{self._path}{end}").unlink(missing_ok=True)
        temporary.replace(self._path)
        self._open()

    def _open(self) -> sqlite3.Connection:
        self._database = database = _opened(self._path)
        database.execute("PRAGMA journal_mode = WAL")  # readers go on while this one writes
        self._file = _inode(self._path)
        return database


class StateReader:
    """Follows the file that a `StateWriter` commits to.

    Safe to use from several threads.
    """

    def __init__(self, path: Path):
        self._path, self._name = path, str(path)
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._version: int | None = None
        self._number = 0
        self._rows: dict[str, _Row] = {}
        self._state: MarketState | None = None
        self._statuses: dict[str, PartStatus] = {}

    def current(self) -> MarketState:
        """The newest state; where nothing has changed, at the cost of a look.

        Raises:
            StoreError: nothing is committed yet, or the file cannot be read.
        """
        with self._lock:
            self._follow()
            if self._state is None:
                raise _none_yet(self._path)
            return self._state

    def statuses(self) -> dict[str, PartStatus]:
        """How the parts do, by name, as it was last reported.

        Raises:
            StoreError: the file cannot be read.
        """
        with self._lock:
            self._follow()
            return self._statuses

    def close(self) -> None:
        with self._lock:
            if self._database:
                self._database.close()
            self._database = self._file = None

    def _follow(self) -> None:
        try:
            file = _inode(self._name)
            if file is None and self._state is None:
                raise _none_yet(self._path)
            if file != self._file and file is not None:
                # A file made anew; one that is deleted is read on until there is.
                if self._database:
                    self._database.close()
                self._database = _opened(self._path)
                self._database.execute("PRAGMA query_only = ON")
                self._file, self._version, self._number, self._rows = file, None, 0, {}
            assert self._database
            version = self._database.execute("PRAGMA data_version").fetchone()[0]
            if version != self._version:
                self._read(self._database)
                self._version = version
        except (OSError, sqlite3.Error, ValueError, TypeError) as error:
            self._file = None  # opened again by the next one who asks
            raise StoreError(
                f"{self._path}: the state of the market cannot be read ({error}). The service makes it "
                "anew where it is deleted."
            ) from error

    def _read(self, database: sqlite3.Connection) -> None:
        """What is newer than what is held, of one instant."""
        database.execute("BEGIN")
        try:
            found = _read_market(database)
            if found and found[0] != self._number:
                number, market = found
                self._rows |= _read_rows(database, self._number)
                self._number = number
                self._state = _as_state(number, market, self._rows)
            rows = database.execute("SELECT part, status FROM status")
            self._statuses = {part: PartStatus(**orjson.loads(text)) for part, text in rows}
        finally:
            database.execute("ROLLBACK")


def _opened(path: Path) -> sqlite3.Connection:
    """A connection to a file that is there, of our format.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is of another format.
    """
    path.stat()
    database = sqlite3.connect(
        f"{path.as_uri()}?mode=rw",
        uri=True,
        timeout=LOCKED_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    database.execute("PRAGMA synchronous = OFF")
    if database.execute("PRAGMA user_version").fetchone() != (FORMAT,):
        database.close()
        raise ValueError("it is of another version of this program")
    return database


def _inode(path: Path | str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116  # of each request: a Path would cost it 2 us
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _as_state(number: int, market: _Market | None, rows: Mapping[str, _Row]) -> MarketState | None:
    if market is None:
        return None
    return MarketState(
        number,
        market.model,
        market.newest,
        market.newest_close,
        {symbol: row.forecast for symbol, row in rows.items() if row.forecast},
        {symbol: row.features for symbol, row in rows.items() if row.features},
        {symbol: row.changed for symbol, row in rows.items() if row.forecast or row.fault},
        {symbol: row.fault for symbol, row in rows.items() if row.fault},
    )


def _read_market(database: sqlite3.Connection) -> tuple[int, _Market] | None:
    found = database.execute("SELECT number, newest, newest_close, model FROM market").fetchone()
    if found is None:
        return None
    number, newest, newest_close, model = found
    return number, _Market(newest, newest_close, ModelInfo(**orjson.loads(model)))


def _read_rows(database: sqlite3.Connection, since: int) -> dict[str, _Row]:
    """The symbols of which states after number `since` changed anything."""
    rows = database.execute(
        "SELECT symbol, state, changed, forecast, features, fault FROM symbols WHERE state > ?", [since]
    )
    return {
        symbol: _Row(
            state,
            changed,
            SymbolForecast(**orjson.loads(forecast)) if forecast else None,
            SymbolFeatures(**orjson.loads(features)) if features else None,
            fault,
        )
        for symbol, state, changed, forecast, features, fault in rows
    }


def _insert(
    database: sqlite3.Connection, number: int, market: _Market, rows: Mapping[str, _Row]
) -> None:
    model = orjson.dumps(market.model, default=str).decode()
    database.execute("DELETE FROM market")
    values = (number, market.newest, market.newest_close, model)
    database.execute("INSERT INTO market VALUES (?, ?, ?, ?)", values)
    database.executemany(
        "INSERT OR REPLACE INTO symbols VALUES (?, ?, ?, ?, ?, ?)",
        [
            (
                symbol,
                row.state,
                row.changed,
                orjson.dumps(row.forecast).decode() if row.forecast else None,
                orjson.dumps(row.features).decode() if row.features else None,
                row.fault,
            )
            for symbol, row in rows.items()
        ],
    )


def _insert_statuses(database: sqlite3.Connection, statuses: Mapping[str, PartStatus]) -> None:
    rows = [(part, orjson.dumps(status).decode()) for part, status in statuses.items()]
    database.executemany("INSERT OR REPLACE INTO status VALUES (?, ?)", rows)


def _none_yet(path: Path) -> StoreError:
    return StoreError(f"{path}: has no state of the market yet. It has when the service is ready.")


def _unwritable(path: Path, error: Exception) -> StoreError:
    return StoreError(
        f"{path}: the state of the market cannot be written "
        f"({getattr(error, 'strerror', None) or error}). Make room or give write permission."
    )
