"""Server-sent events against the standard's own rules, however the bytes are cut."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pitwise.client.events import Event, events

STREAM = (
    b": a comment\r\n\r\n"
    b"id: 4\r\nevent: forecasts\r\ndata: {\r\ndata: }\r\n\r\n"
    b"event: nothing, for it has no data\r\n\r\n"
    b"data:two words \xe2\x80\xa8\n\n"
    b"id: 5\nretry: 100\nunknown: 7\ndata\n\n"
    b"data: cut off\n"
)
EVENTS = [
    Event("forecasts", "{\n}", "4"),
    Event("message", "two words \u2028", "4"),
    Event("message", "", "5"),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_events_are_the_same_however_the_bytes_come(cuts):
    edges = [0, *sorted(cuts), len(STREAM)]
    chunks = [STREAM[a:b] for a, b in pairwise(edges)]
    assert list(events(chunks)) == EVENTS
