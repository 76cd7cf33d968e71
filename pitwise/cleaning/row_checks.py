"""Checks of a bar by itself and of two bars of one session; the first that a row fails is its reason."""

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from pitwise.bars.calendar import has_closed, session_close
from pitwise.bars.schema import ADJUSTED_CLOSE, BAR_KEY, COLUMNS, PRICES

KNOWN_AT = "known_at"
"""Optional: the instant (UTC) from which a row was known; without it a row is judged as of now."""
JUDGED_AT = "judged_at"
"""The instant (UTC) from which other bars may bear upon a row; NaT where its session is not complete."""
Check = Callable[[pd.DataFrame], np.ndarray]
CHECKS: dict[str, Check] = {
    "missing": lambda b: (
        _any(b[name].isna() for name in _needed(b)) | (b["symbol"] == "").to_numpy(bool, na_value=True)
    ),
    # A bar of a session that was still open, or yet to come, when it became known is no bar.
    "not_a_session": lambda b: ~_was_over(b),
    "non_positive": lambda b: (
        _any(~(b[name] > 0) for name in _prices(b)) | _any(np.isinf(b[name]) for name in _needed(b)[2:])
    ),
    "negative_volume": lambda b: (b["volume"] < 0).to_numpy(),
    "high_below_low": lambda b: (b["high"] < b["low"]).to_numpy(),
    "open_outside_range": lambda b: ~b["open"].between(b["low"], b["high"]).to_numpy(),
    "close_outside_range": lambda b: ~b["close"].between(b["low"], b["high"]).to_numpy(),
}
"""Name of each check of a bar by itself, and the rows it refuses."""
PAIR_CHECKS: dict[str, Check] = {
    "duplicate": lambda b: b.duplicated(_needed(b)).to_numpy(),
    # Two bars of one session that differ: which one is right is unknown, so neither is kept.
    "conflicting_duplicate": lambda b: _several(b),
}
"""The same among the bars of one symbol and session that passed the checks before."""


def _any(failed: Iterable[pd.Series]) -> np.ndarray:
    """True in the rows where one of the columns fails; (n,) bool."""
    return np.logical_or.reduce([column.to_numpy(bool) for column in failed])


def _was_over(bars: pd.DataFrame) -> np.ndarray:
    if KNOWN_AT not in bars:
        return has_closed(bars["date"], pd.Timestamp.now("UTC"))
    # NaT, where the day is no session, is not before anything.
    return (session_close(bars["date"]) <= bars[KNOWN_AT]).to_numpy()


def _several(bars: pd.DataFrame) -> np.ndarray:
    """True where a symbol has more than one row of a session; (n,) bool."""
    symbol, date = bars["symbol"], bars["date"].to_numpy()
    if isinstance(symbol.dtype, pd.CategoricalDtype) and len(bars):
        codes = symbol.cat.codes.to_numpy()
        goes_on = codes[1:] == codes[:-1]
        if ((codes[1:] > codes[:-1]) | (goes_on & (date[1:] >= date[:-1]))).all():  # no hash is needed
            same = goes_on & (date[1:] == date[:-1])
            return np.append(same, False) | np.append(False, same)
    return bars.duplicated(BAR_KEY, keep=False).to_numpy()


def _needed(bars: pd.DataFrame) -> list[str]:
    return [*COLUMNS, *([ADJUSTED_CLOSE] if ADJUSTED_CLOSE in bars else [])]


def _prices(bars: pd.DataFrame) -> list[str]:
    return [c for c in _needed(bars) if c in (*PRICES, ADJUSTED_CLOSE)]


def reasons(bars: pd.DataFrame) -> pd.Series:
    """The name of the first check that each row fails, or an empty string; (n,) of str."""
    reason = np.full(len(bars), "", object)
    good = np.ones(len(bars), bool)
    for name, refuses in CHECKS.items():
        refused = good & refuses(bars)
        reason[refused] = name
        good &= ~refused
    rows = np.flatnonzero(good & _several(bars))  # few
    for name, refuses in PAIR_CHECKS.items():
        refused = refuses(bars.iloc[rows])
        reason[rows[refused]] = name
        rows = rows[~refused]
    return pd.Series(reason, index=bars.index)
