"""Weeks by their ISO names, and the exchange's sessions in them."""

import re
from dataclasses import dataclass
from datetime import date, timedelta

import pandas as pd

from pitwise.bars.calendar import is_session, session_close
from pitwise.errors import DataError

TREND = 4
"""Weeks that a figure's trend is of, the newest one among them."""
NAME = re.compile(r"(\d{4})-W(\d{2})")


@dataclass(frozen=True, order=True)
class Week:
    """A week from Monday to Sunday."""

    monday: date

    @classmethod
    def named(cls, name: str) -> "Week":
        """The week of an ISO name such as 2017-W45.

        Raises:
            DataError: there is none.
        """
        found = NAME.fullmatch(name)
        try:
            if found:
                return cls(date.fromisocalendar(int(found[1]), int(found[2]), 1))
        except ValueError:
            pass
        raise DataError(f"{name!r} is no week. Name it by its ISO year and number, such as 2017-W45.")

    @classmethod
    def of(cls, day: date) -> "Week":
        return cls(day - timedelta(days=day.weekday()))

    def before(self, weeks: int = 1) -> "Week":
        return Week(self.monday - timedelta(weeks=weeks))

    @property
    def begin(self) -> pd.Timestamp:
        """The instant (UTC) from which on it is."""
        return pd.Timestamp(self.monday, tz="UTC")

    @property
    def end(self) -> pd.Timestamp:
        """The instant (UTC) at which it is over; what came later is not known to it."""
        return self.begin + pd.Timedelta(days=7)

    @property
    def days(self) -> pd.DatetimeIndex:
        """The exchange's sessions in it, naive dates."""
        days = pd.date_range(self.monday, periods=7).astype("datetime64[us]")
        return days[is_session(days.to_series())]

    @property
    def closes(self) -> pd.DatetimeIndex:
        """Their closes, UTC."""
        return pd.DatetimeIndex(session_close(self.days.to_series()))

    def __str__(self) -> str:
        year, number, _ = self.monday.isocalendar()
        return f"{year}-W{number:02}"
