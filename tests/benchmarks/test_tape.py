"""The oracle of `benchmarks/verdicts.py`, on a market of hand-made bars."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pitwise.bars.calendar import session_date, session_number
from pitwise.bars.schema import COLUMNS

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import tape
import verdicts

pytestmark = pytest.mark.unit
FIRST = int(session_number(pd.Series([pd.Timestamp("2016-02-01")]))[0])
SESSIONS = 60


def bars(symbol: str = "ZZZ", seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    close = 50 * np.exp(rng.normal(0, 0.01, SESSIONS).cumsum())
    opened = close * np.exp(rng.normal(0, 0.004, SESSIONS))
    high, low = np.maximum(opened, close) * 1.004, np.minimum(opened, close) * 0.996
    values = [
        symbol,
        session_date(FIRST + np.arange(SESSIONS)),
        opened,
        high,
        low,
        close,
        1e6 + np.arange(60),
    ]
    return pd.DataFrame(dict(zip(COLUMNS, values, strict=True)))


def at(frame: pd.DataFrame, *rows: int) -> pd.MultiIndex:
    return tape.keyed(frame.iloc[list(rows)])


def test_vendors_of_different_bases_agree():
    ours, theirs = bars(), bars()
    theirs[["open", "high", "low", "close"]] *= 0.37
    off = tape.compare(ours, theirs)
    assert off.abs().max().max() < 1e-9
    assert tape.confirmed(off).all()
    assert not tape.contradicted(off).any()


def test_a_price_that_the_tape_has_not_is_contradicted():
    ours = bars()
    ours.loc[20, "low"] *= 0.9
    off = tape.compare(ours, bars())
    assert off.loc[at(ours, 20)[0], "low"] == pytest.approx(np.log(0.9))
    assert list(np.flatnonzero(tape.contradicted(off))) == [20]
    assert not tape.confirmed(off).iloc[20]


def test_a_spin_off_of_the_list_parts_the_quotients():
    """Yum China left on 2016-11-01: the second vendor has taken it out of the prices before."""
    ours = bars("YUM").assign(date=session_date(FIRST + 170 + np.arange(SESSIONS)))
    theirs = ours.copy()
    theirs.loc[ours["date"] < "2016-11-01", ["open", "high", "low", "close"]] *= 0.719
    assert 2 < (ours["date"] < "2016-11-01").sum() < SESSIONS
    assert tape.confirmed(tape.compare(ours, theirs)).all()


def test_the_row_that_the_tape_names_is_the_displaced_one():
    ours = bars()
    ours.loc[10, COLUMNS[2:]] = ours.loc[30, COLUMNS[2:]]
    told, pairs = tape.displaced(ours, tape.compare(ours, bars()))
    assert list(told) == list(at(ours, 10))
    assert pairs.empty


def test_without_a_tape_the_pair_is_named():
    ours = bars()
    ours.loc[10, COLUMNS[2:]] = ours.loc[30, COLUMNS[2:]]
    both = pd.concat([ours, bars("OTHER")], ignore_index=True)
    told, pairs = tape.displaced(both, tape.compare(both, bars("OTHER")))
    assert not len(told)
    assert list(tape.keyed(pairs)) == list(at(ours, 10))


def test_equal_bars_of_both_vendors_are_chance():
    ours, theirs = bars(), bars()
    for frame in (ours, theirs):
        frame.loc[10, COLUMNS[2:]] = frame.loc[30, COLUMNS[2:]]
    told, pairs = tape.displaced(ours, tape.compare(ours, theirs))
    assert len(tape.equal_bars(ours)) == 1
    assert not len(told)
    assert pairs.empty


def test_an_event_is_matched_within_three_sessions():
    days = session_date(FIRST + np.array([10, 20, 30]))
    events = pd.DataFrame({"symbol": ["A", "A", "B"], "date": days})
    found = pd.DataFrame(
        {"symbol": ["A", "A", "A"], "date": session_date(FIRST + np.array([13, 24, 30]))}
    )
    assert tape.matched(found, events).tolist() == pytest.approx([0, np.nan, np.nan], nan_ok=True)


def test_windows_end_at_gaps_and_at_breaks():
    whole = bars()
    assert verdicts.windows(whole) == SESSIONS - 29
    assert verdicts.windows(whole.drop(index=35)) == 35 - 29
    segment = pd.Series(np.repeat([0, 1], [29, SESSIONS - 29]))
    assert verdicts.windows(whole, segment) == SESSIONS - 29 - 29
    assert verdicts.windows(pd.concat([whole, bars("ZZZZ")], ignore_index=True)) == 2 * (SESSIONS - 29)
