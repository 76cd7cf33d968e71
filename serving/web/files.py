"""The pipeline's files as the pages use them: read once, and again when another run has written them.

pyarrow is imported when a table is first read: a process that shows no page goes without.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pitwise.errors import StoreError, one_line

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")
Stamp = tuple[int, int, int]


class Files:
    """What was read of files, by path and reader, until the file changes. Threads may share it."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Path, Any], tuple[Stamp, Any]] = {}
        self._locks: dict[tuple[Path, Any], threading.Lock] = {}
        self._adding = threading.Lock()

    def read(self, path: Path, reader: Callable[..., T], *given: Any) -> T | None:
        """What `reader(path, *given)` makes of a file; None where there is no file.

        Raises:
            StoreError: it cannot be read.
        """
        stamp = stamp_of(path)
        if stamp is None:
            return None
        key = (path, (reader, given))
        with self._adding:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:  # one thread reads, the others wait for what it has read
            kept = self._kept.get(key)
            if kept is None or kept[0] != stamp:
                with reading(path):
                    kept = self._kept[key] = stamp, reader(path, *given)
            return kept[1]


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What fails in the block, which reads a file, becomes StoreError."""
    try:
        yield
    except (OSError, ValueError, KeyError) as error:  # pyarrow's are OSError and ValueError
        raise StoreError(
            f"{path}: cannot be read ({one_line(error)}). Delete it and run `pitwise run`."
        ) from error


def stamp_of(path: Path) -> Stamp | None:
    """What changes when a file is written anew; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def document(path: Path) -> Any:
    """The JSON document of a file."""
    return json.loads(path.read_text())


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a small parquet file."""
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pylist()


def microseconds(column: "pa.ChunkedArray") -> np.ndarray:
    """(n,) int64 since 1970 of a column of instants."""
    import pyarrow as pa

    instants = column.cast(pa.timestamp("us", column.type.tz))
    return instants.cast(pa.int64()).to_numpy()
