"""Folds of a walk-forward: fitted on all that is known, tested on what comes next, again and again."""

from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Literal

import numpy as np
import pandas as pd

from pitwise.errors import DataError

Step = Literal["month", "quarter", "half_year", "year"]
MONTHS = {"month": 1, "quarter": 3, "half_year": 6, "year": 12}
"""In each step; steps are the calendar's."""


@dataclass(frozen=True)
class Fold:
    """One fit and what it is tested on; the sessions between the two belong to neither."""

    number: int
    """From 0."""
    train: pd.DatetimeIndex
    test: pd.DatetimeIndex

    def held_out(
        self, fraction: float, embargo: int, horizon: int
    ) -> tuple[pd.DatetimeIndex, pd.DatetimeIndex]:
        """The training sessions that weights are fitted on, and the last ones, for early stopping.

        Between the two, as many are left out as before the test sessions.

        Raises:
            DataError: one of the two would be empty.
        """
        n = len(self.train)
        cut = n - round(n * fraction)
        fitted, held = self.train[: max(cut - horizon - embargo, 0)], self.train[cut:]
        if len(fitted) == 0 or len(held) == 0:
            raise _too_few(n, self.test[0])
        return fitted, held


def first_test_session(sessions: pd.DatetimeIndex, first: float | date, step: Step) -> pd.Timestamp:
    """The first session to be forecast.

    Args:
        sessions: unique and sorted.
        first: a day, or the share of the sessions that lie before; then it is the first session of the
            next step, so that no fold is a short one at the start.

    Raises:
        DataError: no session is left.
    """
    if isinstance(first, date):
        after = sessions[_days(sessions) >= pd.Timestamp(first)]
    else:
        steps = _steps(sessions, step)
        starts = np.flatnonzero(np.append(True, steps[1:] != steps[:-1]))
        after = sessions[starts[starts >= round(len(sessions) * first)]]
    if len(after) == 0:
        raise DataError(
            f"walk_forward.first_test: no session is left to forecast after {first} of {len(sessions)} "
            "sessions. Choose an earlier one, or a shorter step."
        )
    return after[0]


def folds(
    sessions: pd.DatetimeIndex, first_test: pd.Timestamp, step: Step, embargo: int, horizon: int
) -> list[Fold]:
    """Every step from `first_test` on as a fold: tested on its sessions, fitted on all those before.

    Before the test sessions `horizon` sessions are purged (their labels are only known at or after the
    first of them) and `embargo` more are left out.
    Source: López de Prado, Advances in Financial Machine Learning, chapter 7.

    Args:
        sessions: unique and sorted instants, each a session's close in UTC, or days.
        first_test: one of them.
        horizon: sessions that the labels look ahead.

    Raises:
        DataError: no session is left to fit on.
    """
    steps = _steps(sessions, step)
    first = sessions.get_loc(first_test)
    cuts = [first, *(first + 1 + np.flatnonzero(steps[first + 1 :] != steps[first:-1])), len(sessions)]
    made = []
    for number, (start, end) in enumerate(pairwise(cuts)):
        train = sessions[: max(start - horizon - embargo, 0)]
        if len(train) == 0:
            raise _too_few(start, first_test)
        made.append(Fold(number, train, sessions[start:end]))
    return made


def _steps(sessions: pd.DatetimeIndex, step: Step) -> np.ndarray:
    """A number for the step of the calendar that each session lies in; (n,)."""
    days = _days(sessions)
    return ((days.year * 12 + days.month - 1) // MONTHS[step]).to_numpy()


def _days(sessions: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """New York's sessions close on the same day in UTC."""
    return sessions.tz_localize(None).normalize()


def _too_few(n: int, first_test: pd.Timestamp) -> DataError:
    return DataError(
        f"{n} sessions before {first_test:%Y-%m-%d} are too few to fit on. Choose a later "
        "walk_forward.first_test, or a smaller embargo_sessions."
    )
