"""How old features are, in sessions of the exchange."""

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from pitwise.bars.calendar import (
    EXCHANGE_ZONE,
    next_session,
    session_close,
    session_day,
    session_number,
)


class Session(NamedTuple):
    """A session by the instant of its close."""

    number: int
    """Position in the exchange's calendar."""
    as_of: str
    """The close, ISO 8601 in UTC."""
    ahead: str
    """Date of a session after it: the one that a forecast is for."""


@lru_cache(maxsize=4096)
def _session_at(microseconds: int, ahead: int) -> Session:
    instant = pd.Timestamp(microseconds, unit="us", tz="UTC")
    day = session_day(instant)
    as_of = instant.isoformat().replace("+00:00", "Z")
    number = int(session_number(pd.Series([day]))[0])
    return Session(number, as_of, str(next_session(day, ahead).date()))


@lru_cache(maxsize=8)
def _first_from(day: date) -> tuple[int, datetime]:
    """Number and close of the first session on or after a day."""
    session = pd.Series([next_session(pd.Timestamp(day) - timedelta(days=1))])
    return int(session_number(session)[0]), session_close(session).iloc[0].to_pydatetime()


def sessions_at(closes: np.ndarray, ahead: int = 1) -> list[Session]:
    """The session of each close, datetime64 in UTC, with the day of the `ahead`-th one after it."""
    instants = closes.astype("datetime64[us]").astype("int64").tolist()
    return [_session_at(instant, ahead) for instant in instants]


def newest_closed(now: datetime) -> int:
    """Number of the newest session that is over at an instant (aware)."""
    number, close = _first_from(now.astimezone(ZoneInfo(EXCHANGE_ZONE)).date())
    return number - (now < close)


def reference(clock: str, newest: np.datetime64) -> int:
    """Number of the session that ages count from: `market`, the newest one stored; `wall`, now's."""
    if clock == "market":
        return sessions_at(np.array([newest]))[0].number
    return newest_closed(datetime.now(UTC))
