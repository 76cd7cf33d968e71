"""Stage `dataset`: point-in-time rows from Feast, their labels, and the split they fall in."""

from datetime import datetime

import numpy as np
import pandas as pd
from pydantic import AwareDatetime, Field

from feature_repo.store import open_store
from pitwise.bars.calendar import EXCHANGE_ZONE, session_number
from pitwise.errors import DataError, StoreError
from pitwise.evaluation.splits import split_sessions
from pitwise.features.history import CREATED, KEYS, known
from pitwise.features.indicators import NAMES
from pitwise.features.windows import window_ends
from pitwise.stage import Params, load_params, run_stage
from pitwise.workspace import Workspace, read_json, read_parquet, write_json, write_parquet


class DatasetParams(Params):
    validation_fraction: float = Field(gt=0, lt=0.5)
    test_fraction: float = Field(gt=0, lt=0.5)
    embargo_sessions: int = Field(ge=0)
    known_at: AwareDatetime | None = None
    """Knowledge cutoff: the set as it could be made at this instant; None for all that is known."""


def labels(daily: pd.DataFrame) -> pd.DataFrame:
    """Next session's close and log return of each bar.

    A label exists only if the symbol traded on the exchange's very next session, in the same segment:
    across a halt, a quarantined day or a spin-off there is no one-session return to learn.

    Args:
        daily: `symbol`, `event_timestamp`, `close`, `segment`, sorted by symbol and event_timestamp.

    Returns:
        row for row: `next_close` and `label` (log return), NaN where there is none.
    """
    dates = daily["event_timestamp"].dt.tz_convert(EXCHANGE_ZONE).dt.normalize().dt.tz_localize(None)
    session = pd.Series(session_number(dates), index=daily.index)
    joined = [daily["symbol"], daily["segment"]]
    adjacent = session.groupby(joined).shift(-1) == session + 1
    next_close = daily["close"].groupby(joined).shift(-1).where(adjacent)
    return pd.DataFrame({"next_close": next_close, "label": np.log(next_close / daily["close"])})


def point_in_time_rows(
    workspace: Workspace, spine: pd.DataFrame, known_at: datetime | None
) -> pd.DataFrame:
    """The daily features of each instant of the spine, as far as they were known at `known_at`.

    Args:
        spine: (n,) `symbol`, `event_timestamp`.

    Returns:
        the spine with the daily features, sorted by symbol and event_timestamp.

    Raises:
        StoreError: the offline store is one without a knowledge cutoff.
    """
    store = open_store(workspace)
    if hasattr(store.config.offline_store, "pushed"):
        # Live rows are no dependency of this stage: a training set comes from the pipeline's bars alone.
        store.config.offline_store.pushed = False
    if known_at:
        if not hasattr(store.config.offline_store, "known_at"):
            raise StoreError("dataset.known_at: the offline store in feature_store.yaml has no cutoff.")
        store.config.offline_store.known_at = known_at
    job = store.get_historical_features(entity_df=spine, features=store.get_feature_service("daily_v1"))
    return job.to_df().sort_values(KEYS, ignore_index=True)


def build(rows: pd.DataFrame, daily: pd.DataFrame, params: DatasetParams, window: int) -> pd.DataFrame:
    """Mark which rows end a window and join the labels, last of all.

    Args:
        rows: the features, sorted by symbol and event_timestamp.
        daily: what the labels are made of, see `labels`.

    Returns:
        rows with `ends_window`, `split` ('' for none), `label`, `next_close`.

    Raises:
        DataError: too little data for a window or a split.
    """
    labelled = pd.concat([daily[KEYS], labels(daily)], axis=1)

    ends = window_ends(rows["symbol"].to_numpy(object), rows[NAMES].to_numpy(), window)
    if len(ends) == 0:
        raise DataError(f"publish.window: no symbol has {window} complete sessions.")
    result = rows.assign(ends_window=False)
    result.loc[ends, "ends_window"] = True
    result = result.merge(labelled, on=KEYS, validate="one_to_one")
    usable = result["ends_window"] & result["label"].notna()
    sessions = pd.DatetimeIndex(result.loc[usable, "event_timestamp"].unique()).sort_values()
    split = split_sessions(
        sessions, params.validation_fraction, params.test_fraction, params.embargo_sessions
    )
    result["split"] = np.where(usable, split.label(result["event_timestamp"]), "")
    return result


def main(workspace: Workspace) -> None:
    params = load_params(workspace, "dataset", DatasetParams)
    window = read_json(workspace.published)["window"]
    history = read_parquet(workspace.daily_features, [*KEYS, CREATED, "close", "segment"])
    daily = known(history, params.known_at)
    if daily.empty:
        raise DataError(f"dataset.known_at: no bar was known at {params.known_at}. Use a later instant.")
    rows = build(point_in_time_rows(workspace, daily[KEYS], params.known_at), daily, params, window)
    write_parquet(rows, workspace.dataset_rows)

    report: dict = {"window": window, "splits": {}}
    for name, part in rows[rows["split"] != ""].groupby("split"):
        report["splits"][name] = {
            "windows": len(part),
            "symbols": int(part["symbol"].nunique()),
            "sessions": int(part["event_timestamp"].nunique()),
            "first_session": f"{part['event_timestamp'].min():%Y-%m-%d}",
            "last_session": f"{part['event_timestamp'].max():%Y-%m-%d}",
        }
    write_json(report, workspace.dataset_report)
    counts = ", ".join(f"{part['windows']:,} {name}" for name, part in report["splits"].items())
    print(f"windows of {window} sessions: {counts}")


if __name__ == "__main__":
    run_stage(main)
