"""The last event that was known, against the definition on random calendars."""

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

from pitwise.bars.calendar import is_session, session_close
from pitwise.features.calendar_events import at_sessions, last_events, no_events

DAYS = pd.Series(pd.date_range("2014-06-25", periods=25).astype("datetime64[us]"))
SESSIONS = DAYS[is_session(DAYS)].reset_index(drop=True)  # Independence Day and weekends lie between
CLOSES = session_close(SESSIONS)

EVENTS = st.lists(
    st.tuples(st.sampled_from("AB"), st.integers(0, 15), st.integers(-3 * 24, 12 * 24)),
    min_size=1,
    max_size=12,
    unique=True,
)


def calendar(drawn: list[tuple[str, int, int]]) -> pd.DataFrame:
    """Events by symbol, day and the hours from that day's start until it is known; of one kind."""
    rows = [
        (symbol, "x", DAYS[i], float(n), DAYS[i].tz_localize("UTC") + pd.Timedelta(hours=hours))
        for n, (symbol, i, hours) in enumerate(drawn)
    ]
    return pd.DataFrame(rows, columns=["symbol", "kind", "date", "value", "known_at"])


@pytest.mark.property
@settings(max_examples=12, deadline=None)
@given(EVENTS)
def test_at_each_close_it_is_the_newest_event_of_those_known_and_past(drawn):
    events = calendar(drawn)
    last = last_events(events)
    assert not last.duplicated(["symbol", "event_timestamp"]).any()
    rows, said = list(events.itertuples()), list(last.itertuples())
    for day, close in zip(SESSIONS, CLOSES, strict=True):
        for symbol in "AB":
            known = [e for e in rows if e.symbol == symbol and e.known_at <= close and e.date <= day]
            wanted = max(known, key=lambda e: (e.date, e.known_at)).value if known else None
            found = [e.value for e in said if e.symbol == symbol and e.event_timestamp <= close]
            assert (found[-1] if found else None) == wanted
    assert (last["created_timestamp"] <= last["event_timestamp"]).all()


@pytest.mark.unit
def test_the_numbers_of_an_event_by_hand():
    """Of Saturday 2014-06-28, so of Monday's session; known on Wednesday at 14:00 UTC."""
    last = last_events(calendar([("A", 3, 4 * 24 + 14)]))
    found = at_sessions(last.loc[[0, 0]].reset_index(drop=True), CLOSES[[5, 7]].reset_index(drop=True))
    # 2014-07-02, two sessions after Monday; 2014-07-07, the fourth: the 4th of July is none.
    assert found["sessions_since"].tolist() == [2, 4]
    assert found["value"].tolist() == [0, 0]
    assert found["age_days"].tolist() == [0.25, 5.25]
    nothing = at_sessions(no_events().reindex([0]), CLOSES[[5]].set_axis([0]))
    assert np.isnan(nothing.to_numpy()).all()
