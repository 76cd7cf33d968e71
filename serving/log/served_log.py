"""Every forecast that was answered, in the prediction log, and off the request's path.

An answer's rows go to a write-ahead file before the answer is sent; a thread moves them to the
database. They survive the end of the process, `kill -9` too, and a database that is away.
"""

import logging
import threading
from datetime import UTC, date, datetime
from functools import lru_cache
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from pitwise.errors import StoreError
from pitwise.registry.prediction_log import insert, open_log, session_after
from serving.inference.predictor import Forecasts
from serving.log.write_ahead import WriteAhead

LOG = logging.getLogger(__name__)
LONGEST_PAUSE = 30.0  # seconds between two tries while the database is away
REMEMBERED = 200_000  # keys; some 50 MB, and hundreds of sessions of the whole S&P 500


class ServedLog:
    """The log at an absolute `url`, by way of write-ahead files in `folder`.

    What a kill left in the folder is moved to the database first. The log may hold an answer that never
    reached its client, killed in between; never the reverse.

    Raises:
        StoreError: the database or the folder cannot be opened, or another process writes there.
    """

    def __init__(self, url: str, folder: Path, flush_seconds: float = 1.0):
        self._engine = open_log(url)
        self._write_ahead = WriteAhead(folder)
        self._seconds = self._pause = flush_seconds
        self._recording, self._flushing = threading.Lock(), threading.Lock()
        self._seen: set[tuple] = set()
        self._ending = threading.Event()
        self.flush()
        self._thread = threading.Thread(target=self._run, name="served-log", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> int:
        """Rows in write-ahead files that the database does not have yet."""
        return self._write_ahead.pending

    def record(self, forecasts: Forecasts) -> None:
        """Write down what is about to be answered; on return it survives `kill -9`.

        A forecast that this process has written down before is in the log already.

        Raises:
            StoreError: it cannot be written, or is not a finite number; nothing may be answered then.
        """
        if not np.isfinite([forecasts.log_return, forecasts.price, forecasts.p_up]).all():
            raise StoreError(
                f"model version {forecasts.model_version} returns forecasts that are no finite numbers. "
                "Make the version before it champion again: `pitwise model rollback`."
            )
        as_of = forecasts.as_of.astype("datetime64[us]").tolist()
        version = repeat(forecasts.model_version)
        keys = list(zip(forecasts.symbols, as_of, version, forecasts.window_hash, strict=False))
        with self._recording:
            new = [i for i, key in enumerate(keys) if key not in self._seen]
            if not new:
                return
            self._write_ahead.append(_rows(forecasts, as_of, new))
            if len(self._seen) > REMEMBERED:
                self._seen.clear()  # written once more, they are still in the log once
            self._seen.update(keys[i] for i in new)

    def flush(self) -> int:
        """Move what is in the files to the database; while that fails, they stay.

        Returns:
            rows new in the database.
        """
        new = 0
        with self._flushing:
            try:
                for path in self._write_ahead.files():
                    new += insert(self._engine, [_parsed(row) for row in self._write_ahead.read(path)])
                    self._write_ahead.remove(path)
                self._pause = self._seconds
            except Exception as error:  # whatever it is: the rows are in the files, the thread lives
                self._pause = min(self._pause * 2, LONGEST_PAUSE)
                reason = str(error).partition("\n")[0]  # SQLAlchemy adds the statement and its rows
                folder = self._write_ahead.folder
                LOG.warning("%d answers wait in %s for the log: %s", self.pending, folder, reason)
        return new

    def close(self) -> None:
        """Flush once, stop the thread and release the folder."""
        self._ending.set()
        self._thread.join()
        self.flush()
        self._engine.dispose()
        self._write_ahead.release()

    def _run(self) -> None:
        while not self._ending.wait(self._pause):
            self.flush()


def _rows(forecasts: Forecasts, as_of: list[datetime], chosen: list[int]) -> list[dict[str, Any]]:
    """The chosen forecasts as rows of the log's table."""
    outputs = (forecasts.log_return, forecasts.price, forecasts.p_up)
    log_return, price, p_up = (values.tolist() for values in outputs)
    now = datetime.now(UTC)
    return [
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
        for i in chosen
    ]


@lru_cache(maxsize=1024)
def _for_session(as_of: datetime) -> str:
    return session_after(as_of.replace(tzinfo=UTC)).isoformat()


def _parsed(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a write-ahead file, as the log's table takes it."""
    return row | {
        "as_of": datetime.fromisoformat(row["as_of"]),
        "for_session": date.fromisoformat(row["for_session"]),
        "served_at": datetime.fromisoformat(row["served_at"]),
    }
