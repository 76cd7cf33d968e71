"""Stage `dataset`: point-in-time rows from Feast, their labels, and the split they fall in."""

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
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
from pitwise.features.served import ENDS, as_served
from pitwise.features.windows import window_ends
from pitwise.shards import Range, Shards, read_range, symbol_ranges
from pitwise.stage import Params, load_params, run_stage
from pitwise.universe import UNIVERSE, members, read_universe, survivorship
from pitwise.workspace import Workspace, read_json, read_parquet, replacing, write_json, write_parquet
from training.closed import closed_from

SHARD_ROWS = 500_000
"""About as many versions are in a process's memory with their features at a time."""
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


def point_in_time_rows(store: Any, spine: pd.DataFrame) -> pd.DataFrame:
    """The daily features of each instant of the spine, as the store knows them.

    Args:
        store: see `open_as_known`.
        spine: (n,) `symbol`, `event_timestamp`, and columns that go along.

    Returns:
        the spine with the daily features, sorted by symbol and event_timestamp.
    """
    job = store.get_historical_features(entity_df=spine, features=store.get_feature_service("daily_v1"))
    rows = job.to_df().sort_values(KEYS, ignore_index=True)
    along = [name for name in spine if name not in KEYS]
    return rows[[*KEYS, *NAMES, *along]]


def labelled(rows: pd.DataFrame, daily: pd.DataFrame, ends: np.ndarray, horizon: int) -> pd.DataFrame:
    """The labels of the rows, joined last of all.

    Args:
        rows: the features, sorted by symbol and event_timestamp.
        daily: what the labels are made of, see `labels`.
        ends: (n,) bool, which rows end a window.

    Returns:
        rows with `ends_window`, `next_close`, `label`, `label_open`.
    """
    answers = pd.concat([daily[KEYS], labels(daily, horizon)], axis=1)
    return rows.assign(**{ENDS: ends}).merge(answers, on=KEYS, validate="one_to_one")


def usable_sessions(rows: pd.DataFrame) -> pd.Series:
    """The instants in which a window with a label ends."""
    usable = rows[ENDS] & rows["label"].notna()
    return rows.loc[usable, "event_timestamp"].drop_duplicates()


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
    result = labelled(rows, daily, ends, horizon)
    return _in_splits(result, _split(usable_sessions(result), params, window, horizon))


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


def _in_splits(rows: pd.DataFrame, split: Split) -> pd.DataFrame:
    usable = rows[ENDS] & rows["label"].notna()
    return rows.assign(split=np.where(usable, split.label(rows["event_timestamp"]), ""))


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
    for symbols in symbol_ranges(workspace.daily_features, SHARD_ROWS):
        part = _of_symbols(workspace, params, window, horizon, closed, symbols)
        if part is not None:
            yield part


def _of_symbols(
    workspace: Workspace,
    params: DatasetParams,
    window: int,
    horizon: int,
    closed: pd.Timestamp | None,
    symbols: Range,
) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """See `groups`; None where nothing is known of the symbols."""
    store = open_as_known(workspace, params.known_at)
    seals = read_parquet(workspace.seals)
    history = read_range(workspace.daily_features, symbols)
    if params.known_at:
        seals = seals[seals["sealed_at"] <= params.known_at]
        history = history[history[CREATED] <= params.known_at].reset_index(drop=True)
    if closed is not None:
        history = history[history["event_timestamp"] < closed].reset_index(drop=True)
    daily = known(history)
    if daily.empty:
        return None
    if params.view == "as_served":
        ends, served = as_served(history, seals, window)
    else:
        ends, served = as_served(daily, seals[:0], window)
    ends &= members(read_universe(workspace), daily)
    answers = daily[[*KEYS, "open", "close", "price_factor", "segment"]]
    spine = daily[[*KEYS, *FACTORS]]
    del history, daily  # the join needs their room
    with own_duckdb():
        rows = point_in_time_rows(store, spine)
        if kinds := calendar_kinds(workspace):
            rows = pd.concat([rows, point_in_time_events(store, rows, kinds)], axis=1)
    return labelled(rows, answers, ends, horizon), served


def _shard(
    root: str,
    params: DatasetParams,
    window: int,
    horizon: int,
    closed: pd.Timestamp | None,
    symbols: Range,
) -> dict[str, pa.Table]:
    part = _of_symbols(Workspace(root), params, window, horizon, closed, symbols)
    if part is None:
        return {}
    rows, served = (pa.Table.from_pandas(table, preserve_index=False) for table in part)
    return {"rows": rows, "served": served}


def main(workspace: Workspace) -> None:
    params = load_params(workspace, "dataset", DatasetParams)
    horizon = load_params(workspace, "label", LabelParams).horizon
    window = read_json(workspace.published)["window"]
    closed = closed_from(workspace)
    shards = Shards(
        engine_of(workspace),
        partial(_shard, str(workspace.root), params, window, horizon, closed),
        symbol_ranges(workspace.daily_features, SHARD_ROWS),
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
        rows = tables["rows"].select([*KEYS, ENDS, "label"]).to_pandas()
        served.append(tables["served"].to_pandas())
        sessions.append(usable_sessions(rows))
        symbols.update(rows["symbol"].unique())
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


def _write_rows(shards: Shards, split: Split, workspace: Workspace) -> dict[str, dict]:
    """Write the rows, a row group a shard, with the split they fall in; what is in each split."""
    counts: dict[str, dict[str, Any]] = {
        name: {
            "windows": 0,
            "symbols": 0,
            "sessions": len(instants),
            "first_session": f"{instants[0]:%Y-%m-%d}",
            "last_session": f"{instants[-1]:%Y-%m-%d}",
        }
        for name, instants in (
            ("test", split.test),
            ("train", split.train),
            ("validation", split.validation),
        )
    }
    writer = None
    with replacing(workspace.dataset_rows) as temporary:
        for tables in filter(None, shards):
            rows = _in_splits(tables["rows"].to_pandas(), split)
            for name, part in rows[rows["split"] != ""].groupby("split"):
                counts[name]["windows"] += len(part)
                counts[name]["symbols"] += int(part["symbol"].nunique())
            table = pa.Table.from_pandas(rows, preserve_index=False)
            if writer is None:
                options = {"coerce_timestamps": "us", "allow_truncated_timestamps": True}
                writer = pq.ParquetWriter(temporary, table.schema, **options)
            writer.write_table(table.cast(writer.schema), row_group_size=len(table))
        assert writer is not None
        writer.close()
    return counts


if __name__ == "__main__":
    run_stage(main)
