"""What a later load changed, found the slow way."""

import pandas as pd

from pitwise.features.history import CREATED, KEYS


def difference(old: pd.DataFrame, new: pd.DataFrame) -> dict[tuple, str]:
    """What changed, bar by bar, in the sessions that the old table reached."""
    columns = [c for c in new if c not in (*KEYS, CREATED)]
    before, after = (
        {row[:2]: repr(row[2:]) for row in f[[*KEYS, *columns]].itertuples(index=False, name=None)}
        for f in (old, new)
    )
    reached = old["event_timestamp"].max()
    answer = {}
    for key in before.keys() | after.keys():
        if before.get(key) == after.get(key):
            continue
        if key not in before:
            if key[1] <= reached:
                answer[key] = "late"
        else:
            answer[key] = "changed" if key in after else "withdrawn"
    return answer
