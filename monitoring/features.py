"""The features that can drift, of every session as they were first known, counted and kept."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from monitoring.settings import MonitorParams
from monitoring.sketch import (
    BINS,
    STANDARDISED,
    WITHIN,
    Sketch,
    joined,
    quantile_edges,
    read_sketch,
    sketch,
    three_ways,
    write_sketch,
)
from pitwise.bars.calendar import session_close
from pitwise.errors import DataError
from pitwise.evaluation.sessions import SESSION
from pitwise.features.history import KEYS
from pitwise.features.indicators import FEATURES, SCALE_FREE
from pitwise.workspace import Workspace

WATCHED = [feature.name for feature in FEATURES if feature.unit in SCALE_FREE]
"""Features that can drift. Prices and share counts wander by nature."""
SKETCH = "data/monitoring/sessions.npz"


def watched_sketch(workspace: Workspace, params: MonitorParams, seals: pd.DataFrame) -> Sketch:
    """The sketch of every session's features, as each was first known; what is new is added to the file.

    A session that is not sealed is read, and not kept: more of its bars may come.
    """
    path = workspace.root / SKETCH
    kept = read_sketch(path)
    there = (
        set(pq.read_schema(workspace.daily_features).names)
        if workspace.daily_features.exists()
        else set()
    )
    watched = [name for name in WATCHED if name in there]
    if kept is not None and not _goes_on(kept, watched):
        kept = None
    filters = [(SESSION, ">", kept.sessions[-1])] if kept is not None and len(kept.sessions) else None
    new = first_known(workspace, watched, filters)
    if kept is None:
        if new.empty:
            raise DataError(f"{workspace.daily_features}: has no features. Run `dvc repro features`.")
        begin = new[SESSION].drop_duplicates().nsmallest(params.reference_sessions)
        edges = quantile_edges(three_ways(new[new[SESSION].isin(begin)], watched))
        kept = Sketch(pd.DatetimeIndex([], tz="UTC"), edges, np.zeros((0, len(edges), BINS), "int64"))
    if new.empty:
        return kept
    every = joined(kept, sketch(new, kept.edges))
    sealed = every.sessions.isin(session_close(seals["date"]))
    final = Sketch(every.sessions[sealed], every.edges, every.counts[sealed])
    if len(final.sessions) > len(kept.sessions):
        write_sketch(final, path)
    return every


def _goes_on(kept: Sketch, watched: list[str]) -> bool:
    """Whether a sketch is of features that are still there, in all of `three_ways`."""
    plain = {name for name in kept.columns if not name.endswith(WITHIN)}
    return plain <= set(watched) and any(name.endswith(STANDARDISED) for name in kept.columns)


def first_known(workspace: Workspace, columns: list[str], filters: list | None) -> pd.DataFrame:
    """Columns of daily features, the first version of each symbol and session; `filters` of pyarrow.

    Raises:
        DataError: there are none.
    """
    path = workspace.daily_features
    if not path.exists():
        raise DataError(f"{path}: is not there. Run `dvc repro features`.")
    table = pq.read_table(path, columns=[*KEYS, *columns], filters=filters).to_pandas()
    return table.drop_duplicates(KEYS, ignore_index=True)


def watched_rows(
    workspace: Workspace, made: Sketch, first: pd.Timestamp, last: pd.Timestamp
) -> pd.DataFrame:
    """The rows that the sketch counted, of the sessions from `first` to `last` (closes, UTC)."""
    plain = [name for name in made.columns if not name.endswith(WITHIN)]
    return first_known(workspace, plain, [(SESSION, ">=", first), (SESSION, "<=", last)])
