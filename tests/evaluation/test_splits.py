from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pitwise.errors import DataError
from pitwise.evaluation.splits import split_sessions

JANUARY = pd.DatetimeIndex(
    [f"2024-01-{day:02d}" for day in (2, 3, 4, 5, 8, 9, 10, 11, 12, 16)]
    + [f"2024-01-{day:02d}" for day in (17, 18, 19, 22, 23, 24, 25, 26, 29, 30)]
)


def january(*days: int) -> list[pd.Timestamp]:
    return [pd.Timestamp(2024, 1, day) for day in days]


def test_the_cuts_leave_out_the_labels_session_and_the_embargo():
    split = split_sessions(JANUARY, 0.2, 0.25, embargo=1, horizon=1)
    assert list(split.train) == january(2, 3, 4, 5, 8, 9, 10, 11, 12)
    assert list(split.validation) == january(18, 19)
    assert list(split.test) == january(24, 25, 26, 29, 30)


def test_without_embargo_only_the_labels_session_is_left_out():
    split = split_sessions(JANUARY, 0.2, 0.25, embargo=0, horizon=1)
    assert split.train[-1] == pd.Timestamp("2024-01-16")
    assert list(split.validation) == january(18, 19, 22)


def test_label_names_the_part_of_each_instant():
    split = split_sessions(JANUARY, 0.2, 0.25, embargo=1, horizon=1)
    instants = pd.Series(january(30, 2, 16, 19))
    assert split.label(instants).tolist() == ["test", "train", "", "validation"]


@settings(deadline=None, max_examples=200)
@given(
    st.integers(1, 300),
    st.floats(0.01, 0.49),
    st.floats(0.01, 0.49),
    st.integers(0, 12),
    st.integers(1, 20),
)
def test_no_label_is_known_at_or_after_the_next_parts_first_session(
    n, validation, test, embargo, horizon
):
    sessions = pd.date_range("2000-01-01", periods=n)
    try:
        split = split_sessions(sessions, validation, test, embargo, horizon)
    except DataError:
        # Only where a part has no session left once the gap before it is taken out.
        sizes = [round(n * test), round(n * validation) - horizon - embargo]
        rest = n - round(n * test) - round(n * validation) - horizon - embargo
        assert min(*sizes, rest) <= 0
        return
    parts = [split.train, split.validation, split.test]
    for before, after in pairwise(parts):
        label_known = sessions.get_indexer(before) + horizon
        first_after = sessions.get_loc(after[0])
        assert label_known.max() < first_after
        assert first_after - label_known.max() - 1 == embargo
    together = parts[0].append(parts[1:])
    assert together.is_unique
    assert together.is_monotonic_increasing
    assert split.train[0] == sessions[0]
    assert split.test[-1] == sessions[-1]
    assert len(split.test) == round(n * test)


@pytest.mark.parametrize(
    ("n", "embargo", "lacking"),
    [(1, 0, "test"), (3, 5, "train"), (20, 4, "validation"), (20, 30, "train and validation")],
)
def test_too_few_sessions_are_refused_with_the_part_that_is_empty(n, embargo, lacking):
    with pytest.raises(DataError, match=f"{n} sessions are too few.*{lacking}.*embargo_sessions"):
        split_sessions(JANUARY[:n], 0.2, 0.25, embargo, horizon=1)
