"""A table that is too large for the memory, some symbols at a time."""

from collections.abc import Iterator
from pathlib import Path

from pitwise.shards import symbol_ranges

Filter = list[tuple[str, str, str]] | None


def symbol_filters(path: Path, rows: int) -> Iterator[Filter]:
    """Parquet filters that select some symbols each, `rows` rows of them or a little more.

    Together they select every row once.

    Args:
        path: of a table sorted by `symbol`.
    """
    for first, after in symbol_ranges(path, rows):
        here = [("symbol", ">=", first)] if first is not None else []
        if after is not None:
            here.append(("symbol", "<", after))
        yield here or None
