from datetime import date

import pandas as pd
import pytest

from monitoring.weeks import Week
from pitwise.errors import DataError

pytestmark = pytest.mark.unit


def test_a_week_is_known_by_its_iso_name():
    assert Week.named("2017-W45").monday == date(2017, 11, 6)
    # 2015 has 53 ISO weeks; 1 January 2016 is in the last of them.
    assert str(Week.of(date(2016, 1, 1))) == "2015-W53"
    assert str(Week.named("2016-W01").before()) == "2015-W53"
    for wrong in ("2016-W53", "2017-45", "2017-W00", "W45", ""):
        with pytest.raises(DataError, match="2017-W45"):
            Week.named(wrong)


def test_a_week_has_the_exchanges_sessions_and_ends_on_sunday():
    # Thanksgiving on the 23rd; half a day on the 24th, which closed at 13:00 in New York.
    week = Week.named("2017-W47")
    assert [day.day for day in week.days] == [20, 21, 22, 24]
    assert week.closes[-1] == pd.Timestamp("2017-11-24T18:00Z")
    assert week.end == pd.Timestamp("2017-11-27T00:00Z")
