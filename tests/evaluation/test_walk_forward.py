from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pitwise.bars.calendar import session_close
from pitwise.errors import DataError
from pitwise.evaluation.walk_forward import MONTHS, first_test_session, folds

BUSINESS_DAYS = pd.bdate_range("2023-10-02", "2024-08-30")


def days(index: pd.DatetimeIndex) -> tuple[str, str, int]:
    return f"{index[0]:%Y-%m-%d}", f"{index[-1]:%Y-%m-%d}", len(index)


def test_a_fold_a_quarter():
    made = folds(BUSINESS_DAYS, pd.Timestamp("2024-01-01"), "quarter", embargo=2, horizon=1)
    assert [fold.number for fold in made] == [0, 1, 2]
    # Monday the 1st is forecast; Friday the 29th is purged, the 28th and the 27th are the embargo.
    assert days(made[0].train) == ("2023-10-02", "2023-12-26", 62)
    assert days(made[0].test) == ("2024-01-01", "2024-03-29", 65)
    assert days(made[1].train) == ("2023-10-02", "2024-03-26", 127)
    assert days(made[1].test) == ("2024-04-01", "2024-06-28", 65)
    assert days(made[2].train) == ("2023-10-02", "2024-06-25", 192)
    assert days(made[2].test) == ("2024-07-01", "2024-08-30", 45)


def test_a_start_within_a_quarter_makes_a_short_first_fold():
    made = folds(BUSINESS_DAYS, pd.Timestamp("2024-03-11"), "quarter", embargo=0, horizon=5)
    assert days(made[0].train) == ("2023-10-02", "2024-03-01", 110)  # five sessions before are purged
    assert days(made[0].test) == ("2024-03-11", "2024-03-29", 15)
    assert days(made[1].test) == ("2024-04-01", "2024-06-28", 65)


@pytest.mark.parametrize(
    ("step", "starts"),
    [
        ("month", ["2024-05-13", "2024-06-03", "2024-07-01", "2024-08-01"]),
        ("half_year", ["2024-05-13", "2024-07-01"]),
        ("year", ["2024-05-13"]),
    ],
)
def test_steps_are_the_calendars(step, starts):
    made = folds(BUSINESS_DAYS, pd.Timestamp("2024-05-13"), step, embargo=0, horizon=1)
    assert [f"{fold.test[0]:%Y-%m-%d}" for fold in made] == starts


def test_closes_in_utc_fall_into_the_same_folds_as_their_days():
    instants = pd.DatetimeIndex(session_close(pd.Series(BUSINESS_DAYS)).dropna())
    first = first_test_session(instants, date(2024, 1, 1), "quarter")
    made = folds(instants, first, "quarter", embargo=0, horizon=1)
    assert [str(fold.test[0]) for fold in made] == [
        "2024-01-02 21:00:00+00:00",
        "2024-04-01 20:00:00+00:00",
        "2024-07-01 20:00:00+00:00",
    ]


def test_held_out_sessions_are_the_last_with_the_same_gap_before_them():
    (fold, *_) = folds(BUSINESS_DAYS, pd.Timestamp("2024-01-01"), "quarter", embargo=2, horizon=1)
    fitted, held = fold.held_out(0.1, embargo=2, horizon=1)
    assert days(held) == ("2023-12-19", "2023-12-26", 6)  # a tenth of 62
    assert days(fitted) == ("2023-10-02", "2023-12-13", 53)  # not the 14th, 15th and 18th


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (date(2024, 1, 6), "2024-01-08"),  # a Saturday
        (0.2, "2024-01-01"),  # the 49th of 240 is 2023-12-08; the next quarter begins in January
        (65 / 240, "2024-01-01"),  # to the day
        (66 / 240, "2024-04-01"),
    ],
)
def test_the_first_test_session(first, expected):
    assert f"{first_test_session(BUSINESS_DAYS, first, 'quarter'):%Y-%m-%d}" == expected


@pytest.mark.parametrize("first", [date(2024, 9, 1), 0.99])
def test_a_start_after_the_last_session_is_refused(first):
    with pytest.raises(DataError, match=r"walk_forward\.first_test: no session is left"):
        first_test_session(BUSINESS_DAYS, first, "quarter")


def test_a_start_without_a_past_is_refused():
    with pytest.raises(DataError, match=r"5 sessions before 2023-10-09 are too few to fit on"):
        folds(BUSINESS_DAYS, pd.Timestamp("2023-10-09"), "quarter", embargo=4, horizon=1)


@settings(deadline=None, max_examples=100)
@given(
    st.integers(40, 800),
    st.integers(30, 700),
    st.sampled_from(list(MONTHS)),
    st.integers(0, 10),
    st.sampled_from([1, 5, 20]),
    st.integers(0, 2**32 - 1),
)
def test_no_label_of_a_fit_is_known_after_its_first_test_session(n, start, step, embargo, horizon, seed):
    exchange = pd.bdate_range("2015-01-01", periods=n + 25)
    traded = np.sort(np.random.default_rng(seed).choice(n, size=n - n // 10, replace=False))
    sessions = exchange[traded]  # in some of the exchange's sessions nothing usable is there
    start = min(start, len(sessions) - 1)
    try:
        made = folds(sessions, sessions[start], step, embargo, horizon)
    except DataError:
        assert start <= horizon + embargo
        return
    for fold in made:
        known = exchange[exchange.get_indexer(fold.train) + horizon]
        assert known.max() < fold.test[0]
        between = (sessions > fold.train[-1]) & (sessions < fold.test[0])
        assert between.sum() == horizon + embargo
        assert fold.train[0] == sessions[0]
    tested = made[0].test.append([fold.test for fold in made[1:]])
    pd.testing.assert_index_equal(tested, sessions[start:])
