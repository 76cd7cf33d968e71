"""Stage `publish`: the features into Feast, offline and online."""

import io
import sys
from contextlib import redirect_stdout

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import Field

from feature_repo.artifacts import (
    DAILY_FEATURES,
    FEAST_REPO,
    PUBLISHED,
    WINDOW_FEATURES,
    read_parquet,
    sha256,
    write_json,
    write_parquet,
)
from feature_repo.errors import DataError
from feature_repo.indicators import FEATURES, NAMES
from feature_repo.revisions import known
from feature_repo.stage import Params, load_params, run_stage
from feature_repo.windows import gather, window_ends


class PublishParams(Params):
    window: int = Field(ge=1)
    window_sessions: int = Field(ge=1)


def window_table(daily: pd.DataFrame, window: int, window_sessions: int) -> pa.Table:
    """The windows Feast serves: of the last `window_sessions` sessions, and each symbol's last one.

    Args:
        daily: the features as known now, sorted by symbol and event_timestamp.

    Returns:
        `symbol`, `event_timestamp` and one list<float32> of `window` values a feature.

    Raises:
        DataError: no symbol has a whole window.
    """
    rows = daily[NAMES].to_numpy("float32")
    symbols = daily["symbol"].to_numpy(object)
    ends = window_ends(symbols, rows, window)
    if len(ends) == 0:
        longest = daily.groupby("symbol").size().max()
        raise DataError(
            f"publish.window: {window} sessions is longer than the history: the longest symbol has "
            f"{longest}, and the indicators need the first {max(f.history for f in FEATURES) - 1}. "
            "Use a shorter window or more data."
        )
    instants = daily["event_timestamp"]
    recent = instants >= instants.drop_duplicates().nlargest(window_sessions).min()
    is_last = np.append(symbols[ends][1:] != symbols[ends][:-1], True)
    ends = ends[recent.to_numpy()[ends] | is_last]

    values = gather(rows, ends, window)
    offsets = np.arange(0, values[:, :, 0].size + 1, window, dtype="int32")
    columns = {"symbol": pa.array(symbols[ends], pa.string())}
    columns["event_timestamp"] = pa.array(instants.iloc[ends], pa.timestamp("us", "UTC"))
    for i, name in enumerate(NAMES):
        columns[name] = pa.ListArray.from_arrays(offsets, np.ascontiguousarray(values[:, :, i]).ravel())
    return pa.table(columns)


def main() -> None:
    params = load_params("publish", PublishParams)
    history = read_parquet(DAILY_FEATURES)
    daily = known(history)
    windows = window_table(daily, params.window, params.window_sessions)
    write_parquet(windows, WINDOW_FEATURES)

    from feast import FeatureStore

    from feature_repo.definitions import OBJECTS
    from feature_repo.definitions import daily as daily_view
    from feature_repo.definitions import windows as window_view

    PUBLISHED.parent.mkdir(parents=True, exist_ok=True)
    store = FeatureStore(str(FEAST_REPO))
    instants = daily["event_timestamp"]
    with redirect_stdout(sys.stdout if sys.stdout.isatty() else io.StringIO()):  # Feast's progress
        store.apply(OBJECTS)
        # Whole history on purpose: a symbol that stopped trading keeps its last values.
        store.materialize(
            start_date=instants.min().to_pydatetime(),
            end_date=instants.max().to_pydatetime(),
            feature_views=[daily_view.name, window_view.name],
        )
        # Feast put a withdrawn bar online as nulls; the bar before it is the symbol's last one.
        newest = history.drop_duplicates("symbol", keep="last")
        withdrawn = newest.loc[newest["close"].isna(), "symbol"]
        last = daily[daily["symbol"].isin(withdrawn)].drop_duplicates("symbol", keep="last")
        if len(last):
            store.write_to_online_store(daily_view.name, last.drop(columns="segment"))
    write_json(
        {
            "symbols": int(daily["symbol"].nunique()),
            "symbols_with_a_window": len(set(windows["symbol"].to_pylist())),
            "daily_rows": len(daily),
            "windows": windows.num_rows,
            "window": params.window,
            "last_event_timestamp": instants.max().isoformat(),
            "daily_sha256": sha256(DAILY_FEATURES),
        },
        PUBLISHED,
    )
    print(f"{len(daily):,} daily rows and {windows.num_rows:,} windows of {params.window} sessions")


if __name__ == "__main__":
    run_stage(main)
