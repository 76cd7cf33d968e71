"""A history of features that grows load by load."""

import numpy as np
import pandas as pd

from pitwise.features.history import CREATED, KEYS, _features, _moved, known


def merge(history: pd.DataFrame | None, fresh: pd.DataFrame, loaded_at: pd.Timestamp) -> pd.DataFrame:
    """The history with what a load brought.

    Args:
        history: sorted by symbol, event_timestamp and created_timestamp; None at the first load.
        fresh: (n,) `symbol`, `event_timestamp`, the features, `segment`, as of this load.
        loaded_at: instant of the load, later than every `created_timestamp` of the history.

    Returns:
        the history in the same order. A row that is no longer in `fresh` gets a version without
        features: a withdrawal.
    """
    if history is None:
        # A bar taken before its close, while the market was open, was known then.
        history = fresh.copy()
        history.insert(len(KEYS), CREATED, fresh["event_timestamp"].clip(upper=loaded_at))
        return history
    current = known(history)
    pairs = pd.merge(
        current[KEYS].assign(old=np.arange(len(current))),
        fresh[KEYS].assign(new=np.arange(len(fresh))),
        on=KEYS,
        how="outer",
    )
    both = pairs.dropna().astype({"old": int, "new": int})
    old, new = current.iloc[both["old"]], fresh.iloc[both["new"]]
    same = ~_moved(old, new).any(axis=1) & (old["segment"].to_numpy() == new["segment"].to_numpy())
    withdrawn = current.iloc[pairs.loc[pairs["new"].isna(), "old"].astype(int)].copy()
    withdrawn[_features(history)] = np.nan
    versions = pd.concat([fresh.drop(index=fresh.index[both["new"][same]]), withdrawn])
    if versions.empty:
        return history
    versions[CREATED] = pd.Series(loaded_at, versions.index, dtype=history[CREATED].dtype)
    both_loads = pd.concat([history, versions[history.columns]])
    return both_loads.sort_values([*KEYS, CREATED], ignore_index=True)
