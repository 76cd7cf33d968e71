"""The New York Stock Exchange's sessions: which days, and when each one closes."""

from functools import cache

import exchange_calendars
import numpy as np
import pandas as pd

from pitwise.errors import DataError

EXCHANGE = "XNYS"
EXCHANGE_ZONE = "America/New_York"
FIRST_YEAR = "1970-01-01"


@cache
def _closes() -> pd.Series:
    """Close of each session in UTC, indexed by session date (naive midnight).

    Both in microseconds as the bars' dates are, so that no look-up converts them.
    """
    calendar = exchange_calendars.get_calendar(EXCHANGE, start=FIRST_YEAR)
    closes = calendar.schedule["close"].astype("datetime64[us, UTC]")
    closes.index = closes.index.astype("datetime64[us]")
    return closes.rename("event_timestamp")


def is_session(dates: pd.Series) -> np.ndarray:
    """True where a date is a day on which the exchange was open; (n,) bool."""
    return dates.isin(_closes().index).to_numpy()


def has_closed(dates: pd.Series, now: pd.Timestamp) -> np.ndarray:
    """True where a date is a session that is over at `now` (UTC); (n,) bool."""
    closes = _closes()
    return dates.isin(closes.index[closes <= now]).to_numpy()


def session_close(dates: pd.Series) -> pd.Series:
    """Instant at which each session closed, UTC, half days included.

    Before that instant the day's bar did not exist, so it is the bar's `event_timestamp`.
    """
    return dates.map(_closes())


def session_day(close: pd.Timestamp) -> pd.Timestamp:
    """The date (naive midnight) of the session that closed at an instant (aware)."""
    return close.tz_convert(EXCHANGE_ZONE).normalize().tz_localize(None)


def session_days(closes: pd.Series) -> pd.Series:
    """The date (naive midnight) of each session, by the instant (aware) at which it closed."""
    return closes.dt.tz_convert(EXCHANGE_ZONE).dt.normalize().dt.tz_localize(None)


def session_number(dates: pd.Series) -> np.ndarray:
    """Position of each session in the calendar: two sessions are adjacent if these differ by 1."""
    return _closes().index.get_indexer(pd.DatetimeIndex(dates))


def session_date(numbers: np.ndarray) -> pd.DatetimeIndex:
    """The days of the sessions at these positions in the calendar."""
    return _closes().index[numbers]


def next_session(date: pd.Timestamp, ahead: int = 1) -> pd.Timestamp:
    """The session after `date`, or the `ahead`-th one after it.

    Raises:
        DataError: the calendar, which reaches about a year ahead of today, ends before it.
    """
    sessions = _closes().index
    position = sessions.searchsorted(date, side="right") + ahead - 1
    if position >= len(sessions):
        raise DataError(f"{date:%Y-%m-%d}: the exchange calendar ends at {sessions[-1]:%Y-%m-%d}.")
    return sessions[position]
