"""What a calendar of events said last of each symbol at an instant: how long ago, and which value.

An event counts from the instant at which it was known, and one that was announced ahead not before the
close of its own session. A correction counts from when it was known; before, what was said first does.
"""

import numpy as np
import pandas as pd

from pitwise.bars.actions import LONGEST_BREAK
from pitwise.bars.calendar import session_close, session_days, session_number
from pitwise.features.history import CREATED

ENTITY = ["symbol", "kind"]
SAID = ["session", "value", "known_at"]
COLUMNS = ["sessions_since", "value", "age_days"]


def last_events(events: pd.DataFrame) -> pd.DataFrame:
    """The last event of each symbol and kind, a row from each instant at which that was another one.

    Args:
        events: see `pitwise.bars.sources.calendar_files.csv_events`, in any order.

    Returns:
        `symbol`, `kind`, `event_timestamp` (UTC, from when it is the last one), `created_timestamp` and
        `known_at` (when the row was known), `session` (UTC, the close of the first session from the
        event's date on), `value`; sorted by the first three. Events outside of the exchange's calendar,
        which begins in 1970 and ends about a year from now, are left out.
    """
    session = _closes(events["date"])
    rows = events.assign(session=session)[session.notna()]
    rows = rows.assign(event_timestamp=np.maximum(rows["session"], rows["known_at"]))
    order = rows.sort_values(["date", "known_at"], kind="stable").index
    rows["newest"] = pd.Series(np.arange(len(rows)), order)
    rows = rows.sort_values([*ENTITY, "event_timestamp", "newest"], ignore_index=True)
    # An older event that comes to be known late is not the last one.
    rows = rows[rows["newest"] == rows.groupby(ENTITY, observed=True)["newest"].cummax()]
    rows = rows.drop_duplicates([*ENTITY, "event_timestamp"], keep="last", ignore_index=True)
    rows[CREATED] = rows["known_at"]
    return rows[[*ENTITY, "event_timestamp", CREATED, *SAID]].astype({"symbol": str, "kind": str})


def no_events() -> pd.DataFrame:
    """The table of `last_events` of no events."""
    instant = pd.Series(dtype="datetime64[us, UTC]")
    rows = {"symbol": pd.Series(dtype=str), "kind": pd.Series(dtype=str), "event_timestamp": instant}
    rows |= {CREATED: instant, "session": instant, "value": pd.Series(dtype="float64")}
    return pd.DataFrame(rows | {"known_at": instant})


def at_sessions(last: pd.DataFrame, closes: pd.Series) -> pd.DataFrame:
    """The last events as numbers, at the closes of sessions.

    Args:
        last: (n,) `SAID` of the event that was the last one then; missing where there was none.
        closes: (n,) UTC, of the same index.

    Returns:
        (n,) float64, NaN where there was none: `sessions_since` the event's session, its `value`, and
        `age_days` since it was known.
    """
    then, at = pd.to_datetime(last["session"], utc=True), closes
    known = then.notna()
    since = pd.Series(np.nan, last.index)
    since[known] = session_number(session_days(at[known])) - session_number(session_days(then[known]))
    age = (at - pd.to_datetime(last["known_at"], utc=True)) / pd.Timedelta(days=1)
    value = last["value"].astype("float64").where(known)
    return pd.DataFrame(dict(zip(COLUMNS, (since, value, age.astype("float64")), strict=True)))


def _closes(dates: pd.Series) -> pd.Series:
    """The close of the first session from each day on; NaT beyond the exchange's calendar."""
    days = pd.Series(pd.date_range(dates.min(), dates.max() + pd.Timedelta(days=LONGEST_BREAK)))
    closes = session_close(days.astype("datetime64[us]")).bfill()
    return dates.map(pd.Series(closes.to_numpy(), pd.DatetimeIndex(days)))
