"""Parts of a file of bars, of which only their row groups are read: symbols, or what has no key."""

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pitwise.bars.schema import BAR_KEY
from pitwise.bars.versions import TEXT
from pitwise.shards import Range

GROUP_ROWS = 2**16
"""About as many rows are in a row group: a shard then reads little beside its own."""
Statistics = Mapping[str, pq.Statistics | None]


def read_symbols(path: Path, symbols: Range) -> pa.Table:
    """The rows of a table of a range of symbols, as they lie; its texts are dictionaries."""
    first, end = symbols[0] or "", symbols[1]

    def meets(statistics: Statistics) -> bool:
        said = statistics["symbol"]
        if said is None or not said.has_min_max:
            return True
        return said.max >= first and (end is None or said.min < end)

    table = _read_groups(path, meets)
    parts = []
    for chunk in table["symbol"].chunks:
        names = chunk.dictionary.to_pylist()
        inside = [name >= first and (end is None or name < end) for name in names]
        parts.append(np.array([*inside, False])[pc.fill_null(chunk.indices, len(names)).to_numpy()])
    rows = np.flatnonzero(np.concatenate(parts)) if parts else np.empty(0, int)
    if len(rows) and len(rows) == rows[-1] - rows[0] + 1:
        return table.slice(rows[0], len(rows))  # where they lie by symbol nothing is copied
    return table.take(rows)


def read_without_key(path: Path) -> pa.Table:
    """The rows of a table without a symbol or a date; its texts are dictionaries."""

    def lacks(statistics: Statistics) -> bool:
        return any(said is None or said.null_count != 0 for said in map(statistics.get, BAR_KEY))

    return _read_groups(path, lacks).filter(pc.field("symbol").is_null() | pc.field("date").is_null())


def _read_groups(path: Path, wanted: Callable[[Statistics], bool]) -> pa.Table:
    metadata = pq.read_metadata(path)
    names = metadata.schema.names
    groups = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if wanted({name: group.column(names.index(name)).statistics for name in BAR_KEY}):
            groups.append(number)
    as_dictionary = [name for name in TEXT if name in names]  # once in memory, not once a row
    with pq.ParquetFile(path, metadata=metadata, read_dictionary=as_dictionary) as file:
        return file.read_row_groups(groups)


def in_groups(table: pa.Table) -> Iterator[pa.Table]:
    """A table by symbol in parts of whole symbols, about `GROUP_ROWS` each, one at least."""
    ends = pc.run_end_encode(table["symbol"].combine_chunks()).run_ends.to_numpy()
    wanted = np.arange(GROUP_ROWS, len(table), GROUP_ROWS)
    inner = np.setdiff1d(ends[np.searchsorted(ends, wanted)], len(table))
    for start, end in pairwise([0, *inner.tolist(), len(table)]):
        yield table.slice(start, end - start)
