import pandas as pd
import pytest

from pitwise.bars.calendar import (
    has_closed,
    is_session,
    next_session,
    session_close,
    session_date,
    session_day,
    session_number,
)
from pitwise.errors import DataError


def days(*dates: str, unit: str = "us") -> pd.Series:
    return pd.Series(pd.to_datetime(list(dates))).astype(f"datetime64[{unit}]")


@pytest.mark.parametrize(
    ("date", "close"),
    [
        ("2000-03-01", "2000-03-01 21:00"),
        ("2014-01-02", "2014-01-02 21:00"),
        ("2014-03-07", "2014-03-07 21:00"),
        ("2014-03-10", "2014-03-10 20:00"),
        ("2014-07-02", "2014-07-02 20:00"),
        ("2014-07-03", "2014-07-03 17:00"),
        ("2014-10-31", "2014-10-31 20:00"),
        ("2014-11-03", "2014-11-03 21:00"),
        ("2014-11-28", "2014-11-28 18:00"),
        ("2014-12-24", "2014-12-24 18:00"),
        ("2017-12-29", "2017-12-29 21:00"),
    ],
)
def test_a_session_closes_by_new_yorks_clock_half_days_included(date, close):
    assert session_close(days(date)).tolist() == [pd.Timestamp(close, tz="UTC")]


@pytest.mark.parametrize("unit", ["us", "ns"])
def test_closes_come_row_for_row_in_microseconds(unit):
    dates = days("2014-11-28", "2014-07-02", "2014-11-28", unit=unit)
    closes = session_close(dates.set_axis([7, 8, 9]))
    assert closes.dtype == "datetime64[us, UTC]"
    assert closes.index.tolist() == [7, 8, 9]
    assert closes.dt.hour.tolist() == [18, 20, 18]


@pytest.mark.parametrize("unit", ["us", "ns"])
def test_holidays_weekends_and_times_of_day_are_no_sessions(unit):
    dates = ["2014-01-02", "2014-12-25", "2014-01-04", "2012-10-29", "2014-11-28", "2014-01-02 16:00"]
    open_days = is_session(pd.Series(pd.DatetimeIndex(dates).as_unit(unit)))
    assert open_days.tolist() == [True, False, False, False, True, False]


def test_a_missing_date_is_no_session():
    assert is_session(pd.Series([pd.NaT, pd.Timestamp("2014-01-02")])).tolist() == [False, True]


def test_adjacent_sessions_have_adjacent_numbers():
    numbers = session_number(days("2014-11-26", "2014-11-28", "2014-12-01", "2014-12-03"))
    assert (numbers - numbers[0]).tolist() == [0, 1, 2, 4]


@pytest.mark.parametrize("unit", ["us", "ns"])
def test_what_is_no_session_has_the_number_minus_one(unit):
    numbers = session_number(days("2014-11-26", "2014-11-27", "NaT", "2014-11-28", unit=unit))
    assert numbers[1:3].tolist() == [-1, -1]
    assert numbers[3] == numbers[0] + 1


@pytest.mark.parametrize(
    ("date", "following"),
    [
        ("2014-01-02", "2014-01-03"),
        ("2014-11-28", "2014-12-01"),
        ("2014-11-29", "2014-12-01"),
        ("2014-12-24", "2014-12-26"),
        ("2012-10-26", "2012-10-31"),
        ("2017-12-29", "2018-01-02"),
    ],
)
def test_the_next_session_skips_weekends_and_holidays(date, following):
    assert next_session(pd.Timestamp(date)) == pd.Timestamp(following)


def test_a_date_past_the_calendar_is_refused_by_name():
    with pytest.raises(DataError, match="2100-01-04: the exchange calendar ends at 20"):
        next_session(pd.Timestamp("2100-01-04"))


def test_a_session_has_closed_from_the_instant_of_its_close_on():
    dates = days("2014-07-02", "2014-07-03", "2014-07-04", "2014-07-07")
    half_day = pd.Timestamp("2014-07-03 17:00", tz="UTC")
    assert has_closed(dates, half_day).tolist() == [True, True, False, False]
    assert has_closed(dates, half_day - pd.Timedelta(1, "us")).tolist() == [True, False, False, False]


@pytest.mark.parametrize("date", ["2014-01-02", "2014-07-03", "2014-11-28"])
def test_the_day_of_a_close_is_its_session(date):
    assert session_day(session_close(days(date)).iloc[0]) == pd.Timestamp(date)


def test_the_dates_of_session_numbers_are_the_sessions():
    dates = days("2014-11-26", "2014-11-28", "2014-12-01")
    assert session_date(session_number(dates)).tolist() == dates.tolist()
    assert session_date(session_number(dates)).dtype == next_session(dates[0]).asm8.dtype == dates.dtype
