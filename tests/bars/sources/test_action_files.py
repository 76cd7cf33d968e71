"""The files of a feed of corporate actions: what is read, and what is refused by name."""

import gzip

import pandas as pd
import pytest

from pitwise.bars.actions import TYPES
from pitwise.bars.sources.action_files import csv_actions
from pitwise.errors import DataError

HEADER = "symbol,date,kind,ratio,amount,announced\n"


@pytest.fixture
def read(tmp_path):
    def of(text: str, name: str = "actions.csv") -> pd.DataFrame:
        content = text.encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return csv_actions(tmp_path / name)

    return of


def test_every_kind_is_read(read):
    rows = read(
        HEADER + "aapl,2014-06-09,split,7,,2014-04-23\n"
        "AAPL,2014-05-08,dividend,,3.29,2014-04-23\n"
        "MSFT,2004-11-15,Special Dividend,,3.08,\n"
        "DXC,2015-11-30,spin-off,,,\n"
        "EBAY,2015-07-20,spin_off,0.43,,\n"
        "AA,2016-11-01,symbol_change,,,2016-09-29\n"
    )
    assert rows.dtypes.astype(str).to_dict() == TYPES
    assert rows["symbol"].tolist() == ["AAPL", "AAPL", "MSFT", "DXC", "EBAY", "AA"]
    assert rows["kind"].tolist() == [
        *("split", "dividend", "special_dividend", "spin_off", "spin_off", "symbol_change")
    ]
    assert rows["ratio"].fillna(0).tolist() == [7, 0, 0, 0, 0.43, 0]
    assert rows["amount"].fillna(0).tolist() == [0, 3.29, 3.08, 0, 0, 0]
    assert rows["announced"].notna().tolist() == [True, True, False, False, False, True]


@pytest.mark.parametrize("name", ["actions.csv", "actions.csv.gz"])
def test_columns_stand_in_any_order_and_announced_may_lack(read, name):
    rows = read(
        "Kind;Amount;Ratio;Symbol;Date;note\nsplit;;3:2;A;09.06.2014;x\nsplit;;1/10;A;13.06.2014;\n",
        name,
    )
    assert rows["ratio"].tolist() == [1.5, 0.1]
    assert rows["date"].tolist() == [pd.Timestamp("2014-06-09"), pd.Timestamp("2014-06-13")]
    assert rows["announced"].isna().all()


def test_a_row_that_stands_there_twice_counts_once(read):
    row = "A,2014-06-09,split,7,,\n"
    assert len(read(HEADER + row + row)) == 1


def test_a_feed_without_a_row_is_read(read):
    assert read(HEADER).empty


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ("A,2014-06-09,divdend,,1,", r"row 3, column 'kind': 'divdend' is none of split, dividend"),
        ("A,2014-06-09,split,,,", r"row 3, column 'ratio': nothing is not the new shares for one old"),
        ("A,2014-06-09,split,1,,", r"column 'ratio': '1.0' is not the new shares .* Write 2 or 2:1"),
        ("A,2014-06-09,split,-2,,", r"column 'ratio': '-2.0'"),
        ("A,2014-06-09,split,two,,", r"row 3, column 'ratio': 'two' is not a number"),
        ("A,2014-06-09,split,2,3,", r"column 'amount': '3.0' has no meaning .* Leave it empty"),
        ("A,2014-06-09,dividend,,,", r"column 'amount': nothing is no amount of dollars"),
        ("A,2014-06-09,dividend,,0,", r"column 'amount': '0.0' is no amount"),
        ("A,2014-06-09,dividend,0.5,1,", r"column 'ratio': '0.5' has no meaning"),
        (
            "A,2014-06-09,spin_off,1.5,,",
            r"column 'ratio': '1.5' is not the part of the price that stays",
        ),
        ("A,2014-06-09,spin_off,0.5,3,", r"column 'amount': '3.0' has no meaning"),
        ("A,2014-06-09,symbol_change,2,,", r"column 'ratio': '2.0' has no meaning"),
        (",2014-06-09,split,2,,", r"row 3, column 'symbol': nothing is there"),
        ("A,,split,2,,", r"row 3, column 'date': nothing is there"),
        ("A,soon,split,2,,", r"row 3, column 'date': 'soon' is not a date"),
        ("A,2014-06-09,split,2,,soon", r"row 3, column 'announced': 'soon' is not a date"),
        (
            "\u0410,2014-06-09,split,2,,",
            r"row 3, column 'symbol': .* holds a character that no symbol has",
        ),
        ("B,2014-01-02,dividend,,2,", r"row 3, column 'kind': 'dividend' stands there .* amounts added"),
        ("A,2014-06-09,split", r"row 3 has 3 cells and the header 6"),
    ],
)
def test_what_cannot_be_believed_is_refused_by_row_and_column(read, row, named):
    with pytest.raises(DataError, match=rf"actions\.csv: .*{named}") as caught:
        read(HEADER + "B,2014-01-02,dividend,,1,\n" + row + "\n")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_lacks_a_column_is_named(read, tmp_path):
    with pytest.raises(DataError, match=r"absent\.csv: there is no such file.*load\.actions"):
        csv_actions(tmp_path / "absent.csv")
    with pytest.raises(DataError, match=r"has no column kind, amount; it has symbol, date, ratio"):
        read("symbol,date,ratio\nA,2014-06-09,2\n")
    with pytest.raises(DataError, match="column 'date' stands there twice"):
        read("symbol,date,kind,ratio,amount,date\nA,2014-06-09,split,2,,2014-06-09\n")


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "bad.csv.gz").write_bytes(b"\x1f\x8bxx")
    with pytest.raises(DataError, match=r"bad\.csv\.gz: cannot be read"):
        csv_actions(tmp_path / "bad.csv.gz")
