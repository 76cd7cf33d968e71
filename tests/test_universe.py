import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pitwise.bars.calendar import session_close
from pitwise.errors import DataError
from pitwise.universe import (
    NO_UNIVERSE,
    holding,
    members,
    read_intervals,
    read_sectors,
    read_universe,
    survivorship,
    values,
)
from pitwise.workspace import Workspace

TABLE = """symbol,from,to
b,2024-01-03,2024-01-05
A,2024-01-02,
B,2024-01-08,2024-01-09
"""
DAYS = ("2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05", "2024-01-08", "2024-01-09")


def written(folder, text: str):
    path = folder / "universe.csv"
    path.write_text(text)
    return path


def at(symbols: list[str], days: tuple[str, ...] | list[str]) -> pd.DataFrame:
    """Rows of each symbol in each session, sorted by symbol and session."""
    closes = session_close(pd.Series(pd.to_datetime(list(days))))
    return pd.DataFrame(
        {"symbol": np.repeat(symbols, len(days)), "event_timestamp": pd.concat([closes] * len(symbols))}
    ).reset_index(drop=True)


def test_an_interval_has_its_first_day_and_not_its_last(tmp_path):
    table = read_intervals(written(tmp_path, TABLE))
    found = members(table, at(["A", "B", "C"], DAYS)).reshape(3, -1).tolist()
    yes, no = True, False
    assert found == [[yes] * 6, [no, yes, yes, no, yes, no], [no] * 6]


def test_order_of_the_rows_is_of_no_matter(tmp_path):
    table = read_intervals(written(tmp_path, TABLE))
    rows = at(["A", "B", "C"], DAYS)
    order = np.random.default_rng(3).permutation(len(rows))
    np.testing.assert_array_equal(members(table, rows.iloc[order]), members(table, rows)[order])


def test_a_session_is_the_exchanges_day_and_not_londons(tmp_path):
    """A close at 21:00 UTC, and one on a half day."""
    table = read_intervals(written(tmp_path, "symbol,from,to\nA,2024-11-29,2024-12-02\n"))
    rows = at(["A"], ["2024-11-27", "2024-11-29", "2024-12-02"])
    assert members(table, rows).tolist() == [False, True, False]


def test_values_change_on_the_day_that_they_say(tmp_path):
    text = "value,from,symbol,to\nTech,2024-01-03,A,2024-01-05\nCommunication,2024-01-05,A,\n"
    table = read_intervals(written(tmp_path, text), with_value=True)
    found = values(table, at(["A", "B"], DAYS[:4])).tolist()
    assert found == [None, "Tech", "Tech", "Communication", *[None] * 4]


def test_without_a_file_every_row_is_a_member(tmp_path):
    workspace = Workspace(tmp_path)
    assert read_universe(workspace) is None
    assert read_sectors(workspace) is None
    assert members(None, at(["A"], DAYS)).all()
    covered = survivorship(None, {"A"}, tmp_path)
    assert covered == {"survivorship": NO_UNIVERSE, "universe": None}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("symbol,from,to\nA,2024-01-02,\nB,2024-01-02,2024-01-02\n", r"row 3, column 'to'.*not after"),
        ("symbol,from,to\nA,2024-01-05,\nA,2024-01-02,2024-01-06\n", r"rows 3 and 2 of A overlap"),
        ("symbol,from,to\nA,2024-01-02,\na,2024-02-02,2024-03-04\n", r"rows 2 and 3 of A overlap"),
        ("symbol,from,to\nA,2024-01-02,\nB,soon,\n", r"row 3, column 'from': 'soon'"),
        ("symbol,from,to\nA,2024-01-02,2024-02-30\n", r"row 2, column 'to': '2024-02-30'"),
        ("symbol,from,to\nA,,2024-01-02\n", r"row 2, column 'from': nothing is there"),
        ("symbol,from,to\nA,2024-01-02,\n,2024-01-02,\n", r"row 3, column 'symbol': nothing is there"),
        ("symbol,from,to\nÄ,2024-01-02,\n", r"row 2, column 'symbol': 'Ä' holds a character"),
        ("symbol,from\nA,2024-01-02\n", r"has no column 'to'.*symbol, from, to"),
        ("symbol,from,to,to\nA,2024-01-02,,\n", r"has 2 columns 'to'"),
        ("symbol,from,to\n", r"has no rows"),
    ],
)
def test_what_cannot_be_believed_is_refused_with_its_place(tmp_path, text, said):
    path = written(tmp_path, text)
    with pytest.raises(DataError, match=said) as raised:
        read_intervals(path)
    assert str(path) in str(raised.value)


def test_a_sector_without_a_name_is_refused(tmp_path):
    path = written(tmp_path, "symbol,from,to,value\nA,2024-01-02,,\n")
    with pytest.raises(DataError, match=r"row 2, column 'value': nothing is there"):
        read_intervals(path, with_value=True)


def test_what_the_bars_lack_is_told(tmp_path):
    table = read_intervals(written(tmp_path, TABLE))
    covered = survivorship(table, {"A", "C"}, tmp_path)
    assert covered["universe"] == {"symbols": 2, "without_bars": ["B"], "never_members": ["C"]}
    assert covered["survivorship"] == "1 of the universe's 2 symbols have no bars: B"
    assert survivorship(table, {"A", "B"}, tmp_path)["survivorship"] is None


def test_a_universe_of_other_names_is_refused(tmp_path):
    table = read_intervals(written(tmp_path, TABLE))
    with pytest.raises(DataError, match=r"none of its symbols, such as A, B, has bars.*XA"):
        survivorship(table, {"XA"}, tmp_path / "universe.csv")


JANUARY = [f"2024-01-{day:02d}" for day in (2, 3, 4, 5, 8, 9, 10, 11, 12)]


@st.composite
def tables(draw) -> pd.DataFrame:
    """Intervals of up to three symbols that do not overlap; the last of each may be open."""
    rows = []
    for symbol in draw(st.sets(st.sampled_from("ABC"), min_size=1)):
        days = sorted(draw(st.lists(st.integers(1, 14), min_size=1, max_size=6, unique=True)))
        for start, end in zip(days[::2], [*days[1::2], None], strict=False):
            rows.append((symbol, start, end))
    table = pd.DataFrame(draw(st.permutations(rows)), columns=["symbol", "from", "to"])
    for name in ("from", "to"):
        days = pd.to_datetime("2024-01-01") + pd.to_timedelta(table[name].astype(float) - 1, unit="D")
        table[name] = days.astype("datetime64[us]")
    return table


@settings(max_examples=15, deadline=None)
@given(table=tables(), symbols=st.lists(st.sampled_from("ABCD"), unique=True, min_size=1))
def test_which_interval_holds_is_what_a_person_looks_up(table, symbols):
    rows = at(symbols, JANUARY)
    looked_up = []
    for symbol in symbols:
        for day in pd.to_datetime(JANUARY):
            found = -1
            for i, one in enumerate(table.itertuples(index=False)):
                begins, ends = one[1], one[2]
                if one[0] == symbol and begins <= day and (pd.isna(ends) or day < ends):
                    found = i
            looked_up.append(found)
    assert holding(table, rows).tolist() == looked_up
