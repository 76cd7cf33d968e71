"""Rows on their way to a database, in files of JSON lines that stay until the rows have arrived.

What `append` has written survives the end of the process, `kill -9` too. It is not forced to the disk: a
power cut may take the last second's.
"""

import errno
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

import orjson

from pitwise.errors import StoreError
from serving.lock import acquired_lock

LOG = logging.getLogger(__name__)


class WriteAhead:
    """The write-ahead files of a folder, for one process at a time.

    Raises:
        StoreError: another process writes there, or nothing can be written.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        refusal = (
            f"{folder}: another process logs its answers there. Stop it, or run this one in a "
            "workspace of its own."
        )
        try:
            self._process = acquired_lock(folder / "lock", refusal)
        except OSError as error:
            raise _unwritable(folder, error) from error
        self._lock = threading.Lock()
        self._open: int | None = None
        # Rows in each file, oldest file first; 0 where it is not read yet.
        self._rows = dict.fromkeys(sorted(folder.glob("*.jsonl")), 0)

    @property
    def pending(self) -> int:
        """Rows in the files."""
        with self._lock:
            return sum(self._rows.values())

    def append(self, rows: list[dict[str, Any]]) -> None:
        """Write rows as one line: after a kill they are there together or not at all.

        Raises:
            StoreError: they cannot be written.
        """
        # The line break comes first, so that a torn line spoils none that follows it.
        data = b"\n" + orjson.dumps(rows)
        with self._lock:
            try:
                if self._open is None:
                    path = self.folder / f"{time.time_ns():020d}.jsonl"
                    self._open = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
                    self._rows[path] = 0
                if os.write(self._open, data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                raise _unwritable(self.folder, error) from error
            self._rows[next(reversed(self._rows))] += len(rows)

    def files(self) -> list[Path]:
        """All files there are, oldest first. They grow no more: the next row opens another one."""
        with self._lock:
            if self._open is not None:
                os.close(self._open)
                self._open = None
            return list(self._rows)

    def read(self, path: Path) -> list[dict[str, Any]]:
        """The rows of a file, with instants as the text they were written as."""
        rows: list[dict[str, Any]] = []
        for line in filter(None, path.read_bytes().split(b"\n")):
            try:
                rows += orjson.loads(line)
            except orjson.JSONDecodeError:
                LOG.warning("%s: skipped the torn line of an answer that was never sent", path)
        with self._lock:
            self._rows[path] = len(rows)
        return rows

    def remove(self, path: Path) -> None:
        """Delete a file whose rows have arrived."""
        path.unlink()
        with self._lock:
            del self._rows[path]

    def release(self) -> None:
        """Let another process write here."""
        self._process.release()


def _unwritable(folder: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{folder}: answers cannot be written down ({error.strerror or error}), so none is returned. "
        "Make room or give write permission."
    )
