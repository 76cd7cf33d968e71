"""Stage `publish`: the features into Feast, offline and online."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from pitwise.bars.calendar import session_day
from pitwise.bars.sources.calendar_files import csv_events
from pitwise.errors import DataError, ParamsError
from pitwise.features.calendar_events import last_events, no_events
from pitwise.features.history import CREATED, known
from pitwise.features.indicators import FEATURES, NAMES
from pitwise.features.windows import (
    HEADER,
    PACKED,
    WindowRows,
    gather,
    packed,
    window_ends,
    window_header,
)
from pitwise.stage import Params, load_params, run_stage
from pitwise.workspace import (
    Workspace,
    pushed_folder,
    read_json,
    read_parquet,
    sha256,
    write_json,
    write_parquet,
)

UNIVERSE_FOLDER = "universe"
"""What a person says of symbols, and no source of bars does."""


class PublishParams(Params):
    window: int = Field(ge=1)
    window_sessions: int = Field(ge=1)


class CalendarParams(Params):
    path: Path | None = None
    """Events with a publication lag; None: there are none."""


def calendar_table(workspace: Workspace, path: Path | None) -> pd.DataFrame:
    """What Feast serves of the calendar, see `last_events`; no rows where there is none.

    Raises:
        ParamsError: the file lies where DVC would not see that it changed.
        DataError: it cannot be read.
    """
    if path is None:
        return no_events()
    file = workspace.path(path)
    folder = workspace.root / UNIVERSE_FOLDER
    if not file.resolve().is_relative_to(folder.resolve()):
        raise ParamsError(
            f"calendar.path: {path} does not lie in {folder}, whose changes make this stage run again. "
            "Put it there."
        )
    return last_events(csv_events(file))


def window_table(daily: pd.DataFrame, window: int, since: pd.Timestamp) -> pa.Table:
    """The windows Feast serves: those that end at `since` or later, and each symbol's last one.

    Args:
        daily: the features of some symbols as known now, sorted by symbol and event_timestamp.

    Returns:
        `symbol`, `event_timestamp`, `created_timestamp` (of the newest version in the window) and
        `window`, see `pitwise.features.windows.packed`.
    """
    rows = WindowRows(daily, NAMES)
    symbols = daily["symbol"].to_numpy(object)
    ends = window_ends(symbols, rows.base, window)
    is_last = np.append(symbols[ends][1:] != symbols[ends][:-1], True)[: len(ends)]
    ends = ends[(daily["event_timestamp"] >= since).to_numpy()[ends] | is_last]
    created = daily[CREATED].to_numpy("datetime64[us]")[:, None]
    return pa.table(
        {
            "symbol": pa.array(symbols[ends], pa.string()),
            "event_timestamp": pa.array(daily["event_timestamp"].iloc[ends], pa.timestamp("us", "UTC")),
            CREATED: pa.array(gather(created, ends, window).max(axis=(1, 2)), pa.timestamp("us", "UTC")),
            "window": pa.array(packed(rows.gather(ends, window)), pa.binary()),
        }
    )


class Published(NamedTuple):
    """What is in the store now."""

    windows: pa.Table
    rows: int
    """Daily rows that stand."""
    symbols: int
    instants: pd.DatetimeIndex
    """Closes of the sessions, sorted."""


def published_windows(path: Path, params: PublishParams) -> Published:
    """The windows of the features' history at `path`, some symbols in memory at a time.

    Raises:
        DataError: no symbol has a whole window.
    """
    file = pq.ParquetFile(path)
    closes = read_parquet(path, ["event_timestamp", "close"]).dropna()["event_timestamp"].unique()
    instants = pd.DatetimeIndex(closes).sort_values()
    since = instants[-params.window_sessions :][0]
    parts, rows, symbols, longest = [], 0, 0, 0
    for group in range(file.num_row_groups):
        daily = known(file.read_row_group(group).to_pandas())
        parts.append(window_table(daily, params.window, since))
        sizes = daily.groupby("symbol").size()
        rows, symbols = rows + len(daily), symbols + len(sizes)
        longest = max(longest, *sizes)
    windows = pa.concat_tables(parts)
    if windows.num_rows == 0:
        raise DataError(
            f"publish.window: {params.window} sessions is longer than the history: the longest symbol "
            f"has {longest}, and the indicators need the first {max(f.history for f in FEATURES) - 1}. "
            "Use a shorter window or more data."
        )
    return Published(windows, rows, symbols, instants)


def _drop_pushed(workspace: Workspace, last: pd.Timestamp, window: int) -> None:
    """Delete pushed rows of the sessions published here, and windows of other features or lengths.

    They were made of bars that the history holds now; what it does not hold, the service pushes again.
    """
    size, header = HEADER + PACKED.itemsize * window * len(NAMES), window_header(NAMES)
    for source in (workspace.daily_features, workspace.window_features):
        for path in pushed_folder(source).glob("*.parquet"):
            lengths, headers = {size}, {header}
            if source == workspace.window_features:
                windows = pq.read_table(path, columns=["window"])["window"].drop_null()
                lengths |= set(pc.binary_length(windows).unique().to_pylist())
                headers |= set(pc.binary_slice(windows, 0, HEADER).unique().to_pylist())
            is_published = path.stem <= f"{session_day(last):%Y-%m-%d}"
            if is_published or lengths != {size} or headers != {header}:
                path.unlink()


def main(workspace: Workspace) -> None:
    params = load_params(workspace, "publish", PublishParams)
    events = calendar_table(workspace, load_params(workspace, "calendar", CalendarParams).path)
    published = published_windows(workspace.daily_features, params)
    windows, last = published.windows, published.instants[-1]
    covered = set(events["symbol"]) & set(windows["symbol"].to_pylist())
    if len(events) and not covered:
        raise DataError(
            f"calendar.path: none of its symbols, such as {events['symbol'].iloc[0]}, has a window. "
            "Spell them as the bars do."
        )

    from feature_repo.store import materialize, open_store

    store = open_store(workspace, rebuild=False)
    with workspace.online_writer():
        write_parquet(windows, workspace.window_features)
        write_parquet(events, workspace.calendar_features)
        _drop_pushed(workspace, last, params.window)
        write_json(
            {
                "symbols": published.symbols,
                "symbols_with_a_window": len(set(windows["symbol"].to_pylist())),
                "daily_rows": published.rows,
                "windows": windows.num_rows,
                "window": params.window,
                "last_event_timestamp": last.isoformat(),
                "daily_sha256": sha256(workspace.daily_features),
                "landings": read_json(workspace.bar_landings),
                **({"calendar_sha256": sha256(workspace.calendar_features)} if len(events) else {}),
            },
            workspace.published,
        )
        materialize(workspace, store)
    print(f"{published.rows:,} daily rows and {windows.num_rows:,} windows of {params.window} sessions")
    if covered:
        print(f"the calendar has events of {len(covered)} of {published.symbols} symbols")


if __name__ == "__main__":
    run_stage(main)
