"""Windows over point-in-time rows: which rows end one, the window as a view, and as Feast keeps it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

PACKED = np.dtype("<f4")


def window_ends(symbols: np.ndarray, rows: np.ndarray, length: int) -> np.ndarray:
    """Positions of the rows at which a whole window ends.

    Args:
        symbols: (n,) the symbol of each row; a symbol's rows stand together, in order of time.
        rows: (n, n_features) feature values; a row with a NaN has not had its history yet.
        length: rows in a window.

    Returns:
        (m,) int positions whose last `length` rows are of one symbol and complete.
    """
    complete = ~np.isnan(rows).any(axis=1)
    position = np.arange(len(rows))
    starts_run = np.ones(len(rows), dtype=bool)
    starts_run[1:] = (symbols[1:] != symbols[:-1]) | ~complete[:-1]
    run_start = np.maximum.accumulate(np.where(starts_run, position, 0))
    return position[complete & (position - run_start + 1 >= length)]


def gather(rows: np.ndarray, ends: np.ndarray, length: int) -> np.ndarray:
    """The windows ending at `ends`; (len(ends), length, n_features), oldest session first."""
    if len(ends) == 0:
        return np.empty((0, length, rows.shape[1]), rows.dtype)
    views = np.lib.stride_tricks.sliding_window_view(rows, length, axis=0)
    return views[ends - length + 1].transpose(0, 2, 1)


class LastWindow(NamedTuple):
    """A symbol's newest whole window."""

    as_of: pd.Timestamp
    """The `event_timestamp` of its last session."""
    values: np.ndarray
    """(length, n_features) float32, oldest session first."""


def last_windows(daily: pd.DataFrame, features: Sequence[str], length: int) -> dict[str, LastWindow]:
    """The newest whole window of each symbol that has one.

    Args:
        daily: `symbol`, `event_timestamp` and the features, sorted by the first two.
    """
    rows = daily[list(features)].to_numpy("float32")
    keys = daily[["symbol", "event_timestamp"]].reset_index(drop=True)
    ends = window_ends(keys["symbol"].to_numpy(object), rows, length)
    last = keys.iloc[ends].drop_duplicates("symbol", keep="last")
    windows = gather(rows, last.index.to_numpy(), length)
    columns = zip(last["symbol"], last["event_timestamp"], windows, strict=True)
    return {symbol: LastWindow(as_of, values) for symbol, as_of, values in columns}


def packed(windows: np.ndarray) -> list[bytes]:
    """Each of (n, length, n_features) windows as bytes: little-endian float32, session after session."""
    return [window.tobytes() for window in windows.astype(PACKED, copy=False)]


def unpacked(windows: Sequence[bytes], n_features: int) -> np.ndarray:
    """(n, length, n_features) float32 of packed windows, all of one length; read-only.

    Raises:
        ValueError: they are of several lengths, or not of so many features.
    """
    sizes = {len(window) for window in windows} or {0}
    if len(sizes) > 1:
        raise ValueError("windows of several lengths")
    sessions = sizes.pop() // (PACKED.itemsize * n_features)
    return np.frombuffer(b"".join(windows), PACKED).reshape(len(windows), sessions, n_features)
