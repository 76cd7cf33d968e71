"""A table that is too large for the memory, some symbols at a time."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

Filter = list[tuple[str, str, str]] | None


def symbol_filters(path: Path, rows: int) -> Iterator[Filter]:
    """Parquet filters that select some symbols each, `rows` rows of them or a little more.

    Together they select every row once.

    Args:
        path: of a table sorted by `symbol`.
    """
    column = pq.read_table(path, columns=["symbol"])["symbol"].combine_chunks()
    counts = pc.value_counts(column)
    symbols, sizes = counts.field("values").to_pylist(), counts.field("counts").to_numpy()
    number = (sizes.cumsum() - sizes) // rows
    edges = [None, *(symbols[i] for i in np.flatnonzero(np.diff(number)) + 1), None]
    for first, after in pairwise(edges):
        here = [("symbol", ">=", first)] if first is not None else []
        if after is not None:
            here.append(("symbol", "<", after))
        yield here or None
