"""Bars out of frames and mappings, and the parts in which they are sent."""

import json
import math
from collections import Counter
from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitwise.client.bars import day_text, documents_of, parts
from pitwise.client.errors import ClientError

FIGURES = {"open": 1.0, "high": 4.0, "low": 0.5, "close": 2.0, "volume": 7}


def test_a_frame_s_bars_are_plain_json_in_its_order():
    frame = pd.DataFrame(
        {
            "symbol": ["B", "A"],
            "date": pd.to_datetime(["2013-11-05", "2013-11-04"]),
            **{name: [value, value] for name, value in FIGURES.items()},
            "adj_close": [math.nan, 1.5],
            "note": ["left", "out"],
        }
    )
    documents = documents_of(frame)
    assert json.loads(json.dumps(documents)) == [
        {"symbol": "B", "date": "2013-11-05", **FIGURES},
        {"symbol": "A", "date": "2013-11-04", **FIGURES, "adj_close": 1.5},
    ]


def test_mappings_may_hold_numpy_s_numbers():
    bar = {"symbol": "A", "date": np.datetime64("2013-11-04T00:00"), **FIGURES}
    bar |= {"close": np.float32(2), "volume": np.int64(7), "adj_close": None}
    (document,) = documents_of(iter([bar]))
    assert json.loads(json.dumps(document)) == {"symbol": "A", "date": "2013-11-04", **FIGURES}


def test_a_bar_without_a_field_is_named():
    bar = {"symbol": "A", "date": "2013-11-04", **FIGURES}
    with pytest.raises(ClientError, match="bar 1 has no close, volume"):
        documents_of([bar, {k: v for k, v in bar.items() if k not in ("close", "volume")}])


@pytest.mark.parametrize(
    "day",
    [
        "2013-11-04",
        date(2013, 11, 4),
        datetime(2013, 11, 4, 23, tzinfo=UTC),
        pd.Timestamp("2013-11-04 23:00", tz="America/New_York"),
        np.datetime64("2013-11-04"),
    ],
)
def test_a_day_is_its_own_day(day):
    assert day_text(day, "day") == "2013-11-04"


@pytest.mark.parametrize("day", ["2013-11-31", "yesterday", None, 7, pd.NaT])
def test_what_is_no_day_is_refused(day):
    with pytest.raises(ClientError, match=r"bar 3.*no day"):
        day_text(day, "bar 3")


@given(st.lists(st.integers(1, 5), max_size=30), st.integers(1, 6))
def test_parts_are_by_session_and_cut_none_that_fits(days, most):
    bars = [{"date": f"2013-11-0{day}"} for day in days]
    found = list(parts(bars, most))
    assert sorted(i for part in found for i in part) == list(range(len(bars)))
    assert all(1 <= len(part) <= most for part in found)
    sent = [bars[i]["date"] for part in found for i in part]
    assert sent == sorted(sent)
    sizes = Counter(bar["date"] for bar in bars)
    for session, size in sizes.items():
        holding = [part for part in found if any(bars[i]["date"] == session for i in part)]
        # One that fits is whole, unless it follows the rest of one that does not.
        if size <= most and all(other <= most for other in sizes.values()):
            assert len(holding) == 1
