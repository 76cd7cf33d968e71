"""Stage `publish`: the features into Feast, offline and online."""

import io
import sqlite3
import sys
from contextlib import closing, redirect_stdout
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from feature_repo.artifacts import (
    DAILY_FEATURES,
    FEAST_REPO,
    PUBLISHED,
    WINDOW_FEATURES,
    online_writer,
    pushed_rows,
    read_parquet,
    sha256,
    write_json,
    write_parquet,
)
from feature_repo.errors import DataError
from feature_repo.indicators import FEATURES, NAMES
from feature_repo.revisions import CREATED, known
from feature_repo.sessions import session_close
from feature_repo.stage import Params, load_params, run_stage
from feature_repo.windows import PACKED, gather, packed, window_ends


class PublishParams(Params):
    window: int = Field(ge=1)
    window_sessions: int = Field(ge=1)


def window_table(daily: pd.DataFrame, window: int, window_sessions: int) -> pa.Table:
    """The windows Feast serves: of the last `window_sessions` sessions, and each symbol's last one.

    Args:
        daily: the features as known now, sorted by symbol and event_timestamp.

    Returns:
        `symbol`, `event_timestamp`, `created_timestamp` (of the newest version in the window) and
        `window`, see `feature_repo.windows.packed`.

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

    created = daily[CREATED].to_numpy("datetime64[us]")[:, None]
    return pa.table(
        {
            "symbol": pa.array(symbols[ends], pa.string()),
            "event_timestamp": pa.array(instants.iloc[ends], pa.timestamp("us", "UTC")),
            CREATED: pa.array(gather(created, ends, window).max(axis=(1, 2)), pa.timestamp("us", "UTC")),
            "window": pa.array(packed(gather(rows, ends, window)), pa.binary()),
        }
    )


def _drop_old_windows(since: str, window: int) -> None:
    """Windows are copies: the live ones need go no further back than ours, nor be of another length."""
    size = PACKED.itemsize * window * len(NAMES)
    for path in pushed_rows(WINDOW_FEATURES).glob("*.parquet"):
        lengths = pc.binary_length(pq.read_table(path, columns=["window"])["window"]).drop_null()
        if path.stem < since or set(lengths.unique().to_pylist()) - {size}:
            path.unlink()


def _read_while_writing(store: Any) -> None:
    """Let SQLite readers go on while somebody writes."""
    if store.config.online_store.type == "sqlite":
        path = store.config.repo_path / store.config.online_store.path
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA journal_mode=WAL")


def main() -> None:
    params = load_params("publish", PublishParams)
    daily = known(read_parquet(DAILY_FEATURES))
    windows = window_table(daily, params.window, params.window_sessions)
    write_parquet(windows, WINDOW_FEATURES)

    from feast import FeatureStore

    from feature_repo.definitions import OBJECTS

    instants = daily["event_timestamp"]
    kept = instants.drop_duplicates().nlargest(params.window_sessions).min()
    store = FeatureStore(str(FEAST_REPO))
    with online_writer(), redirect_stdout(sys.stdout if sys.stdout.isatty() else io.StringIO()):
        _drop_old_windows(f"{kept:%Y-%m-%d}", params.window)
        pushed = [path.stem for path in pushed_rows(DAILY_FEATURES).glob("*.parquet")]
        pushed_last = (
            session_close(pd.to_datetime(pd.Series(pushed))).max() if pushed else instants.max()
        )
        store.apply(OBJECTS)
        _read_while_writing(store)
        # Whole history on purpose: a symbol that stopped trading keeps its last values.
        store.materialize(
            start_date=instants.min().to_pydatetime(),
            end_date=max(instants.max(), pushed_last).to_pydatetime(),
            feature_views=["daily", "windows"],
        )
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
