"""Answers on their way to the database, in files of JSON lines that stay until they have arrived.

A process writes to a folder of its own, in one open file at a time. A file that is closed has another
ending and grows no more, so that another process may move it. What `append` has written survives the end
of the process, `kill -9` too. It is not forced to the disk: a power cut may take the last second's.
"""

import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from pitwise.errors import StoreError
from serving.lock import HeldError, acquired_lock

OPEN, CLOSED = ".open", ".jsonl"
"""Endings of the file that is written to, and of those that are complete."""
LARGEST = 8_000_000
"""Bytes at which a file is closed, so that whoever reads one has room for it."""
PROBE = b" " * 65_536
"""What `probe` writes: room for some hundred answers."""
LOCK_TRIES, LOCK_PAUSE = 20, 0.1
"""Who moves what a kill has left holds the folder for a moment."""


class WriteAhead:
    """The write-ahead files of a folder, for one process at a time.

    Raises:
        StoreError: another process writes there, or nothing can be written.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._process = _held(folder)
        self._lock = threading.Lock()
        self._open: int | None = None
        self._path = folder
        self._bytes = 0
        self._answers: dict[Path, int] = {}  # in each file of this process that may still be there
        try:
            close_all(folder)
        except OSError as error:
            self._process.release()
            raise _unwritable(folder, error) from error

    @property
    def pending(self) -> int:
        """Answers of this process that are still in a file."""
        with self._lock:
            closed = [path for path in self._answers if path.suffix == CLOSED]
            for path in closed:
                if not path.exists():  # moved
                    del self._answers[path]
            return sum(self._answers.values())

    def append(self, answer: Any) -> None:
        """Write one answer as one line: after a kill it is there as a whole or not at all.

        Raises:
            StoreError: it cannot be written.
        """
        # The line break comes first, so that a torn line spoils none that follows it.
        data = b"\n" + orjson.dumps(answer)
        with self._lock:
            try:
                if self._open is None:
                    self._path = self.folder / f"{time.time_ns():020d}{OPEN}"
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
                    self._open = os.open(self._path, flags, 0o600)
                    self._answers[self._path] = self._bytes = 0
                written = os.write(self._open, data)
                self._bytes += written
                if written < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self._answers[self._path] += 1
                if self._bytes > LARGEST:
                    self._close()
            except OSError as error:
                raise _unwritable(self.folder, error) from error

    def probe(self) -> None:
        """Write as much as some answers take, and take it away again.

        Raises:
            StoreError: it cannot be written.
        """
        path = self.folder / "probe"
        try:
            try:
                path.write_bytes(PROBE)
            finally:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(self.folder, error) from error

    def close_file(self) -> None:
        """Close the file that is written to, so that it can be moved; the next answer opens another.

        Raises:
            OSError: it cannot be renamed; it is tried again then.
        """
        with self._lock:
            self._close()

    def release(self) -> None:
        """Close the file and let another process write here."""
        try:
            self.close_file()
        finally:
            self._process.release()

    def _close(self) -> None:
        if self._open is None:
            return
        closed = self._path.with_suffix(CLOSED)
        self._path.rename(closed)
        os.close(self._open)
        self._open = None
        self._answers[closed] = self._answers.pop(self._path)


def close_all(folder: Path) -> None:
    """Close the files that a kill has left open. The caller holds the folder."""
    for path in folder.glob(f"*{OPEN}"):
        path.rename(path.with_suffix(CLOSED))


def closed_files(root: Path) -> list[Path]:
    """The complete files in a folder and those below it, oldest first; of dead processes all.

    Files directly in `root` are of an earlier version, which had one process.
    """
    folders = [path for path in root.glob("*") if path.is_dir()] if root.is_dir() else []
    for folder in folders:
        if any(folder.glob(f"*{OPEN}")):
            try:
                lock = acquired_lock(folder / "lock", "")
            except HeldError:
                continue
            try:
                close_all(folder)
            finally:
                lock.release()
    paths = [path for folder in (root, *folders) for path in folder.glob(f"*{CLOSED}")]
    return sorted(paths, key=lambda path: path.name)


def lines(path: Path) -> Iterator[Any]:
    """The answers in a file; for a torn line, of an answer that was never sent, None."""
    with path.open("rb") as file:
        for line in file:
            if line := line.strip():
                try:
                    yield orjson.loads(line)
                except orjson.JSONDecodeError:
                    yield None


def _held(folder: Path) -> Any:
    """The folder's lock, held by this process.

    Raises:
        StoreError: another process holds it, or nothing can be written.
    """
    refusal = (
        f"{folder}: another process logs its answers there. Stop it, or run this one in a "
        "workspace of its own."
    )
    for left in reversed(range(LOCK_TRIES)):
        try:
            return acquired_lock(folder / "lock", refusal)
        except HeldError:
            if not left:
                raise
            time.sleep(LOCK_PAUSE)
        except OSError as error:
            raise _unwritable(folder, error) from error
    return None


def _unwritable(folder: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{folder}: answers cannot be written down ({error.strerror or error}), so none is returned. "
        "Make room or give write permission."
    )
