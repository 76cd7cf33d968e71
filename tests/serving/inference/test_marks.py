"""What stands beside a forecast because of its symbol's newest bars."""

import numpy as np
import pandas as pd
from support import markets

from pitwise import quality_flags
from pitwise.cleaning.events import event_table
from serving.inference.marks import SUSPECT, Marks, named, suspects_of, unusual_of

CLOSE = np.datetime64("2013-11-01T20:00:00", "us")


def test_a_flag_is_of_the_bar_that_the_forecast_stands_on_or_not_known():
    marks = Marks({"A": (CLOSE, True), "B": (CLOSE, False), "C": (CLOSE, True)}, {"A": "split"})
    as_of = np.array([CLOSE, CLOSE, CLOSE - np.timedelta64(1, "D"), CLOSE], "datetime64[s]")
    assert marks.unusual_at(list("ABCD"), as_of) == [True, False, None, None]
    assert marks.suspected(list("ABCD")) == ["split", None, None, None]


def test_without_a_forest_nothing_is_known_of_any_bar():
    bars = markets.bars(2, 100, seed=1)
    assert unusual_of(bars, None) == {}
    forest, _ = quality_flags.fit(bars, contamination=0.001, trees=20, sample=64, seed=7)
    assert set(unusual_of(bars, forest)) == {"S000", "S001"}
    assert unusual_of(bars.iloc[:0], forest) == {}


def test_a_suspect_is_a_provisional_verdict_on_one_of_the_newest_bars():
    bars = markets.bars(3, 30, seed=1)
    days = bars["date"].unique()
    later = pd.Timestamp("2014-03-01T21:00Z")
    events = event_table(
        symbol=["S000", "S000", "S001", "S002", "S002"],
        date=days[[-3, -1, -2, -11, -10]],
        kind=["bad_print", "split", "split", "spin_off", "scale_error"],
        confirmed_at=[None, None, later, None, None],
    )
    found = suspects_of(events, bars)
    assert dict(zip(found["symbol"], found["kind"], strict=True)) == {
        "S000": "split",
        "S002": "scale_error",
    }
    assert list(found) == SUSPECT


def test_events_of_before_there_was_a_status_are_no_suspects():
    bars = markets.bars(1, 30, seed=1)
    old = pd.DataFrame({"symbol": ["S000"], "date": bars["date"].iloc[-1:], "kind": ["jump"]})
    assert suspects_of(old, bars).empty


def test_a_kind_is_named_in_a_sentence():
    assert named("bad_print") == "a bad print"
