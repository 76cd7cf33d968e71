"""Loading clean bars into the history of the daily features on disk.

The history keeps every version of a row, see `pitwise.features.history`. It is made a group of
symbols at a time, so it need not fit into memory.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pitwise.bars.calendar import session_close
from pitwise.errors import DataError
from pitwise.features.daily import daily_features
from pitwise.features.history import CREATED, KEYS, covered_before, merge, revisions
from pitwise.features.indicators import NAMES
from pitwise.workspace import Workspace, pushed_folder, read_parquet, replacing, write_parquet

GROUP_ROWS = 250_000
"""About as many bars are in memory with their features at a time."""
MICROSECOND = pd.Timedelta(1, "us")


def symbol_groups(bars: pd.DataFrame, rows: int) -> Iterator[tuple[pd.DataFrame, list | None]]:
    """The bars of some symbols at a time, `rows` bars or a little more.

    Args:
        bars: sorted by symbol.

    Yields:
        (bars, the parquet filter that selects these symbols and those that sort between them and the
        next group's: together the filters select every symbol there is, each once).
    """
    starts = np.flatnonzero(~bars["symbol"].duplicated().to_numpy())
    wanted = np.arange(0, starts[-1] + 1, rows)
    edges = [*np.unique(starts[np.searchsorted(starts, wanted)]), len(bars)]
    for start, end in pairwise(edges):
        here = [("symbol", ">=", bars["symbol"].iloc[start])] if start > 0 else []
        if end < len(bars):
            here.append(("symbol", "<", bars["symbol"].iloc[end]))
        yield bars.iloc[start:end], here or None


def load_bars(
    workspace: Workspace,
    bars: pd.DataFrame,
    now: pd.Timestamp,
    group_rows: int = GROUP_ROWS,
    progress: bool = False,
) -> str:
    """Bring the history on disk, and the list of its revisions, up to these bars.

    Loading the same bars again changes no byte.

    Args:
        bars: clean bars, sorted by symbol and date.
        now: when the load takes place.

    Returns:
        a summary for a person: rows, and what was revised.
    """
    notes = [f"{len(bars):,} rows of {len(NAMES)} features for {bars['symbol'].nunique():,} symbols"]
    path = workspace.daily_features
    first = not path.exists()
    if not first and (other := _another_history(path, bars)):
        notes.append(f"{path} begins anew: {other}. `git` and `dvc checkout` bring the old back.")
        first = True
        for source in (path, workspace.window_features):
            shutil.rmtree(pushed_folder(source), ignore_errors=True)
    covered = pd.Series(dtype="datetime64[us, UTC]")
    if not first:
        loads = read_parquet(path, ["event_timestamp", CREATED])
        now = max(now, loads[CREATED].max() + MICROSECOND)  # a clock may have been put back
        loads.loc[len(loads)] = [pd.NaT, now]
        covered = covered_before(loads)

    revised = []

    def versions() -> Iterator[pa.Table]:
        for group, symbols in symbol_groups(bars, group_rows):
            with _reading_history(path):
                history = None if first else pd.read_parquet(path, filters=symbols)
            history = merge(history, daily_features(group, progress), now)
            revised.append(revisions(history, covered))
            yield pa.Table.from_pandas(history, preserve_index=False)

    _write_groups(versions(), path)
    changes = pd.concat(revised, ignore_index=True)
    write_parquet(changes, workspace.revisions)
    return "\n".join([*notes, *_describe(changes[changes[CREATED] == now], workspace.revisions)])


@contextmanager
def _reading_history(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}). It is the history of the features: "
            f"`dvc checkout --force {path}` brings back the one that DVC last saw."
        ) from error


def _another_history(path: Path, bars: pd.DataFrame) -> str | None:
    """Why the history on disk cannot be one of these bars, if so."""
    with _reading_history(path):
        columns = pq.read_schema(path).names
    if columns != [*KEYS, CREATED, *NAMES, "segment"]:
        return "its features are others"
    held = pq.read_table(path, columns=["symbol", "event_timestamp"])
    for name, ours in (("symbol", bars["symbol"]), ("event_timestamp", session_close(bars["date"]))):
        if not ours.isin(held[name].unique().to_pandas()).any():
            return f"it shares no {'symbol' if name == 'symbol' else 'session'} with the bars"
    return None


def _write_groups(groups: Iterator[pa.Table], path: Path) -> None:
    """Write one table from its parts, a row group each."""
    head = next(groups)
    with (
        replacing(path) as temporary,
        pq.ParquetWriter(
            temporary, head.schema, coerce_timestamps="us", allow_truncated_timestamps=True
        ) as writer,
    ):
        for group in chain([head], groups):
            writer.write_table(group, row_group_size=len(group))


def _describe(changes: pd.DataFrame, path: Path) -> Iterator[str]:
    """A load's revisions in a sentence, if there are any."""
    bars = changes[changes["bar_changed"]]
    if len(bars):
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in bars["kind"].value_counts(sort=False).items())
        names = bars["symbol"].unique()
        yield f"{len(bars):,} bars revised ({kinds}) of {', '.join(names[:5])}" + (
            f" and {len(names) - 5:,} more symbols" if len(names) > 5 else ""
        )
    if len(changes):
        instants = changes["event_timestamp"]
        yield (
            f"features moved in {len(changes):,} rows, sessions {instants.min():%Y-%m-%d} to "
            f"{instants.max():%Y-%m-%d}: {path}"
        )
