"""A calendar's file: read in one form, or refused with its row, its column and what to do."""

import pandas as pd
import pytest

from pitwise.bars.sources.calendar_files import csv_events
from pitwise.errors import DataError

pytestmark = pytest.mark.unit

HEAD = "symbol,date,kind,value,known_at\n"
ROW = "AAPL,2014-04-23,earnings,1.5,2014-04-23T20:30:00Z\n"


def read(tmp_path, text: str) -> pd.DataFrame:
    path = tmp_path / "calendar.csv"
    path.write_text(text)
    return csv_events(path)


def test_events_come_as_the_file_says_them(tmp_path):
    text = "Known_At;kind;symbol;date;value;note\n"
    text += "2014-04-23T16:30:00-04:00;Earnings Call;aapl;23.04.2014;1,5;x\n"
    text += "2014-05-01;earnings-call;aapl;23.04.2014;;\n" * 2
    text += "20140601;earnings-call;aapl;23.04.2014;2;\n"
    rows = read(tmp_path, text)
    assert rows[["symbol", "kind"]].drop_duplicates().values.tolist() == [["AAPL", "earnings_call"]]
    assert rows["date"].tolist() == [pd.Timestamp("2014-04-23")] * 3
    assert rows["value"].tolist() == [1.5, pytest.approx(float("nan"), nan_ok=True), 2]
    assert rows["known_at"].tolist() == [
        pd.Timestamp("2014-04-23T20:30Z"),
        pd.Timestamp("2014-05-02T00:00Z"),  # a day alone is over at its end
        pd.Timestamp("2014-06-02T00:00Z"),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("symbol,date,kind,value\nA,2014-01-02,x,1\n", "has no column 'known_at'.*Needed once"),
        (HEAD, "has no rows"),
        (
            HEAD + ROW + "MSFT,2014-04-23,earnings,1,\n",
            "row 3, column 'known_at': nothing is there; without",
        ),
        (HEAD + "AAPL,2014-04-23,,1,2014-04-23\n", "row 2, column 'kind': nothing is there"),
        (
            HEAD + ROW + "MSFT,2014-04-23,earnings,1,soon\n",
            "row 3, column 'known_at': 'soon' is no instant",
        ),
        (
            HEAD + "AAPL,2014-04-23,earnings,high,2014-04-23\n",
            "row 2, column 'value': 'high' is not a num",
        ),
        (
            HEAD + "AAPL,yesterday,earnings,1,2014-04-23\n",
            "row 2, column 'date': 'yesterday' is not a date",
        ),
        (
            HEAD + "AAPL,2014-04-23,earnings,1,2014-05\n",
            "row 2, column 'known_at': '2014-05' is no instant",
        ),
        (HEAD + "AAPL,2014-04-23,e/p,1,2014-04-23\n", "row 2, column 'kind': 'e/p' is no kind"),
        (HEAD + ROW + ROW.replace("1.5", "1.6"), "row 3, column 'known_at': .* with another value"),
    ],
)
def test_a_row_that_cannot_be_believed_is_named(tmp_path, text, says):
    with pytest.raises(DataError, match=rf"calendar\.csv:? ?{says}"):
        read(tmp_path, text)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv: there is no such file"):
        csv_events(tmp_path / "none.csv")
