import re
from datetime import date

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pitwise.bars.sources.cells import days, numbers
from pitwise.errors import DataError

DAYS = st.lists(st.dates(date(1990, 1, 1), date(2060, 12, 31)), min_size=1, max_size=6)
FORMS = [
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%Y%m%d",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d.%m.%Y",
    "%d-%b-%Y",
    "%B %d, %Y",
    "%m/%d/%y",
]


@given(DAYS, st.sampled_from(FORMS))
@settings(deadline=None, max_examples=300)
def test_a_date_in_any_form_is_the_day_that_was_written_or_may_be_two(written_days, form):
    texts = [day.strftime(form) for day in written_days]
    cells = pd.Series(texts, name="date")
    try:
        read = days(cells, "bars.csv")
    except DataError as error:
        row, one, other = re.search(
            r"row (\d+),.* can be (\S+) or (\S+), and no cell", str(error)
        ).groups()
        assert one != other
        assert str(written_days[int(row)]) in (one, other)
        assert form in ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%m/%d/%y")
    else:
        assert [pd.Timestamp(day) for day in read] == [pd.Timestamp(day) for day in written_days]


def with_marks(cents: int, decimal: str, thousands: str) -> str:
    return f"{cents / 100:,.2f}".translate(str.maketrans(".,", decimal + thousands))


@given(
    st.lists(st.integers(0, 10**9), min_size=1, max_size=8),
    st.sampled_from([(".", ","), (",", "."), (",", " "), (".", "'"), (".", " ")]),
    st.sampled_from(["", "$", "-$"]),
)
@settings(deadline=None, max_examples=300)
def test_a_number_in_any_marks_is_the_one_that_was_written(cents, marks, sign):
    cells = pd.DataFrame({"close": [sign + with_marks(c, *marks) for c in cents]})
    read = numbers(cells, "bars.csv")["close"]
    assert read.tolist() == [(-c if "-" in sign else c) / 100 for c in cents]


@given(st.lists(st.integers(1, 999_999), min_size=1, max_size=8))
@settings(deadline=None, max_examples=200)
def test_whole_numbers_with_commas_may_be_fractions_and_are_refused(volumes):
    cells = pd.DataFrame({"volume": [f"{volume:,}" for volume in volumes]})
    if max(volumes) < 1000:
        assert numbers(cells, "bars.csv")["volume"].tolist() == volumes
    else:
        with pytest.raises(DataError, match="can be"):
            numbers(cells, "bars.csv")
