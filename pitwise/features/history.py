"""The history of the daily features: what was known when, and what a later load changed.

A row of the history is one *version* of one bar's features, known from its `created_timestamp` on. What
a later delivery brings, changes or withdraws adds a version and rewrites nothing. So the versions known
at an instant are the table as it stood then.
"""

import numpy as np
import pandas as pd

from pitwise.bars.schema import NUMBERS, came_late

KEYS = ["symbol", "event_timestamp"]
CREATED = "created_timestamp"


def known(history: pd.DataFrame, at: pd.Timestamp | None = None) -> pd.DataFrame:
    """The table as known at an instant: each bar's latest version then, without the withdrawn.

    Args:
        history: sorted by symbol, event_timestamp and created_timestamp.
        at: None for all that is known now.
    """
    if at is not None:
        history = history[history[CREATED] <= at]
    latest = ~history.duplicated(KEYS, keep="last")
    return history[latest & history["close"].notna()].reset_index(drop=True)


def revisions(history: pd.DataFrame) -> pd.DataFrame:
    """What was changed after it had been known, and what came after a newer session of its symbol.

    Args:
        history: of some symbols or all, sorted by symbol, event_timestamp and created_timestamp.

    Returns:
        one row a version: `symbol`, `event_timestamp`, `created_timestamp`, `kind` (late | changed |
        withdrawn), `bar_changed` (the bar itself, or only features of it), `old_close`, `new_close`,
        `old_volume`, `new_volume` (NaN where there is none), `features_moved` (how many).
    """
    again = history.duplicated(KEYS).to_numpy()
    at = np.flatnonzero(again | came_late(history, CREATED))
    new, old = history.iloc[at], history.iloc[at - 1].copy()
    old.loc[~again[at], _features(history)] = np.nan
    moved = pd.DataFrame(_moved(old, new), columns=_features(history))
    had, has = old["close"].notna().to_numpy(), new["close"].notna().to_numpy()
    return new[[*KEYS, CREATED]].assign(
        kind=np.where(has, np.where(had, "changed", "late"), "withdrawn"),
        bar_changed=moved[NUMBERS].any(axis=1).to_numpy(),
        old_close=old["close"].to_numpy(),
        new_close=new["close"],
        old_volume=old["volume"].to_numpy(),
        new_volume=new["volume"],
        features_moved=moved.sum(axis=1).to_numpy("int64"),
    )


def _features(table: pd.DataFrame) -> list[str]:
    return [name for name in table if name not in (*KEYS, CREATED, "segment")]


def _moved(old: pd.DataFrame, new: pd.DataFrame) -> np.ndarray:
    """Which features differ in any bit, row for row; (n, n_features) bool. NaN equals NaN."""
    a, b = (table[_features(new)].to_numpy("float64") for table in (old, new))
    return (a.view("int64") != b.view("int64")) & ~(np.isnan(a) & np.isnan(b))
