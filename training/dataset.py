"""Stage `dataset`: point-in-time rows from Feast, their labels, and the split they fall in."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import AwareDatetime, Field

from feature_repo.calendar_events import calendar_kinds, point_in_time_events
from feature_repo.store import open_store
from pitwise.errors import DataError, StoreError
from pitwise.evaluation.labels import LabelParams, labels
from pitwise.evaluation.splits import Split, split_sessions
from pitwise.features.daily import FACTORS
from pitwise.features.history import CREATED, KEYS, known
from pitwise.features.indicators import NAMES
from pitwise.features.served import ENDS, as_served
from pitwise.features.windows import window_ends
from pitwise.stage import Params, load_params, run_stage
from pitwise.universe import UNIVERSE, members, read_universe, survivorship
from pitwise.workspace import Workspace, read_json, read_parquet, replacing, write_json, write_parquet
from training.closed import closed_from
from training.groups import symbol_filters

GROUP_ROWS = 500_000
"""About as many versions are in memory with their features at a time."""


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
    store = open_as_known(workspace, params.known_at)
    kinds = calendar_kinds(workspace)
    universe = read_universe(workspace)
    seals = read_parquet(workspace.seals)
    if params.known_at:
        seals = seals[seals["sealed_at"] <= params.known_at]
    for symbols in symbol_filters(workspace.daily_features, GROUP_ROWS):
        history = pd.read_parquet(workspace.daily_features, filters=symbols)
        if params.known_at:
            history = history[history[CREATED] <= params.known_at].reset_index(drop=True)
        if closed is not None:
            history = history[history["event_timestamp"] < closed].reset_index(drop=True)
        daily = known(history)
        if daily.empty:
            continue
        if params.view == "as_served":
            ends, served = as_served(history, seals, window)
        else:
            ends, served = as_served(daily, seals[:0], window)
        rows = point_in_time_rows(store, daily[[*KEYS, *FACTORS]])
        if kinds:
            rows = pd.concat([rows, point_in_time_events(store, rows, kinds)], axis=1)
        answers = daily[[*KEYS, "open", "close", "price_factor", "segment"]]
        yield labelled(rows, answers, ends & members(universe, daily), horizon), served


def main(workspace: Workspace) -> None:
    params = load_params(workspace, "dataset", DatasetParams)
    horizon = load_params(workspace, "label", LabelParams).horizon
    window = read_json(workspace.published)["window"]
    closed = closed_from(workspace)
    parts: list[pa.Table] = []  # as Arrow keeps them, which is half of what pandas would take
    served, sessions = [], []
    symbols: set[str] = set()
    for rows, overlay in groups(workspace, params, window, horizon, closed):
        parts.append(pa.Table.from_pandas(rows, preserve_index=False))
        served.append(overlay)
        sessions.append(usable_sessions(rows))
        symbols.update(rows["symbol"].unique())
    if not parts:
        if closed is not None:
            raise DataError(f"evaluate.vault: no bar is known of a session before {closed:%Y-%m-%d}.")
        raise DataError(f"dataset.known_at: no bar was known at {params.known_at}. Use a later instant.")
    covered = survivorship(read_universe(workspace), symbols, workspace.root / UNIVERSE)
    split = _split(pd.concat(sessions), params, window, horizon)
    write_parquet(pd.concat(served, ignore_index=True), workspace.served_rows)
    report = {"window": window, "horizon": horizon, "splits": _write_rows(parts, split, workspace)}
    report |= covered
    write_json(report, workspace.dataset_report)
    counts = ", ".join(f"{part['windows']:,} {name}" for name, part in report["splits"].items())
    print(f"windows of {window} sessions: {counts}")
    if closed is not None:
        print(f"the sessions from {closed:%Y-%m-%d} on are in the vault")
    if covered["survivorship"]:
        print(covered["survivorship"])


def _write_rows(parts: list[pa.Table], split: Split, workspace: Workspace) -> dict[str, dict]:
    """Write the rows, a row group a part, with the split they fall in; what is in each split."""
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
        while parts:
            rows = _in_splits(parts.pop(0).to_pandas(), split)
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
