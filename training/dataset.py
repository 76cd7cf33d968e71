"""Stage `dataset`: point-in-time rows from Feast, their labels, and the split they fall in."""

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import AwareDatetime, Field

from feature_repo.calendar_events import calendar_kinds, point_in_time_events
from feature_repo.store import open_store, own_duckdb
from pitwise.engine import engine_of
from pitwise.errors import DataError, StoreError
from pitwise.evaluation.labels import LabelParams, labels
from pitwise.evaluation.splits import Split, split_sessions
from pitwise.features.daily import FACTORS
from pitwise.features.history import CREATED, KEYS, known
from pitwise.features.indicators import NAMES
from pitwise.features.served import COMPLETE, ENDS, SERVED, VERSION, served_versions
from pitwise.features.windows import complete_rows, window_ends
from pitwise.shards import Shards, write_groups
from pitwise.stage import Params, load_params, run_stage
from pitwise.universe import UNIVERSE, members, read_universe, survivorship
from pitwise.workspace import Workspace, read_json, read_parquet, write_json, write_parquet
from training.closed import closed_from

SHARD_ROWS = 600_000
"""At most so many versions, but at least a row group, are in a process's memory with their features."""
CODE = (
    "feature_repo",
    "pitwise/bars",
    "pitwise/evaluation",
    "pitwise/features",
    "pitwise/universe.py",
    "training/closed.py",
    "training/dataset.py",
)
LIBRARIES = ("duckdb", "feast")
ANSWERS = ("open", "close", "price_factor", "segment")
"""What labels are made of, beside the keys."""
RowGroups = tuple[int, int]
"""Of the file of the features, from the first to before the second. A symbol lies in one row group."""


class DatasetParams(Params):
    validation_fraction: float = Field(gt=0, lt=0.5)
    test_fraction: float = Field(gt=0, lt=0.5)
    embargo_sessions: int = Field(ge=0)
    known_at: AwareDatetime | None = None
    """Knowledge cutoff: the set as it could be made at this instant; None for all that is known."""
    view: Literal["as_served", "corrected"] = "as_served"
    """Windows of what was known at their own time, or of the newest versions."""


def open_as_known(workspace: Workspace, known_at: datetime | None) -> Any:
    """The feature store, whose offline part answers as at `known_at`.

    Raises:
        StoreError: the offline store is one without a knowledge cutoff.
    """
    store = open_store(workspace)
    if hasattr(store.config.offline_store, "pushed"):
        # What was pushed since the pipeline's last run is no dependency of this stage.
        store.config.offline_store.pushed = False
    if known_at:
        if not hasattr(store.config.offline_store, "known_at"):
            raise StoreError("dataset.known_at: the offline store in feature_store.yaml has no cutoff.")
        store.config.offline_store.known_at = known_at
    return store


def point_in_time_rows(store: Any, spine: pd.DataFrame) -> pa.Table:
    """The daily features of each instant of the spine, as the store knows them.

    Args:
        store: see `open_as_known`.
        spine: (n,) `symbol`, `event_timestamp`, and columns that go along.

    Returns:
        the spine, row for row, with the daily features after its keys.
    """
    numbered = spine.assign(_number=np.arange(len(spine)))
    service = store.get_feature_service("daily_v1")
    rows = store.get_historical_features(entity_df=numbered, features=service).to_arrow()
    rows = rows.combine_chunks().take(pc.sort_indices(rows["_number"]))
    along = [name for name in spine if name not in KEYS]
    return rows.select([*KEYS, *NAMES, *along])


def build(
    rows: pd.DataFrame, daily: pd.DataFrame, params: DatasetParams, window: int, horizon: int = 1
) -> pd.DataFrame:
    """The whole set in the view `corrected`, out of features that are all in memory.

    Args:
        rows: the features, sorted by symbol and event_timestamp.
        daily: what the labels are made of, see `labels`.

    Returns:
        rows with `ends_window`, `next_close`, `label`, `label_open`, `split` ('' for none).

    Raises:
        DataError: too little data for a window or a split.
    """
    ends = np.zeros(len(rows), dtype=bool)
    ends[window_ends(rows["symbol"].to_numpy(object), rows[NAMES].to_numpy(), window)] = True
    answers = pd.concat([daily[KEYS], labels(daily, horizon)], axis=1)
    result = rows.assign(**{ENDS: ends}).merge(answers, on=KEYS, validate="one_to_one")
    usable = result[ENDS] & result["label"].notna()
    split = _split(result.loc[usable, "event_timestamp"], params, window, horizon)
    return result.assign(split=np.where(usable, split.label(result["event_timestamp"]), ""))


