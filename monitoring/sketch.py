"""What drift needs of a session: how many of its rows lie in each bin of each column.

The sketch of a session is of what was known of it then and does not change again, so that a history is
read once. A column stands in it in three ways: as it is; less its session's median; and that in units of
the session's own spread. The first moves with the market, the second with its turbulence alone; the
third is the shape that both leave, and the quietest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pitwise.errors import DataError
from pitwise.evaluation.sessions import SESSION
from pitwise.workspace import replacing

BINS = 20
WITHIN = " within sessions"
"""Ends the name of a column less its session's median."""
STANDARDISED = " standardised" + WITHIN
"""Ends the name of the same, divided by its session's median distance from the median."""


@dataclass(frozen=True)
class Sketch:
    """Counts of whole sessions."""

    sessions: pd.DatetimeIndex
    """(n,) closes, UTC, sorted."""
    edges: dict[str, np.ndarray]
    """By column, (BINS - 1,) what parts the bins, from the smallest; a value on an edge is above it."""
    counts: np.ndarray
    """(n, n_columns, BINS) int64 rows, the columns in the order of `edges`."""

    @property
    def columns(self) -> list[str]:
        return list(self.edges)

    def between(self, first: int, last: int) -> np.ndarray:
        """Counts of the sessions at positions first to last - 1; (n_columns, BINS)."""
        return self.counts[first:last].sum(axis=0)


def three_ways(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The columns as they are, less their session's median, and standardised; for whole sessions.

    Where half of a session's rows or more are equal, nothing is standardised: NaN.
    """
    values = table[list(columns)].astype(float)
    session = pd.factorize(table[SESSION])[0]
    centred = values - values.groupby(session).transform("median")
    spread = centred.abs().groupby(session).transform("median")
    standardised = centred / spread.where(spread > 0)
    return pd.concat([values, centred.add_suffix(WITHIN), standardised.add_suffix(STANDARDISED)], axis=1)


def quantile_edges(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Edges that part the rows of each column into `BINS` parts of a size."""
    shares = np.arange(1, BINS) / BINS
    known = {name: column.dropna().to_numpy(float) for name, column in table.items()}
    return {name: np.quantile(values, shares) for name, values in known.items() if len(values)}


def sketch(table: pd.DataFrame, edges: dict[str, np.ndarray]) -> Sketch:
    """Counts of a table of whole sessions.

    Args:
        table: `event_timestamp` and the columns without the suffix `WITHIN`; NaN is in no bin.

    Raises:
        DataError: a column that has edges is not in the table.
    """
    plain = [name for name in edges if not name.endswith(WITHIN)]
    absent = [name for name in plain if name not in table]
    if absent:
        raise DataError(
            f"the reference has the columns {', '.join(absent)}, and the table has not. Delete "
            "data/monitoring to make a new reference."
        )
    values = three_ways(table, plain)
    codes, sessions = pd.factorize(table[SESSION], sort=True)
    n = len(sessions)
    counts = np.zeros((n, len(edges), BINS), dtype="int64")
    for at, (name, edge) in enumerate(edges.items()):
        column = values[name].to_numpy()
        known = np.isfinite(column)
        cell = codes[known] * BINS + np.searchsorted(edge, column[known], side="right")
        counts[:, at] = np.bincount(cell, minlength=n * BINS).reshape(n, BINS)
    return Sketch(pd.DatetimeIndex(sessions), edges, counts)


def joined(first: Sketch, then: Sketch) -> Sketch:
    """Two sketches with the same edges as one; sessions in both are as the first has them."""
    if len(first.sessions) == 0:
        return then
    new = ~then.sessions.isin(first.sessions)
    sessions = first.sessions.append(then.sessions[new])
    order = np.argsort(sessions)
    counts = np.concatenate([first.counts, then.counts[new]])[order]
    return Sketch(sessions[order], first.edges, counts)


def write_sketch(made: Sketch, path: Path) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            sessions=made.sessions.tz_localize(None).to_numpy("datetime64[us]"),
            columns=np.array(made.columns),
            edges=np.array(list(made.edges.values())),
            counts=made.counts.astype("int32"),
        )


def read_sketch(path: Path) -> Sketch | None:
    """None where there is none.

    Raises:
        DataError: it cannot be read.
    """
    if not path.exists():
        return None
    try:
        with np.load(path) as file:
            edges = dict(zip(file["columns"].tolist(), file["edges"], strict=True))
            sessions = pd.DatetimeIndex(file["sessions"]).tz_localize("UTC")
            return Sketch(sessions, edges, file["counts"].astype("int64"))
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise DataError(
            f"{path}: is no sketch of sessions ({error}). Delete it: it is made anew."
        ) from error
