"""Features of one symbol by session, as they were known at an instant."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from serving.web.bars import DAY
from serving.web.files import microseconds

KEYS = ["symbol", "event_timestamp", "created_timestamp", "close"]


def columns_of(
    path: Path, symbol: str, names: Sequence[str], at: int | None
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Columns of a symbol, the latest version of each session that was known.

    Args:
        path: `data/features/daily.parquet`.
        names: of features.
        at: microseconds since 1970; None for now.

    Returns:
        (n,) datetime64[D], the sessions in order, and (n,) float by name, NaN where a feature lacks its
        history. Without rows where no bar of the symbol was known.

    Raises:
        OSError, ValueError, KeyError: the file cannot be read, or lacks a feature.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(
        path, columns=list(dict.fromkeys([*KEYS, *names])), filters=[("symbol", "=", symbol)]
    )
    closes, created = (microseconds(table[name]) for name in KEYS[1:3])
    order = np.lexsort((created, closes))
    if at is not None:
        order = order[created[order] <= at]
    latest = order[np.diff(closes[order], append=0) != 0]
    kept = latest[~np.isnan(table["close"].to_numpy()[latest])]  # a withdrawn bar has none
    days = (closes[kept] // DAY).astype("datetime64[D]")
    return days, {name: table[name].to_numpy()[kept].astype(float) for name in names}
