"""The newest closed session of an instant."""

import numpy as np
import pytest

from serving.inference.freshness import newest_closed, sessions_at

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("now", "close"),
    [
        ("2013-11-01T19:59:59", "2013-10-31T20:00"),  # a second before Friday's close
        ("2013-11-01T20:00:00", "2013-11-01T20:00"),
        ("2013-11-04T20:59:59", "2013-11-01T20:00"),  # Monday: the clocks have gone back
        ("2013-11-04T21:00:00", "2013-11-04T21:00"),
        ("2013-11-29T18:00:00", "2013-11-29T18:00"),  # the half day after Thanksgiving
        ("2013-11-30T12:00:00", "2013-11-29T18:00"),  # a Saturday
        ("2013-11-05T02:00:00", "2013-11-04T21:00"),  # still Monday in New York
    ],
)
def test_the_newest_closed_session_of_an_instant(now, close):
    from datetime import UTC, datetime

    (expected,) = sessions_at(np.array([close], "datetime64[us]"))
    assert newest_closed(datetime.fromisoformat(now).replace(tzinfo=UTC)) == expected.number
