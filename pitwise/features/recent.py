"""The features of a symbol's newest sessions, each from as many bars before it as it needs."""

import numpy as np
import pandas as pd

from pitwise.bars.basis import on_first_basis
from pitwise.errors import DataError
from pitwise.features.daily import FACTORS, daily_features
from pitwise.features.indicators import BARS, BY_NAME, FEATURES, NAMES

ENDLESS = ("rsi_14", "macd", "macd_signal", "atr_14", "adx_14")
"""Features that never quite forget."""
LONG = (*ENDLESS, "momentum_120_20")
"""Features of more sessions than their `history` counts; each of the others is of just those."""
SHORT = max(feature.history for feature in FEATURES if feature.name not in LONG)
"""Bars that decide on all features but the long ones, the session's own included."""
AT_ONCE = 2**18
"""Bars, with their padding, that the long features are computed of at a time."""
LARGEST = float(np.finfo("float32").max)


class NotFiniteError(DataError):
    """A feature is no number that a model could be given.

    Args:
        found: symbol to the first such feature and its session.
    """

    def __init__(self, found: dict[str, str]):
        super().__init__("; ".join(f"{symbol}: {what}" for symbol, what in sorted(found.items())))
        self.found = found


def recent_features(bars: pd.DataFrame, wanted: np.ndarray) -> pd.DataFrame:
    """`daily_features` of each symbol's newest bars.

    The features of a window of sessions are those of the whole history to the bit; `ENDLESS` are as near
    to it as `pitwise.features.indicators.TAIL` says, where so many bars come before.

    Args:
        bars: clean bars, sorted by symbol and date.
        wanted: (n,) bool, the bars to compute the features of; of each symbol the last ones.

    Raises:
        NotFiniteError: a feature is infinite, too large for a float32, or NaN with all its history
        there.
    """
    begins = _run_begins(bars)
    position = np.arange(len(bars)) - np.flatnonzero(begins)[np.cumsum(begins) - 1]
    first = np.flatnonzero(wanted & ~np.append(False, wanted[:-1]))
    near = wanted.copy()
    near[np.maximum(first[:, None] - np.arange(1, SHORT), 0)] = True
    kept = np.flatnonzero(near)
    daily = daily_features(bars.iloc[kept])
    mine = np.flatnonzero(wanted[kept])
    daily = daily.iloc[mine].reset_index(drop=True)
    price = daily["price_factor"].to_numpy()
    for name, values in _long(bars, begins, kept[mine]).items():
        daily[name] = values / price if BY_NAME[name].unit == "price_change" else values
    _require_finite(daily, position[wanted])
    return daily


def _run_begins(bars: pd.DataFrame) -> np.ndarray:
    """(n,) bool: where a symbol begins, or one of its segments."""
    symbol = bars["symbol"].array
    codes = symbol.codes if isinstance(symbol, pd.Categorical) else pd.factorize(symbol)[0]
    segment = bars["segment"].to_numpy()
    begins = np.ones(len(bars), bool)
    begins[1:] = (codes[1:] != codes[:-1]) | (segment[1:] != segment[:-1])
    return begins


def _long(bars: pd.DataFrame, begins: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
    """The long features of some rows, on the basis of the symbol's first session; (len(rows),)
    each."""
    first = on_first_basis(bars)
    columns = {feature.name: first[feature.name].to_numpy("float64") for feature in BARS}
    edges = np.append(np.flatnonzero(begins), len(bars))
    found = {name: np.full(len(rows), np.nan) for name in LONG}
    run_of = np.searchsorted(edges, rows, side="right") - 1
    runs = np.unique(run_of)
    longest = int(np.diff(edges)[runs].max(initial=1))
    for some in np.array_split(runs, -(-len(runs) * longest // AT_ONCE) or 1):
        lengths = np.diff(edges)[some]
        session = np.arange(lengths.max(initial=0))
        is_bar = session < lengths[:, None]
        at = np.where(is_bar, edges[some][:, None] + session, 0)
        run = {name: np.where(is_bar, values[at], np.nan) for name, values in columns.items()}
        mine = np.flatnonzero(np.isin(run_of, some))
        there = np.searchsorted(some, run_of[mine]), rows[mine] - edges[run_of[mine]]
        for name in LONG:
            feature = BY_NAME[name]
            table = np.full(is_bar.shape, np.nan)
            defined = table[:, feature.history - 1 :]
            if defined.size:
                defined[:] = feature.formula(run)[:, -defined.shape[1] :]
            run[name] = table
            found[name][mine] = table[there]
    return found


def _require_finite(daily: pd.DataFrame, position: np.ndarray) -> None:
    """NotFiniteError where a feature is no finite number although its history is there.

    Args:
        position: (n,) how many bars come before each in its run.
    """
    values = daily[NAMES].to_numpy()
    factors = daily[FACTORS].to_numpy()
    due = position[:, None] >= np.array([feature.history - 1 for feature in FEATURES])
    bad = (np.abs(values) > LARGEST) | (np.isnan(values) & due)
    bad[:, 0] |= ~(np.isfinite(factors) & (factors > 0)).all(axis=1)
    found: dict[str, str] = {}
    for row, column in zip(*np.nonzero(bad), strict=True):
        instant = daily["event_timestamp"].iat[row]
        found.setdefault(
            str(daily["symbol"].iat[row]),
            f"{NAMES[column]} is {values[row, column]} at {instant:%Y-%m-%d}",
        )
    if found:
        raise NotFiniteError(found)
