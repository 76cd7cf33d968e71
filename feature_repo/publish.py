"""Stage `publish`: the features into Feast, offline and online."""

from contextlib import ExitStack
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
from pitwise.features.history import CREATED, KEYS, known
from pitwise.features.indicators import FEATURES, NAMES
from pitwise.features.windows import (
    HEADER,
    PACKED,
    WindowRows,
    complete_rows,
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
    replacing,
    sha256,
    write_json,
    write_parquet,
)

UNIVERSE_FOLDER = "universe"
"""What a person says of symbols, and no source of bars does."""
WINDOWS_AT_A_TIME = 20_000
"""At least so many are in a row group: about 100 MB, in memory before they are written."""
WINDOWS = pa.schema(
    {
        "symbol": pa.string(),
        "event_timestamp": pa.timestamp("us", "UTC"),
        CREATED: pa.timestamp("us", "UTC"),
        "window": pa.binary(),
    }
)


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


def window_table(versions: pa.Table, window: int, since: pd.Timestamp) -> tuple[pa.Table, pd.Series]:
    """The windows Feast serves: those that end at `since` or later, and each symbol's last one.

    Args:
        versions: the history of the features of some symbols, sorted by symbol, event_timestamp and
            created_timestamp.

    Returns:
        `symbol`, `event_timestamp`, `created_timestamp` (of the newest version in the window) and
        `window`, see `pitwise.features.windows.packed`; and how many rows each symbol has, as known now.
    """
    history = versions.select([*KEYS, "close"]).to_pandas(ignore_metadata=True)
    daily = known(history.assign(version=np.arange(len(history))))
    complete = complete_rows(versions)[daily["version"]]
    symbols = daily["symbol"].to_numpy(object)
    ends = window_ends(symbols, np.where(complete, 0.0, np.nan)[:, None], window)
    is_last = np.append(symbols[ends][1:] != symbols[ends][:-1], True)[: len(ends)]
    ends = ends[(daily["event_timestamp"] >= since).to_numpy()[ends] | is_last]

    served = np.unique(ends[:, None] - np.arange(window))  # a few sessions of many
    rows = versions.take(pa.array(daily["version"].iloc[served])).to_pandas(ignore_metadata=True)
    ends = np.searchsorted(served, ends)
    created = rows[CREATED].to_numpy("datetime64[us]")[:, None]
    columns = [
        rows["symbol"].iloc[ends],
        rows["event_timestamp"].iloc[ends],
        gather(created, ends, window).max(axis=(1, 2)),
        packed(WindowRows(rows, NAMES).gather(ends, window)),
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, WINDOWS, strict=True)]
    return pa.Table.from_arrays(arrays, schema=WINDOWS), daily.groupby("symbol").size()


class Published(NamedTuple):
    """What is in the store now."""

    windows: int
    with_a_window: set[str]
    """Symbols."""
    rows: int
    """Daily rows that stand."""
    symbols: int
    last: pd.Timestamp
    """Close of the newest session."""


def write_windows(path: Path, params: PublishParams, to: Path) -> Published:
    """Write the windows of the features' history at `path`, some symbols in memory at a time.

    Raises:
        DataError: no symbol has a whole window.
    """
    file = pq.ParquetFile(path)
    instants = _closes(file)
    since = instants[-params.window_sessions :][0]
    with_a_window: set[str] = set()
    windows, rows, symbols, longest = 0, 0, 0, 0
    options = {"coerce_timestamps": "us", "allow_truncated_timestamps": True}
    with pq.ParquetWriter(to, WINDOWS, **options) as writer:
        waiting = []
        for group in range(file.num_row_groups):
            served, sizes = window_table(file.read_row_group(group), params.window, since)
            waiting.append(served)
            rows, symbols = rows + int(sizes.sum()), symbols + len(sizes)
            longest = max([longest, *sizes])
            table = pa.concat_tables(waiting)
            if table.num_rows >= WINDOWS_AT_A_TIME or group == file.num_row_groups - 1:
                writer.write_table(table)
                waiting = []
                windows += table.num_rows
                with_a_window.update(table["symbol"].unique().to_pylist())
    if not windows:
        raise DataError(
            f"publish.window: {params.window} sessions is longer than the history: the longest symbol "
            f"has {longest}, and the indicators need the first {max(f.history for f in FEATURES) - 1}. "
            "Use a shorter window or more data."
        )
    return Published(windows, with_a_window, rows, symbols, instants[-1])


def _closes(file: pq.ParquetFile) -> pd.DatetimeIndex:
    """The instants at which anything has a close, sorted."""
    groups = range(file.num_row_groups)
    bars = (file.read_row_group(group, ["event_timestamp", "close"]).drop_null() for group in groups)
    closes = pa.chunked_array([rows["event_timestamp"].unique() for rows in bars]).unique()
    return pd.DatetimeIndex(closes.to_pandas()).sort_values()


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
    with ExitStack() as files:
        to = files.enter_context(replacing(workspace.window_features))
        published = write_windows(workspace.daily_features, params, to)
        covered = set(events["symbol"]) & published.with_a_window
        if len(events) and not covered:
            raise DataError(
                f"calendar.path: none of its symbols, such as {events['symbol'].iloc[0]}, has a window. "
                "Spell them as the bars do."
            )

        from feature_repo.store import materialize, open_store

        store = open_store(workspace, rebuild=False)
        with workspace.online_writer():
            files.close()  # the windows are where readers find them
            write_parquet(events, workspace.calendar_features)
            _drop_pushed(workspace, published.last, params.window)
            write_json(
                {
                    "symbols": published.symbols,
                    "symbols_with_a_window": len(published.with_a_window),
                    "daily_rows": published.rows,
                    "windows": published.windows,
                    "window": params.window,
                    "last_event_timestamp": published.last.isoformat(),
                    "daily_sha256": sha256(workspace.daily_features),
                    "landings": read_json(workspace.bar_landings),
                    **({"calendar_sha256": sha256(workspace.calendar_features)} if len(events) else {}),
                },
                workspace.published,
            )
            materialize(workspace, store)
    print(f"{published.rows:,} daily rows and {published.windows:,} windows of {params.window} sessions")
    if covered:
        print(f"the calendar has events of {len(covered)} of {published.symbols} symbols")


if __name__ == "__main__":
    run_stage(main)
