"""Limits of one caller: requests a minute and a day, bytes a request."""

import logging
import math
import sqlite3
import time
from pathlib import Path
from typing import Any

from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerMinute
from limits.storage import MemoryStorage, Storage
from limits.strategies import FixedWindowRateLimiter
from starlette.types import Message, Receive

from serving.http.problems import Problem

LOTS = 100
"""Parts of a limit. A process takes one at a time: the file is written once for many requests."""
OPEN_SECONDS, BUSY_SECONDS = 5.0, 0.05
"""The longest waits for another process's write: at the start, and in a request."""
ALONE_SECONDS = 5.0
"""After the file failed, until it is tried again."""
MOST_CALLERS = 10_000
"""Remembered by this process; the file has them all."""
logger = logging.getLogger("pitwise.serving")


class SharedCounts(Storage):
    """Counts of windows in a SQLite file that processes share. They outlive the processes.

    A file that cannot be used is no reason to refuse requests: this process counts alone until it can.
    """

    STORAGE_SCHEME = None

    def __init__(self, path: Path):
        super().__init__()
        self._path = path
        self._alone = MemoryStorage()
        self._alone_until = 0.0
        self._swept = 0.0
        self._database: sqlite3.Connection | None = None
        self._used(lambda database: None, None)

    @property
    def shared(self) -> bool:
        """Whether it counts with the other processes."""
        return self._database is not None

    @property
    def base_exceptions(self) -> type[Exception]:
        return sqlite3.Error

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        now = time.time()

        def add(database: sqlite3.Connection) -> int:
            if now - self._swept > 60:
                database.execute("DELETE FROM counts WHERE until <= ?", (now,))
                self._swept = now
            row = database.execute(
                "INSERT INTO counts VALUES (:key, :amount, :until) ON CONFLICT (key) DO UPDATE SET "
                "n = CASE WHEN until <= :now THEN excluded.n ELSE n + excluded.n END, "
                "until = CASE WHEN until <= :now THEN excluded.until ELSE until END RETURNING n",
                {"key": key, "amount": amount, "until": now + expiry, "now": now},
            )
            return row.fetchone()[0]

        return self._used(add, lambda: self._alone.incr(key, expiry, amount))

    def get(self, key: str) -> int:
        return self._row(key, "n", lambda: self._alone.get(key), 0)

    def get_expiry(self, key: str) -> float:
        return self._row(key, "until", lambda: self._alone.get_expiry(key), time.time())

    def check(self) -> bool:
        return self.shared

    def reset(self) -> int | None:
        self._alone.reset()
        return self._used(lambda database: database.execute("DELETE FROM counts").rowcount, lambda: 0)

    def clear(self, key: str) -> None:
        self._alone.clear(key)
        self._used(lambda database: database.execute("DELETE FROM counts WHERE key = ?", (key,)), None)

    def close(self) -> None:
        """Let go of the file; whoever counts again opens it again."""
        if self._database:
            self._database.close()
        self._database = None

    def _row(self, key: str, column: str, alone: Any, none: float) -> Any:
        def read(database: sqlite3.Connection) -> Any:
            query = f"SELECT {column} FROM counts WHERE key = ? AND until > ?"
            row = database.execute(query, (key, time.time())).fetchone()
            return row[0] if row else none

        return self._used(read, alone)

    def _used(self, shared: Any, alone: Any) -> Any:
        """What `shared` makes of the database, or where it fails what `alone` makes."""
        if time.monotonic() >= self._alone_until:
            try:
                if self._database is None:
                    self._database = self._opened()
                return shared(self._database)
            except (sqlite3.Error, OSError) as error:
                logger.error("%s: limits are counted by each process alone: %s", self._path, error)
                self._alone_until = time.monotonic() + ALONE_SECONDS
                self.close()
        return alone() if alone else None

    def _opened(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(
            self._path, timeout=OPEN_SECONDS, isolation_level=None, check_same_thread=False
        )
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = OFF")  # counts: a power cut may take the last ones
        database.execute(
            "CREATE TABLE IF NOT EXISTS counts (key TEXT PRIMARY KEY, n INTEGER, until REAL) "
            "WITHOUT ROWID"
        )
        database.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000:.0f}")
        return database


class RateLimit:
    """Requests of one caller a minute and a day, over all processes that count in one file.

    A minute or a day begins with the first request after the one before has ended. A process takes a
    hundredth of a limit at a time and answers requests from it; what it has not used when the window
    ends is lost. So no caller ever has more than its limit, whatever the number of processes, and one
    whose requests go to several may have up to a hundredth a process less.
    """

    def __init__(self, path: Path, requests_per_minute: int):
        self.counts = SharedCounts(path)
        self._limiter = FixedWindowRateLimiter(self.counts)
        self._usual = RateLimitItemPerMinute(requests_per_minute)
        self._items: dict[tuple[int, int], tuple[RateLimitItem, ...]] = {}
        self._left: dict[tuple[str, RateLimitItem], tuple[int, float]] = {}

    def hit(self, caller: str, per_minute: int | None = None, per_day: int | None = None) -> None:
        """Count a request.

        Args:
            per_minute: the caller's own limit; None for everybody's.
            per_day: the caller's own quota; None for none.

        Raises:
            Problem: it is one too many (429, with Retry-After in seconds).
        """
        if per_minute is None and per_day is None:
            return self._take(caller, self._usual)
        key = (per_minute or 0, per_day or 0)
        items = self._items.get(key)
        if items is None:
            minute = RateLimitItemPerMinute(per_minute) if per_minute else self._usual
            items = (minute, RateLimitItemPerDay(per_day)) if per_day else (minute,)
            self._items[key] = items
        for item in items:
            self._take(caller, item)
        return None

    def _take(self, caller: str, item: RateLimitItem) -> None:
        key, now = (caller, item), time.time()
        left, until = self._left.get(key, (0, 0.0))
        if now >= until or left == 0:
            lot = max(1, item.amount // LOTS)
            taken = self._limiter.hit(item, caller, cost=lot)
            # Where none is left it is known until the window ends: a flood of refused requests is cheap.
            left, until = lot if taken else -1, self.counts.get_expiry(item.key_for(caller))
            if len(self._left) >= MOST_CALLERS:
                self._left.clear()
        if left > 0:
            self._left[key] = (left - 1, until)
            return
        self._left[key] = (-1, until)
        seconds = max(1, math.ceil(until - now))
        raise Problem(
            "too-many-requests",
            f"More than {item.amount:,} requests in a {item.GRANULARITY.name}. Wait {seconds:,} s.",
            headers={"Retry-After": str(seconds)},
        )


def limited_body(headers: dict[bytes, bytes], receive: Receive, max_bytes: int) -> Receive:
    """`receive`, raising Problem (413) at the byte too many; a body without a length is counted.

    Raises:
        Problem: the length that the request declares is too large already.
    """
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length[:20]) > max_bytes:
        raise _too_large(max_bytes)
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > max_bytes:
            raise _too_large(max_bytes)
        return message

    return counted


def _too_large(max_bytes: int) -> Problem:
    return Problem(
        "body-too-large",
        f"The body may have {max_bytes:,} bytes. Send it in parts.",
        # What is left of the body would be read as the connection's next request.
        headers={"Connection": "close"},
    )