def _split(sessions: pd.Series, params: DatasetParams, window: int, horizon: int) -> Split:
    if sessions.empty:
        raise DataError(
            f"publish.window: no symbol has {window} complete sessions and {horizon} after them."
        )
    in_order = pd.DatetimeIndex(sessions.unique()).sort_values()
    return split_sessions(
        in_order,
        params.validation_fraction,
        params.test_fraction,
        params.embargo_sessions,
        horizon,
    )


def groups(
    workspace: Workspace,
    params: DatasetParams,
    window: int,
    horizon: int,
    closed: pd.Timestamp | None = None,
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """The set of some symbols at a time, without the split, and their rows as served.

    In a session in which a symbol is no member of the universe no window of it ends; its bars stay as
    the history of those that do.

    Args:
        closed: the bars from this instant on are not read, for labels neither.
    """
    for some in row_groups(workspace.daily_features, SHARD_ROWS):
        part = _of_row_groups(workspace, params, window, horizon, closed, some)
        if part is not None:
            rows, served = part
            yield rows.to_pandas(), served


def row_groups(path: Path, rows: int) -> list[RowGroups]:
    """All row groups of a file: one at a time, or several with at most so many rows together."""
    file = pq.read_metadata(path)
    begins, size = [0], 0
    for group in range(file.num_row_groups):
        in_group = file.row_group(group).num_rows
        if size and size + in_group > rows:
            begins.append(group)
            size = 0
        size += in_group
    return list(pairwise([*begins, file.num_row_groups]))


def _of_row_groups(
    workspace: Workspace,
    params: DatasetParams,
    window: int,
    horizon: int,
    closed: pd.Timestamp | None,
    some: RowGroups,
) -> tuple[pa.Table, pd.DataFrame] | None:
    """See `groups`; None where nothing is known of the symbols."""
    store = open_as_known(workspace, params.known_at)
    seals = read_parquet(workspace.seals)
    with pq.ParquetFile(workspace.daily_features) as file:
        versions = file.read_row_groups(range(*some))
    if params.known_at:
        seals = seals[seals["sealed_at"] <= params.known_at]
        versions = versions.filter(pc.field(CREATED) <= params.known_at)
    if closed is not None:
        versions = versions.filter(pc.field("event_timestamp") < closed)
    # Of the features nothing is asked but whether they are there.
    history = versions.select([*KEYS, CREATED, *ANSWERS, *FACTORS[1:]]).to_pandas(ignore_metadata=True)
    history[COMPLETE] = complete_rows(versions)
    daily = known(history)
    if daily.empty:
        return None
    if params.view == "as_served":
        ends, runs = served_versions(history, seals, window)
    else:
        ends, runs = served_versions(daily, seals[:0], window)
    served = versions.select(SERVED).take(pa.array(runs.pop(VERSION))).to_pandas()
    served = pd.concat([served, runs], axis=1)
    ends &= members(read_universe(workspace), daily)
    del history, versions  # the join needs their room
    with own_duckdb(threads=1):  # other shards have the other cores
        rows = point_in_time_rows(store, daily[[*KEYS, *FACTORS]])
        if kinds := calendar_kinds(workspace):
            rows = _beside(rows, point_in_time_events(store, daily[KEYS], kinds))
    return _beside(rows, pd.concat([pd.Series(ends, name=ENDS), labels(daily, horizon)], axis=1)), served


def _beside(table: pa.Table, frame: pd.DataFrame) -> pa.Table:
    """The table with the columns of a frame after its own; what is missing there is null."""
    for name, values in frame.items():
        table = table.append_column(name, pa.array(values, from_pandas=True))
    return table


def _shard(
    root: str,
    params: DatasetParams,
    window: int,
    horizon: int,
    closed: pd.Timestamp | None,
    some: RowGroups,
) -> dict[str, pa.Table]:
    part = _of_row_groups(Workspace(root), params, window, horizon, closed, some)
    if part is None:
        return {}
    rows, served = part
    return {"rows": rows, "served": pa.Table.from_pandas(served, preserve_index=False)}


def main(workspace: Workspace) -> None:
    params = load_params(workspace, "dataset", DatasetParams)
    horizon = load_params(workspace, "label", LabelParams).horizon
    window = read_json(workspace.published)["window"]
    closed = closed_from(workspace)
    shards = Shards(
        engine_of(workspace),
        partial(_shard, str(workspace.root), params, window, horizon, closed),
        row_groups(workspace.daily_features, SHARD_ROWS),
        workspace.dataset_shards,
        _inputs(workspace),
        {
            "params": params.model_dump(mode="json"),
            "of": [window, horizon, f"{closed}"],
            "libraries": [version(name) for name in LIBRARIES],
        },
        CODE,
    )
    served, sessions = [], []
    symbols: set[str] = set()
    for tables in filter(None, shards):
        rows = tables["rows"]
        served.append(tables["served"].to_pandas())
        sessions.append(pc.unique(rows["event_timestamp"].filter(_usable(rows))).to_pandas())
        symbols.update(pc.unique(rows["symbol"]).to_pylist())
    if not sessions:
        if closed is not None:
            raise DataError(f"evaluate.vault: no bar is known of a session before {closed:%Y-%m-%d}.")
        raise DataError(f"dataset.known_at: no bar was known at {params.known_at}. Use a later instant.")
    covered = survivorship(read_universe(workspace), symbols, workspace.root / UNIVERSE)
    split = _split(pd.concat(sessions), params, window, horizon)
    write_parquet(pd.concat(served, ignore_index=True), workspace.served_rows)
    report = {"window": window, "horizon": horizon, "splits": _write_rows(shards, split, workspace)}
    report |= covered
    write_json(report, workspace.dataset_report)
    shards.remove()
    counts = ", ".join(f"{part['windows']:,} {name}" for name, part in report["splits"].items())
    print(f"windows of {window} sessions: {counts}")
    if closed is not None:
        print(f"the sessions from {closed:%Y-%m-%d} on are in the vault")
    if covered["survivorship"]:
        print(covered["survivorship"])


def _inputs(workspace: Workspace) -> list[Path]:
    files = [workspace.daily_features, workspace.published, workspace.seals, workspace.root / UNIVERSE]
    files.append(workspace.calendar_features)
    return [*files, *sorted(workspace.feast_repo.glob("*.yaml"))]


def _usable(rows: pa.Table) -> pa.ChunkedArray:
    """Which rows end a window and have a label."""
    return pc.and_(rows[ENDS], pc.is_valid(rows["label"]))


def _write_rows(shards: Shards, split: Split, workspace: Workspace) -> dict[str, dict]:
    """Write the rows, a row group a shard, with the split they fall in; what is in each split."""
    parts = {"test": split.test, "train": split.train, "validation": split.validation}
    counts: dict[str, dict[str, Any]] = {
        name: {
            "windows": 0,
            "symbols": 0,
            "sessions": len(instants),
            "first_session": f"{instants[0]:%Y-%m-%d}",
            "last_session": f"{instants[-1]:%Y-%m-%d}",
        }
        for name, instants in parts.items()
    }

    def in_splits() -> Iterator[pa.Table]:
        for tables in filter(None, shards):
            rows = tables["rows"]
            usable = _usable(rows).to_numpy()
            part = np.where(usable, split.label(rows["event_timestamp"].to_pandas()), "")
            for name, count in counts.items():
                count["windows"] += int((part == name).sum())
                count["symbols"] += pc.count_distinct(rows["symbol"].filter(part == name)).as_py()
            yield rows.append_column("split", pa.array(part))

    write_groups(in_splits(), workspace.dataset_rows)
    return counts


if __name__ == "__main__":
    run_stage(main)
