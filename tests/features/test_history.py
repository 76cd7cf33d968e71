from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pandas as pd
from hypothesis import given, settings
from pandas.testing import assert_frame_equal
from support.histories import merge
from support.revisions import difference

from pitwise.features.history import CREATED, KEYS, known, revisions

OPENING = pd.Timestamp("2024-01-02", tz="UTC")
DAY, HOUR = pd.Timedelta(days=1), pd.Timedelta(hours=1)
NOW = pd.Timestamp("2024-06-03 22:00", tz="UTC")


def table(bars: dict[tuple[str, int], tuple[float, int]]) -> pd.DataFrame:
    """A table of features from (symbol, day) to (close, segment); one feature may be missing."""
    rows = [
        {
            "symbol": symbol,
            "event_timestamp": OPENING + day * DAY,
            "open": 1.0,
            "high": 9.0,
            "low": 1.0,
            "close": close,
            "volume": 10 * close,
            "sma_5": close / 3 if day > 1 else np.nan,
            "segment": segment,
        }
        for (symbol, day), (close, segment) in sorted(bars.items())
    ]
    kinds = {"symbol": "string", "event_timestamp": "datetime64[us, UTC]", "segment": "int32"}
    return pd.DataFrame(rows).astype(kinds)


BARS = st.dictionaries(
    st.tuples(st.sampled_from("ABC"), st.integers(0, 6)),
    st.tuples(st.sampled_from([0.0, -0.0, 2.0, 3.0]), st.sampled_from([0, 0, 1])),
    min_size=1,
)
LOADS = st.lists(st.tuples(BARS, st.integers(1, 60)), min_size=1, max_size=5)


def loaded(loads: list) -> tuple[list[pd.DataFrame], list[tuple[pd.Timestamp, pd.DataFrame]]]:
    """The history after each load, some hours after the one before, the first within the data.

    And the instant of each load with the table that it took.
    """
    histories, taken, now = [], [], OPENING
    for bars, hours in loads:
        now += hours * HOUR
        # The first load may come before the last bars' closes: it took them while the market was open.
        taken.append((now, table(bars)))
        histories.append(merge(histories[-1] if histories else None, taken[-1][1], now))
    return histories, taken


def bits(frame: pd.DataFrame) -> list[tuple]:
    """Rows as they compare bit for bit; NaN equals NaN."""
    return [tuple(repr(value) for value in row) for row in frame.itertuples(index=False)]


@given(LOADS)
@settings(deadline=None, max_examples=40)
def test_what_is_known_at_an_instant_is_what_the_last_load_before_it_brought(loads):
    (*_, history), taken = loaded(loads)
    ends = [*(instant for instant, _ in taken[1:]), taken[-1][0] + 999 * DAY]
    for (instant, fresh), end in zip(taken, ends, strict=True):
        for at in (instant, end - pd.Timedelta(1, "us")):
            assert bits(known(history, at).drop(columns=CREATED)) == bits(fresh)
    assert bits(known(history).drop(columns=CREATED)) == bits(taken[-1][1])
    first, fresh = taken[0]
    before = known(history, first - HOUR).drop(columns=CREATED)
    assert bits(before) == bits(fresh[fresh["event_timestamp"] <= first - HOUR])


@given(LOADS)
@settings(deadline=None, max_examples=40)
def test_a_load_rewrites_nothing_and_the_same_load_again_adds_nothing(loads):
    histories, taken = loaded(loads)
    history = histories[-1]
    assert history.equals(history.sort_values([*KEYS, CREATED], ignore_index=True))
    again = merge(history, taken[-1][1], taken[-1][0] + HOUR)
    assert bits(again) == bits(history)
    for earlier, later in pairwise(histories):
        assert set(bits(earlier)) <= set(bits(later))


@given(LOADS)
@settings(deadline=None, max_examples=40)
def test_the_revisions_of_a_load_are_its_difference_in_sessions_that_a_symbol_had(loads):
    (*_, history), taken = loaded(loads)
    found = revisions(history)
    for (_, old), (instant, new) in pairwise(taken):
        rows = found[found[CREATED] == instant]
        kinds = {(r.symbol, r.event_timestamp): r.kind for r in rows.itertuples()}
        assert kinds.items() >= difference(old, new).items()
        if history["close"].notna().all():  # else a withdrawn session may come again
            assert kinds == difference(old, new)
    assert found[CREATED].isin([instant for instant, _ in taken[1:]]).all()


def test_a_revision_has_the_bar_before_and_after_and_how_many_features_moved():
    one = table({("A", day): (2.0, 0) for day in range(4)} | {("B", 3): (7.0, 0)})
    two = one.copy()
    two.loc[1, ["close", "volume", "sma_5"]] = [3.0, 30.0, 1.0]  # corrected
    two.loc[2, "sma_5"] = 0.9  # only a feature of it
    two.loc[3, "segment"] = 1  # only its segment
    two = pd.concat([two.iloc[:4], table({("A", 4): (5.0, 1), ("B", 1): (6.0, 0)})])  # B's 3 withdrawn
    history = merge(merge(None, one, NOW), two, NOW + DAY)
    found = revisions(history)
    nan = np.nan
    expected = [
        ("A", 1, "changed", True, 2.0, 3.0, 20.0, 30.0, 3),
        ("A", 2, "changed", False, 2.0, 2.0, 20.0, 20.0, 1),
        ("A", 3, "changed", False, 2.0, 2.0, 20.0, 20.0, 0),
        ("B", 1, "late", True, nan, 6.0, nan, 60.0, 5),
        ("B", 3, "withdrawn", True, 7.0, nan, 70.0, nan, 6),
    ]
    columns = ["kind", "bar_changed", "old_close", "new_close", "old_volume", "new_volume"]
    wanted = pd.DataFrame(expected, columns=["symbol", "day", *columns, "features_moved"])
    wanted.insert(1, "event_timestamp", OPENING + wanted.pop("day") * DAY)
    assert (found[CREATED] == NOW + DAY).all()
    assert_frame_equal(found.drop(columns=CREATED).reset_index(drop=True), wanted, check_dtype=False)


def test_a_bar_taken_before_its_close_was_known_when_it_was_taken():
    noon = OPENING - 9 * HOUR
    history = merge(None, table({("A", -1): (2.0, 0), ("A", 0): (3.0, 0)}), noon)
    assert history[CREATED].tolist() == [OPENING - DAY, noon]
    history = merge(history, table({("A", -1): (2.0, 0), ("A", 0): (4.0, 0)}), OPENING + HOUR)
    assert known(history, OPENING)["close"].tolist() == [2.0, 3.0]
    assert known(history)["close"].tolist() == [2.0, 4.0]
