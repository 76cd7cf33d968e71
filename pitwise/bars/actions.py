"""The schema of a corporate action, and from when one of an assumed history was known.

An action is told by a feed, not by prices: a split, a dividend, a part of the company that leaves it, a
ticker that another company takes over.
"""

import pandas as pd

from pitwise.bars.calendar import EXCHANGE_ZONE, session_close

KINDS = ("split", "dividend", "special_dividend", "spin_off", "symbol_change")
FEED = "actions"
"""The source of the landings of a feed; that of another source's actions ends with it."""
ACTION_KEY = ["symbol", "date", "kind"]
SAID = ["ratio", "amount", "announced"]
KNOWN = "known_at"
LONGEST_BREAK = 14
"""Days within which there was a session, also in 2001."""

TYPES = {
    "symbol": "string",
    "date": "datetime64[us]",
    "kind": "string",
    "ratio": "float64",
    "amount": "float64",
    "announced": "datetime64[us]",
}


def no_actions() -> pd.DataFrame:
    """The empty table of `BarVersions.actions`."""
    kinds = TYPES | {"source": "string", KNOWN: "datetime64[us, UTC]", "withdrawn": "bool"}
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in kinds.items()})


def actions_source(source: str) -> str:
    """The source of the landings of a bar source's actions."""
    return f"{source}_{FEED}"


def by_the_open(actions: pd.DataFrame) -> pd.Series:
    """When an action of an assumed history was known: before its ex-date opened, at the latest.

    It is the end of the day on which it was announced, or, where that is not said or is no earlier than
    the ex-date, the close of the session before: an exchange sets an ex-date ahead.

    Returns:
        (n,) UTC; NaT where the calendar has no session before.
    """
    day = actions["date"]
    days = pd.Series(pd.date_range(day.min() - pd.Timedelta(days=LONGEST_BREAK), day.max()))
    before = session_close(days).ffill().shift()
    before = day.map(pd.Series(before.to_numpy("datetime64[us]"), pd.DatetimeIndex(days)))
    told = (actions["announced"] + pd.Timedelta(days=1)).dt.tz_localize(EXCHANGE_ZONE)
    told = told.dt.tz_convert("UTC").dt.tz_localize(None)
    known = told.where(actions["announced"] < day, before)
    return known.astype("datetime64[us]").dt.tz_localize("UTC")
