"""Stage `publish`: the features into Feast, offline and online."""

import io
import sqlite3
import sys
from contextlib import closing, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from pitwise.bars.calendar import session_close
from pitwise.errors import DataError
from pitwise.features.history import CREATED, known
from pitwise.features.indicators import FEATURES, NAMES
from pitwise.features.windows import PACKED, gather, packed, window_ends
from pitwise.stage import Params, load_params, run_stage
from pitwise.workspace import Workspace, pushed_folder, read_parquet, sha256, write_json, write_parquet


class PublishParams(Params):
    window: int = Field(ge=1)
    window_sessions: int = Field(ge=1)


def window_table(daily: pd.DataFrame, window: int, window_sessions: int) -> pa.Table:
    """The windows Feast serves: of the last `window_sessions` sessions, and each symbol's last one.

    Args:
        daily: the features as known now, sorted by symbol and event_timestamp.

    Returns:
        `symbol`, `event_timestamp`, `created_timestamp` (of the newest version in the window) and
        `window`, see `pitwise.features.windows.packed`.

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


def _drop_old_windows(pushed: Path, since: str, window: int) -> None:
    """Windows are copies: the live ones need go no further back than ours, nor be of another length."""
    size = PACKED.itemsize * window * len(NAMES)
    for path in pushed.glob("*.parquet"):
        lengths = pc.binary_length(pq.read_table(path, columns=["window"])["window"]).drop_null()
        if path.stem < since or set(lengths.unique().to_pylist()) - {size}:
            path.unlink()


def _read_while_writing(store: Any) -> None:
    """Let SQLite readers go on while somebody writes."""
    if store.config.online_store.type == "sqlite":
        path = store.config.repo_path / store.config.online_store.path
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA journal_mode=WAL")


def main(workspace: Workspace) -> None:
    params = load_params(workspace, "publish", PublishParams)
    daily = known(read_parquet(workspace.daily_features))
    windows = window_table(daily, params.window, params.window_sessions)
    write_parquet(windows, workspace.window_features)

    from feature_repo.store import open_store

    store = open_store(workspace)  # first, for it imports Feast in a second

    from feature_repo.definitions import OBJECTS

    instants = daily["event_timestamp"]
    kept = instants.drop_duplicates().nlargest(params.window_sessions).min()
    with (
        workspace.online_writer(),
        redirect_stdout(sys.stdout if sys.stdout.isatty() else io.StringIO()),
    ):
        _drop_old_windows(pushed_folder(workspace.window_features), f"{kept:%Y-%m-%d}", params.window)
        pushed = [path.stem for path in pushed_folder(workspace.daily_features).glob("*.parquet")]
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
            "daily_sha256": sha256(workspace.daily_features),
        },
        workspace.published,
    )
    print(f"{len(daily):,} daily rows and {windows.num_rows:,} windows of {params.window} sessions")


if __name__ == "__main__":
    run_stage(main)
