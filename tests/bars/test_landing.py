"""A delivery on the disk: written once, read as it came, and never taken for another."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from support.project import PROJECT

from pitwise.bars.landing import (
    Landing,
    each_landing,
    first_to_last,
    land,
    landing_files,
    landings,
    newest_close,
    read_landing,
)
from pitwise.errors import DataError, StoreError
from pitwise.workspace import Workspace

COLUMNS = ["symbol", "date", "open", "high", "low", "close", "volume"]
EVENING = pd.Timestamp("2014-01-03 22:30", tz="UTC")
HOUR = pd.Timedelta(1, "h")
SECOND, THIRD = date(2014, 1, 2), date(2014, 1, 3)


def rows(*bars: tuple) -> pd.DataFrame:
    """Rows of (symbol, date, close)."""
    frame = pd.DataFrame(
        [(s, pd.Timestamp(d), c - 1, c + 1, c - 2, c, 100.0) for s, d, c in bars], columns=COLUMNS
    )
    return frame.astype({"symbol": "string", "date": "datetime64[us]"})


TWO = rows(("AAPL", "2014-01-02", 11.0), ("AAPL", "2014-01-03", 12.0))


def landing(frame: pd.DataFrame = TWO, **changes) -> Landing:
    return Landing(**{"rows": frame, "source": "csv", "received_at": EVENING} | changes)


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path)


def test_a_landing_comes_back_as_it_was(workspace):
    frame = TWO.assign(
        adj_close=[5.5, float("nan")],
        known_at=pd.to_datetime(["2014-01-02 21:00:00.000001", None], utc=True).as_unit("us"),
        withdrawn=[False, True],
    )
    said = landing(
        frame,
        source="live",
        basis="split_adjusted",
        history="observed",
        covers={"AAPL": (SECOND, THIRD)},
        seals=(SECOND, THIRD),
    )
    path = land(workspace, said)
    (found,) = landings(workspace)
    pd.testing.assert_frame_equal(found.rows, frame)
    assert found.name == path.name
    for name in ("source", "received_at", "basis", "history", "covers", "seals"):
        assert getattr(found, name) == getattr(said, name), name
    assert (found.source, found.basis, found.history) == ("live", "split_adjusted", "observed")
    assert found.received_at == pd.Timestamp("2014-01-03 22:30", tz="UTC")


def test_rows_without_a_symbol_or_a_date_stay_and_so_does_their_order(workspace):
    frame = rows(("MSFT", "2014-01-03", 1.0), (None, "2014-01-03", 2.0), ("AAPL", None, 3.0))
    land(workspace, landing(frame))
    (found,) = landings(workspace)
    pd.testing.assert_frame_equal(found.rows, frame)


def test_a_delivery_without_a_row_can_seal_a_session(workspace):
    land(workspace, landing(TWO.iloc[:0], source="seal", seals=(THIRD,)))
    (found,) = landings(workspace)
    assert (len(found.rows), found.seals) == (0, (THIRD,))


def test_the_name_has_the_instant_in_utc_and_the_source(workspace):
    tokyo = pd.Timestamp("2014-01-04 07:30:00.000002", tz="Asia/Tokyo")
    path = land(workspace, landing(source="Desk 3/New York", received_at=tokyo))
    name = r"20140103T223000000002Z-desk_3_new_york-[0-9a-f]{12}\.parquet"
    assert re.fullmatch(name, path.name)
    assert read_landing(path).source == "Desk 3/New York"


def test_landings_stand_in_the_order_in_which_they_were_received(workspace):
    for source, hours in (("b", 2), ("a", 1), ("c", 0), ("a", 3)):
        frame = TWO.assign(volume=float(hours))
        land(workspace, landing(frame, source=source, received_at=EVENING + hours * HOUR))
    found = [(one.source, one.received_at - EVENING) for one in landings(workspace)]
    assert found == [("c", 0 * HOUR), ("a", 1 * HOUR), ("b", 2 * HOUR), ("a", 3 * HOUR)]


def test_one_landing_at_a_time_has_its_symbols_once(workspace):
    land(workspace, landing())
    found = each_landing(workspace)
    rows = next(found).rows
    assert rows["symbol"].cat.categories.tolist() == ["AAPL"]
    assert rows["symbol"].tolist() == ["AAPL", "AAPL"]
    assert list(found) == []


# What is the same, and what is news.


def test_the_same_content_lands_once_whenever_it_is_received(workspace):
    first = land(workspace, landing(history="assumed"))
    before = first.read_bytes()
    for hours in (0, 1, -1):
        assert land(workspace, landing(received_at=EVENING + hours * HOUR)) == first
    assert landing_files(workspace) == [first]
    assert first.read_bytes() == before


def test_what_was_read_has_the_content_that_was_written(workspace):
    path = land(workspace, landing())
    (found,) = landings(workspace)
    assert land(workspace, replace(found, received_at=EVENING + HOUR)) == path
    assert land(workspace, replace(read_landing(path), received_at=EVENING + HOUR)) == path


@pytest.mark.parametrize(
    "changes",
    [
        {"frame": TWO.assign(volume=[100.0, 100.00000000000001])},
        {"frame": TWO.iloc[::-1]},
        {"frame": TWO.iloc[:1]},
        {"frame": TWO.assign(symbol=pd.array(["AAPL", "MSFT"], dtype="string"))},
        {"frame": TWO.assign(symbol=pd.array(["AAPL", None], dtype="string"))},
        {"frame": TWO.assign(date=TWO["date"] + pd.Timedelta(1, "D"))},
        {"frame": TWO.assign(adj_close=TWO["close"])},
        {"frame": TWO.rename(columns={"open": "low", "low": "open"})},
        {"frame": TWO.assign(withdrawn=True)},
        {"basis": "split_adjusted"},
        {"covers": {"AAPL": (SECOND, THIRD)}},
        {"seals": (THIRD,)},
    ],
)
def test_what_says_anything_else_is_another_landing(workspace, changes):
    frame = changes.pop("frame", TWO)
    first = land(workspace, landing())
    second = land(workspace, landing(frame, received_at=EVENING + HOUR, **changes))
    assert landing_files(workspace) == [first, second]


def test_another_source_that_says_the_same_has_a_landing_of_its_own(workspace):
    first = land(workspace, landing())
    second = land(workspace, landing(source="desk"))
    assert landing_files(workspace) == [first, second]


def test_only_the_newest_landing_of_a_source_is_what_it_says(workspace):
    """Said, taken back and said again is three deliveries."""
    first = land(workspace, landing())
    second = land(workspace, landing(TWO.iloc[:1], received_at=EVENING + HOUR))
    third = land(workspace, landing(received_at=EVENING + 2 * HOUR))
    assert landing_files(workspace) == [first, second, third]
    assert len(read_landing(third).rows) == 2


@pytest.mark.parametrize("earlier", [pd.Timedelta(0), pd.Timedelta(1, "us"), HOUR])
def test_news_of_a_source_cannot_be_put_before_what_it_said_last(workspace, earlier):
    first = land(workspace, landing())
    with pytest.raises(DataError, match="was received no earlier than") as refused:
        land(workspace, landing(TWO.iloc[:1], received_at=EVENING - earlier))
    assert str(first) in str(refused.value)
    assert landing_files(workspace) == [first]
    assert landings(workspace)[0].rows["close"].tolist() == [11.0, 12.0]


def test_a_landing_is_the_same_bytes_each_time(tmp_path):
    paths = [land(Workspace(tmp_path / name), landing()) for name in ("one", "two")]
    assert paths[0].name == paths[1].name
    assert paths[0].read_bytes() == paths[1].read_bytes()


# The disk.


def test_file_and_folder_are_on_the_disk_when_it_returns(workspace, monkeypatch):
    synced = []

    def fsync(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").readlink())

    monkeypatch.setattr(os, "fsync", fsync)
    path = land(workspace, landing())
    assert synced == [path.with_name(f".{path.name}.tmp"), path.parent]


@pytest.mark.component
def test_a_killed_load_leaves_no_landing(tmp_path):
    program = (
        "import os, pandas as pd, pyarrow.parquet as pq\n"
        "from pitwise.bars.landing import Landing, land\n"
        "from pitwise.workspace import Workspace\n"
        "real = pq.write_table\n"
        "def dying(*a, **k): real(*a, **k); os._exit(9)\n"
        "pq.write_table = dying\n"
        "rows = pd.DataFrame({'symbol': ['AAPL'], 'date': pd.to_datetime(['2014-01-02'])})\n"
        "land(Workspace('.'), Landing(rows, 'csv', pd.Timestamp('2014-01-03', tz='UTC')))"
    )
    environment = os.environ | {"PYTHONPATH": str(PROJECT.root)}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, timeout=60)
    assert done.returncode == 9
    assert landing_files(Workspace(tmp_path)) == []


def test_a_folder_that_cannot_be_made_is_one_message(workspace):
    (workspace.root / "data").write_text("a file")
    with pytest.raises(StoreError, match=r"data/landing/.*cannot be written"):
        land(workspace, landing())


def test_nothing_has_landed_in_a_new_workspace(workspace):
    assert landing_files(workspace) == landings(workspace) == []


@pytest.mark.parametrize("kind", ["no parquet", "cut short", "no landing"])
def test_a_file_that_is_no_landing_is_named(workspace, kind):
    path = land(workspace, landing())
    if kind == "no landing":
        TWO.to_parquet(path)
    else:
        path.write_bytes(b"bars" if kind == "no parquet" else path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"cannot be read as a landing.*`dvc checkout`") as refused:
        landings(workspace)
    assert str(refused.value).startswith(f"{path}: ")


# What a delivery is about.


def test_each_symbol_s_first_and_last_day():
    frame = rows(
        ("AAPL", "2014-01-03", 1.0),
        ("AAPL", "2014-01-02", 1.0),
        ("MSFT", "2014-01-03", 1.0),
        ("IBM", None, 1.0),
        (None, "2014-01-01", 1.0),
    )
    assert first_to_last(frame) == {"AAPL": (SECOND, THIRD), "MSFT": (THIRD, THIRD)}
    assert first_to_last(frame.astype({"symbol": "category"})) == first_to_last(frame)


@pytest.mark.parametrize(
    ("days", "close"),
    [
        (["2014-01-02", "2014-01-03"], "2014-01-03 21:00"),
        (["2014-11-28", "2014-11-26"], "2014-11-28 18:00"),  # the day after Thanksgiving is a half day
        (["2014-07-03", "2014-07-04", None], "2014-07-03 17:00"),  # no session on the Fourth
        (["2014-06-03"], "2014-06-03 20:00"),
    ],
)
def test_the_close_of_the_newest_session(days, close):
    assert newest_close(rows(*(("A", day, 1.0) for day in days))) == pd.Timestamp(close, tz="UTC")


@pytest.mark.parametrize("days", [[], [None], ["2014-01-04", "2014-12-25"]])
def test_bars_of_no_session_have_no_newest_close(days):
    with pytest.raises(DataError, match="no session of the exchange"):
        newest_close(rows(*(("A", day, 1.0) for day in days)))
