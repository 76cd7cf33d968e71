"""Tables made in shards of symbols, by the engine; what is finished outlives a kill.

A shard is a range of the sorted symbols with about as many rows, whatever the engine. So the tables are
the same bytes wherever they were made, and a process has one shard in its memory at a time.
"""

import hashlib
import json
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import track

from pitwise.engine import EngineParams, run
from pitwise.workspace import parquet_options, read_parquet, replacing, sha256

T = TypeVar("T")
Tables = dict[str, pa.Table]
Range = tuple[str | None, str | None]
"""Symbols from the first, included, to the second, not included; None: no end."""

CODE = Path(__file__).absolute().parents[1]
LIBRARIES = ("numpy", "pandas", "pyarrow")
CHECKSUMS = "checksums.json"


def symbol_counts(path: Path) -> pa.Table:
    """How many rows each symbol has: `symbol` and `rows`, sorted.

    Args:
        path: of a table with the column `symbol`; rows without one are not counted.
    """
    column = pq.read_table(path, columns=["symbol"], read_dictionary=["symbol"])["symbol"]
    counts = pc.value_counts(column.unify_dictionaries().drop_null())
    names = counts.field("values").cast(pa.string())
    return pa.table({"symbol": names, "rows": counts.field("counts")}).sort_by("symbol")


def symbol_ranges(path: Path, rows: int) -> list[Range]:
    """Ranges of about `rows` rows; together they hold every symbol there is, each once.

    Args:
        path: as of `symbol_counts`.
    """
    counts = symbol_counts(path)
    return ranges_of(dict(zip(*(column.to_pylist() for column in counts.columns), strict=True)), rows)


def ranges_of(counts: Mapping[str, int], rows: int) -> list[Range]:
    """Ranges of about `rows` rows; together they hold every symbol there is, each once.

    Args:
        counts: rows of each symbol.
    """
    symbols = sorted(counts)
    ends = np.array([counts[symbol] for symbol in symbols], "int64").cumsum()
    starts = np.append(0, ends)[: len(ends)]
    first = np.unique(np.searchsorted(starts, np.arange(0, starts.max(initial=0) + 1, rows)))
    return list(pairwise([None, *(symbols[at] for at in first[1:]), None]))


def read_range(path: Path, symbols: Range) -> pd.DataFrame:
    """The rows of a table of a range of symbols; those without a symbol are in none."""
    first, end = symbols
    filters = [("symbol", ">=", first or "")]
    if end is not None:
        filters.append(("symbol", "<", end))
    return read_parquet(path, filters=filters)


def write_groups(groups: Iterator[pa.Table], path: Path) -> None:
    """Write one table from its parts, a row group each, of which there is one at least."""
    head = next(groups)
    options = parquet_options(head.schema)
    with replacing(path) as temporary, pq.ParquetWriter(temporary, head.schema, **options) as writer:
        for group in filter(len, chain([head], groups)):
            writer.write_table(group, row_group_size=len(group))


class Shards(Generic[T]):
    """The tables that a function makes of each shard, in the order of the shards.

    To iterate computes what is missing, once; a second time reads what is there.

    Args:
        function: of a module; what it needs it reads from the workspace's folder.
        folder: where finished shards are kept, so that a run that was killed goes on from them.
        files: what the function reads, where it is there. Shards that were made of other files, of other
            `depends`, which JSON can hold, or by other `code`, files and folders of ours, count for
            nothing.
    """

    def __init__(
        self,
        engine: EngineParams,
        function: Callable[[T], Tables],
        shards: Sequence[T],
        folder: Path,
        files: Sequence[Path],
        depends: dict[str, Any],
        code: Sequence[str],
    ):
        self.engine, self.function, self.shards = engine, function, shards
        self._root = folder
        self._only: Tables | None = None
        if len(shards) > 1:
            self.folder = folder / _identity(shards, files, depends, code)

    def __iter__(self) -> Iterator[Tables]:
        if len(self.shards) == 1:  # is not worth another process
            self._only = self._only or self.function(self.shards[0])
            yield self._only
            return
        self._begin()
        paths = [self.folder / f"{number:04}" for number in range(len(self.shards))]
        missing = [path for path in paths if not path.exists()]
        tasks = [(self.shards[int(path.name)], path) for path in missing]
        made = run(self.engine, partial(_made, self.function), tasks, ordered=True)
        hidden = not missing or not sys.stderr.isatty()
        shown = track(paths, "shards", console=Console(stderr=True), transient=True, disable=hidden)
        for path in shown:
            if path in missing:
                next(made)
            yield _read(path)

    def _begin(self) -> None:
        if self._root.exists():
            for other in self._root.iterdir():
                if other != self.folder:
                    shutil.rmtree(other)
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.iterdir():
            if path.name.startswith(".") or not _is_whole(path):
                shutil.rmtree(path)

    def remove(self) -> None:
        """Of no more use: what was made of them is on the disk."""
        shutil.rmtree(self._root, ignore_errors=True)


def _identity(
    shards: Sequence[Any], files: Sequence[Path], depends: dict[str, Any], code: Sequence[str]
) -> str:
    sources = [path for name in code for path in (CODE / name, *sorted((CODE / name).rglob("*.py")))]
    text = json.dumps(
        {
            "shards": list(shards),
            "files": [sha256(path) if path.exists() else None for path in files],
            "depends": depends,
            "code": [sha256(path) for path in sources if path.is_file()],
            "libraries": [version(name) for name in LIBRARIES],
        },
        sort_keys=True,
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _made(function: Callable[[T], Tables], task: tuple[T, Path]) -> None:
    """Compute a shard and keep it, with the checksums of its files.

    Nobody waits for the disk to hold it: after a power loss the checksums tell what is whole.
    """
    shard, path = task
    tables = function(shard)
    half = Path(tempfile.mkdtemp(prefix=".", dir=path.parent))
    for name, table in tables.items():
        with pa.ipc.new_file(half / name, table.schema) as writer:
            writer.write_table(table)
    (half / CHECKSUMS).write_text(json.dumps({name: _checksum(half / name) for name in tables}))
    try:
        half.rename(path)
    except OSError:
        # A cluster that lost sight of a node has computed the shard twice; both say the same.
        if not path.exists():
            raise
        shutil.rmtree(half)


def _is_whole(path: Path) -> bool:
    try:
        checksums = json.loads((path / CHECKSUMS).read_text())
        return all(_checksum(path / name) == checksum for name, checksum in checksums.items())
    except (ValueError, OSError):
        return False


def _checksum(path: Path) -> int:
    """CRC-32, at 4 GB/s."""
    return zlib.crc32(pa.memory_map(str(path)).read_buffer())


def _read(path: Path) -> Tables:
    files = [file for file in path.iterdir() if file.name != CHECKSUMS]
    return {file.name: pa.ipc.open_file(pa.memory_map(str(file))).read_all() for file in files}
