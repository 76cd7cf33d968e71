"""Every forecast that was answered, in the prediction log, and off the request's path.

An answer's rows go to a write-ahead file before the answer is sent; a thread moves them to the
database. They survive the end of the process, `kill -9` too, and a database that is away. They are
not forced to the disk: a power cut may take the last second's.
"""

import errno
import logging
import os
import threading
import time
from datetime import UTC, date, datetime
from functools import lru_cache
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from filelock import FileLock, Timeout

from feature_repo.errors import StoreError
from serving.prediction_log import insert, open_log, session_after
from serving.predictor import Forecasts

LOG = logging.getLogger(__name__)
LONGEST_PAUSE = 30.0  # seconds between two tries while the database is away
REMEMBERED = 200_000  # keys; some 50 MB, and hundreds of sessions of the whole S&P 500


@lru_cache(maxsize=1024)
def _for_session(as_of: datetime) -> str:
    return session_after(as_of.replace(tzinfo=UTC)).isoformat()


def _read(path: Path) -> list[dict[str, Any]]:
    """The rows of a write-ahead file: a line is an answer, a list of the table's rows.

    A line that was torn is of an answer that was never sent.
    """
    rows: list[dict[str, Any]] = []
    for line in filter(None, path.read_bytes().split(b"\n")):
        try:
            rows += orjson.loads(line)
        except orjson.JSONDecodeError:
            LOG.warning("%s: skipped the torn line of an answer that was never sent", path)
    for row in rows:
        row["as_of"] = datetime.fromisoformat(row["as_of"])
        row["for_session"] = date.fromisoformat(row["for_session"])
        row["served_at"] = datetime.fromisoformat(row["served_at"])
    return rows


class ServedLog:
    """The log at `url`, by way of write-ahead files in `folder`; what a kill left there is moved first.

    The log may hold an answer that never reached its asker, killed in between; never the reverse.

    Raises:
        StoreError: the database or the folder cannot be opened, or another process writes there.
    """

    def __init__(self, url: str, folder: Path, flush_seconds: float = 1.0):
        self._engine = open_log(url)
        self._folder, self._seconds = folder, flush_seconds
        # Not of one thread: who closes need not be who opened.
        self._process = FileLock(folder / "lock", thread_local=False)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._process.acquire(timeout=0)
        except Timeout as error:
            raise StoreError(
                f"{folder}: another process logs its answers there. Stop it, or give each its folder."
            ) from error
        except OSError as error:
            raise _unwritable(folder, error) from error
        self._recording, self._flushing = threading.Lock(), threading.Lock()
        self._seen: set[tuple] = set()
        self._file: int | None = None
        # Rows in each file, oldest file first; 0 where it is not read yet.
        self._rows = dict.fromkeys(sorted(folder.glob("*.jsonl")), 0)
        self._pause = flush_seconds
        self._ending = threading.Event()
        self.flush()
        self._thread = threading.Thread(target=self._run, name="served-log", daemon=True)
        self._thread.start()

    def record(self, forecasts: Forecasts) -> None:
        """Write down what is about to be answered; on return it survives `kill -9`.

        A forecast that this process has written down before is in the log already.

        Raises:
            StoreError: it cannot be written, or is not a finite number; nothing may be answered then.
        """
        outputs = [forecasts.log_return, forecasts.price, forecasts.p_up]
        if not np.isfinite(outputs).all():
            raise StoreError(
                f"model version {forecasts.model_version} gives forecasts that are no finite numbers. "
                "Put the champion before it back in office."
            )
        as_of = forecasts.as_of.astype("datetime64[us]").tolist()
        version = repeat(forecasts.model_version)
        keys = list(zip(forecasts.symbols, as_of, version, forecasts.window_hash, strict=False))
        with self._recording:
            new = [i for i, key in enumerate(keys) if key not in self._seen]
            if not new:
                return
            log_return, price, p_up = (values.tolist() for values in outputs)
            now = datetime.now(UTC)
            rows = [
                {
                    "symbol": forecasts.symbols[i],
                    "as_of": as_of[i].replace(tzinfo=UTC),
                    "model_version": forecasts.model_version,
                    "window_hash": forecasts.window_hash[i],
                    "for_session": _for_session(as_of[i]),
                    "log_return": log_return[i],
                    "price": price[i],
                    "p_up": p_up[i],
                    "served_at": now,
                }
                for i in new
            ]
            self._write(orjson.dumps(rows), len(rows))
            if len(self._seen) > REMEMBERED:
                self._seen.clear()  # written once more, they are still in the log once
            self._seen.update(keys[i] for i in new)

    def _write(self, line: bytes, rows: int) -> None:
        # The line break comes first, so that a torn line spoils none that follows it.
        data = b"\n" + line
        try:
            if self._file is None:
                path = self._folder / f"{time.time_ns():020d}.jsonl"
                self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
                self._rows[path] = 0
            if os.write(self._file, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise _unwritable(self._folder, error) from error
        self._rows[next(reversed(self._rows))] += rows

    def flush(self) -> int:
        """Move what is in the files to the database; while that cannot be, they stay.

        Returns:
            rows new in the database.
        """
        new = 0
        with self._flushing:
            with self._recording:
                if self._file is not None:
                    os.close(self._file)
                    self._file = None
                files = list(self._rows)
            try:
                for path in files:
                    rows = _read(path)
                    with self._recording:
                        self._rows[path] = len(rows)
                    new += insert(self._engine, rows)
                    path.unlink()
                    with self._recording:
                        del self._rows[path]
                self._pause = self._seconds
            except Exception as error:  # whatever it is: the rows are in the files, the thread lives
                self._pause = min(self._pause * 2, LONGEST_PAUSE)
                told = str(error).partition("\n")[0]  # SQLAlchemy adds the statement and its rows
                LOG.warning("%d answers wait in %s for the log: %s", self.pending, self._folder, told)
        return new

    def _run(self) -> None:
        while not self._ending.wait(self._pause):
            self.flush()

    @property
    def pending(self) -> int:
        """Rows in write-ahead files that the database does not have yet."""
        with self._recording:
            return sum(self._rows.values())

    def close(self) -> None:
        """Flush once, stop the thread and give the folder free."""
        self._ending.set()
        self._thread.join()
        self.flush()
        self._engine.dispose()
        self._process.release()


def _unwritable(folder: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{folder}: answers cannot be written down ({error.strerror or error}), so none is given. "
        "Make room or give write permission."
    )
