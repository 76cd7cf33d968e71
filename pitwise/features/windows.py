"""Windows over point-in-time rows: which rows end one, how they are gathered, how Feast keeps them."""

from collections.abc import Sequence
from functools import cache, reduce
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pitwise.features.errors import WindowSchemaError
from pitwise.features.indicators import FEATURES, NAMES

PACKED = np.dtype("<f4")
FORMAT = b"PWW1"
"""What a packed window begins with: what it is, and which version of it."""
HEADER = len(FORMAT) + 8
"""Bytes before the values: the format, and what identifies the features."""
UNITS = {feature.name: feature.unit for feature in FEATURES}
_NONE, _PRICE, _SHARES = range(3)
_BASIS = {"price": _PRICE, "price_change": _PRICE, "shares": _SHARES}
"""What the factor of each unit is; the units not named here have no share basis."""


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


def complete_rows(table: pa.Table) -> np.ndarray:
    """Which rows lack no feature; (n,) bool."""
    missing = (pc.is_null(table[name], nan_is_null=True) for name in NAMES)
    return ~reduce(pc.or_, missing).to_numpy()


def gather(rows: np.ndarray, ends: np.ndarray, length: int) -> np.ndarray:
    """The windows ending at `ends`; (len(ends), length, n_features), oldest session first."""
    if len(ends) == 0:
        return np.empty((0, length, rows.shape[1]), rows.dtype)
    views = np.lib.stride_tricks.sliding_window_view(rows, length, axis=0)
    return views[ends - length + 1].transpose(0, 2, 1)


class WindowRows:
    """Rows that windows are gathered from, each window on the share basis of its own last session.

    A row's features are on the basis of its own session, so a split or a dividend changes no row before
    it; what a person saw at the window's end is made here, and only here, for training and for serving.

    Args:
        rows: the features, `price_factor` and `share_factor`, see `pitwise.cleaning.clean`.
        features: the columns, in the order of the windows.
    """

    def __init__(self, rows: pd.DataFrame, features: Sequence[str]):
        self.kinds = np.array([_BASIS.get(UNITS[name], _NONE) for name in features], int)
        """(n_features,) which of the `factors` each column is multiplied by."""
        self._price = rows["price_factor"].to_numpy("float64")
        self._shares = rows["share_factor"].to_numpy("float64")
        self.base = np.empty((len(rows), len(features)), "float32")
        """(n, n_features) on the basis of the symbol's first session."""
        for column, (name, kind) in enumerate(zip(features, self.kinds, strict=True)):
            values = rows[name].to_numpy("float64")
            if kind == _PRICE:
                values = values * self._price
            elif kind == _SHARES:
                values = values / self._shares
            self.base[:, column] = values

    def factors(self, ends: np.ndarray) -> np.ndarray:
        """(len(ends), 3) float32: what the base rows of the windows ending there are multiplied by, of
        each kind of column."""
        factors = np.ones((len(ends), 3), "float32")
        factors[:, _PRICE] = 1 / self._price[ends]
        factors[:, _SHARES] = self._shares[ends]
        return factors

    def gather(self, ends: np.ndarray, length: int) -> np.ndarray:
        """The windows ending at `ends`; (len(ends), length, n_features) float32, oldest first."""
        return gather(self.base, ends, length) * self.factors(ends)[:, None, self.kinds]


class LastWindow(NamedTuple):
    """A symbol's newest whole window."""

    as_of: pd.Timestamp
    """The `event_timestamp` of its last session."""
    values: np.ndarray
    """(length, n_features) float32, oldest session first."""


def last_windows(daily: pd.DataFrame, features: Sequence[str], length: int) -> dict[str, LastWindow]:
    """The newest whole window of each symbol that has one.

    Args:
        daily: `symbol`, `event_timestamp`, the features, `price_factor` and `share_factor`, sorted by
            the first two.
    """
    rows = WindowRows(daily, features)
    keys = daily[["symbol", "event_timestamp"]].reset_index(drop=True)
    ends = window_ends(keys["symbol"].to_numpy(object), rows.base, length)
    last = keys.iloc[ends].drop_duplicates("symbol", keep="last")
    windows = rows.gather(last.index.to_numpy(), length)
    columns = zip(last["symbol"], last["event_timestamp"], windows, strict=True)
    return {symbol: LastWindow(as_of, values) for symbol, as_of, values in columns}


def window_header(features: Sequence[str]) -> bytes:
    """What the packed windows of these features begin with; `HEADER` bytes.

    The features' names in their order and the type of the values are in it, as 8 bytes of BLAKE2b.
    """
    return _header(tuple(features))


@cache
def _header(features: tuple[str, ...]) -> bytes:
    schema = "\n".join([PACKED.str, *features])
    return FORMAT + blake2b(schema.encode(), digest_size=HEADER - len(FORMAT)).digest()


def packed(windows: np.ndarray, features: Sequence[str] = NAMES) -> list[bytes]:
    """Each of (n, length, n_features) windows as bytes: `window_header` and little-endian float32,
    session after session."""
    header = window_header(features)
    if windows.shape[2] != len(features):
        raise ValueError(f"windows of {windows.shape[2]} features, but {len(features)} names.")
    return [header + window.tobytes() for window in windows.astype(PACKED, copy=False)]


def packed_sessions(window: bytes, n_features: int) -> int:
    """How many sessions a packed window of so many features has."""
    return (len(window) - HEADER) // (PACKED.itemsize * n_features)


def unpacked(windows: Sequence[bytes], features: Sequence[str] = NAMES) -> np.ndarray:
    """(n, length, n_features) float32 of packed windows, all of one length; read-only.

    Raises:
        WindowSchemaError: they are of several lengths, or not of these features in this order.
    """
    header = window_header(features)
    for i, window in enumerate(windows):
        if window[:HEADER] != header:
            raise WindowSchemaError(f"window {i + 1} of {len(windows)} {_is_not_of(window, features)}")
    sizes = {len(window) for window in windows} or {HEADER}
    width = PACKED.itemsize * len(features)
    if len(sizes) > 1 or (min(sizes) - HEADER) % width:
        raise WindowSchemaError(
            f"windows of several lengths, or broken ones: {', '.join(map(str, sorted(sizes)))} bytes; "
            f"one has {HEADER}, and {width} for each session."
        )
    values = np.frombuffer(b"".join([window[HEADER:] for window in windows]), PACKED)
    return values.reshape(len(windows), (sizes.pop() - HEADER) // width, len(features))


def _is_not_of(window: bytes, features: Sequence[str]) -> str:
    wanted = f"the {len(features)} features {features[0]} .. {features[-1]} in their order"
    if window[: len(FORMAT)] != FORMAT:
        return f"does not say which features it has: an older version has written it, not {wanted}."
    return f"is of other features, or of another order or type of them, than {wanted}."


def window_hash(window: bytes) -> str:
    """16 hex digits of BLAKE2b of a packed window's values, all its features.

    The header is no part of it, so a window has the hash that it had before there was one.
    """
    return blake2b(memoryview(window)[HEADER:], digest_size=8).hexdigest()
