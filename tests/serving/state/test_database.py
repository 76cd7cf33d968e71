"""The market state between processes: what is committed is what is read, whole, by everybody."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from support.fake_processes import CLOSE, MODEL, SESSION, SYMBOLS, features, forecast

from pitwise.errors import StoreError
from serving.state.database import StateReader, StateWriter
from serving.state.market import PartStatus


def whole(n: int = 4) -> tuple[dict, dict]:
    """Forecasts and features of the first n symbols."""
    return (
        {SYMBOLS[i]: forecast(i) for i in range(n)},
        {SYMBOLS[i]: features(i) for i in range(n)},
    )


def commit(writer: StateWriter, forecasts, rows, faults=None, model=MODEL, newest=SESSION, all_=False):
    return writer.commit(model, newest, CLOSE, forecasts, rows, faults or {}, all_)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "serving/state.db"


@pytest.fixture
def writer(path):
    writer = StateWriter(path)
    yield writer
    writer.close()


@pytest.fixture
def reader(path):
    reader = StateReader(path)
    yield reader
    reader.close()


def test_what_is_committed_is_read(writer, reader):
    forecasts, rows = whole()
    forecasts["MSFT"] = replace(forecasts["MSFT"], unusual=True, suspect="bad_print", log_return=1 / 3)
    del forecasts["OLD"]
    before = time.time_ns() // 1000
    committed = commit(writer, forecasts, rows, {"OLD": "its window has a NaN"}, all_=True)
    state = reader.current()
    assert state == committed
    assert before <= state.number <= time.time_ns() // 1000
    assert (state.model, state.newest, state.newest_close) == (MODEL, SESSION, CLOSE)
    assert (state.forecasts, state.features) == (forecasts, rows)
    assert state.faults == {"OLD": "its window has a NaN"}
    assert state.changed == dict.fromkeys(SYMBOLS, state.number)


def test_a_state_that_was_read_stays_as_it_was(writer, reader):
    first = commit(writer, *whole(), all_=True)
    held = reader.current()
    commit(writer, {"AAPL": forecast(0, 50.0)}, {"AAPL": features(0)})
    assert held == first
    assert reader.current().forecasts["AAPL"].last_close == 50.0
    assert held.forecasts["AAPL"].last_close == 100.0


def test_only_what_differs_changes(writer, reader):
    first = commit(writer, *whole(), all_=True)
    assert commit(writer, *whole(), all_=True) is first
    assert commit(writer, {"AAPL": forecast(0)}, {"AAPL": features(0)}) is first
    later = commit(writer, {"AAPL": forecast(0, 9.0)}, {"AAPL": features(0)})
    assert later.number > first.number
    assert later.changed == {**dict.fromkeys(SYMBOLS, first.number), "AAPL": later.number}
    # Features alone are no other forecast.
    other = replace(features(1), values={"close": 3.0})
    third = commit(writer, {"MSFT": forecast(1)}, {"MSFT": other})
    assert third.number > later.number
    assert third.changed == later.changed
    assert reader.current() == third


def test_another_model_or_session_makes_a_state(writer, reader):
    first = commit(writer, *whole(), all_=True)
    second = commit(writer, {}, {}, model=replace(MODEL, refused={}))
    third = commit(writer, {}, {}, model=replace(MODEL, refused={}), newest=SESSION + 1)
    assert first.number < second.number < third.number
    assert reader.current() == third
    assert third.forecasts == first.forecasts


def test_a_symbol_that_is_gone_is_gone_for_readers_too(writer, reader):
    commit(writer, *whole(), all_=True)
    assert "OLD" in reader.current().forecasts
    commit(writer, *whole(3), all_=True)
    state = reader.current()
    assert set(state.forecasts) == set(state.features) == set(state.changed) == set(SYMBOLS[:3])


def test_a_fault_takes_the_forecasts_place_and_back(writer, reader):
    commit(writer, *whole(), all_=True)
    commit(writer, {}, {"AAPL": features(0)}, {"AAPL": "a NaN"})
    state = reader.current()
    assert "AAPL" not in state.forecasts
    assert state.faults == {"AAPL": "a NaN"}
    assert state.changed["AAPL"] == state.number
    commit(writer, {"AAPL": forecast(0)}, {"AAPL": features(0)})
    assert reader.current().faults == {}


def test_before_the_first_commit_there_is_no_state(path, reader):
    with pytest.raises(StoreError, match=r"state\.db: has no state of the market yet"):
        reader.current()
    writer = StateWriter(path)
    with pytest.raises(StoreError, match="no state of the market yet"):
        reader.current()
    commit(writer, *whole(), all_=True)
    assert set(reader.current().forecasts) == set(SYMBOLS)
    writer.close()


def test_a_writer_goes_on_from_the_one_before(path, reader):
    writer = StateWriter(path)
    first = commit(writer, *whole(), all_=True)
    reader.current()
    writer.close()
    again = StateWriter(path)
    assert again.state == first
    assert commit(again, *whole(), all_=True).number == first.number
    later = commit(again, {"AAPL": forecast(0, 1.0)}, {"AAPL": features(0)})
    assert reader.current() == later
    assert later.number > first.number
    again.close()


def test_numbers_rise_though_the_clock_is_put_back(writer, monkeypatch):
    first = commit(writer, *whole(), all_=True)
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000)
    later = commit(writer, {"AAPL": forecast(0, 1.0)}, {"AAPL": features(0)})
    assert later.number == first.number + 1


def test_a_deleted_file_comes_back_with_all_that_was_in_it(path, writer, reader):
    first = commit(writer, *whole(), all_=True)
    reader.current()
    path.unlink()
    assert reader.current() == first
    writer.report({"store": PartStatus(True, "", 0, 1.0)})
    assert reader.current() == first
    assert set(reader.statuses()) == {"store"}
    later = commit(writer, {"AAPL": forecast(0, 1.0)}, {"AAPL": features(0)})
    assert reader.current() == later
    fresh = StateReader(path)
    assert fresh.current() == later
    fresh.close()


def test_numbers_rise_over_a_deleted_file_and_another_writer(path, reader):
    writer = StateWriter(path)
    first = commit(writer, *whole(), all_=True)
    reader.current()
    writer.close()
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    again = StateWriter(path)
    assert again.state is None
    assert commit(again, *whole(), all_=True).number > first.number
    assert reader.current() == again.state
    again.close()


@pytest.mark.parametrize("content", [b"", b"no database" * 1000, "another format"])
def test_a_file_that_is_none_of_ours_is_made_anew(path, content):
    path.parent.mkdir()
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE market (number INTEGER)")
            database.execute("PRAGMA user_version = 99")
    reader = StateReader(path)
    with pytest.raises(StoreError, match=r"state\.db: "):
        reader.current()
    writer = StateWriter(path)
    state = commit(writer, *whole(), all_=True)
    assert reader.current() == state
    reader.close()
    writer.close()


def test_a_file_that_is_damaged_under_way_is_made_anew(path, writer, reader):
    commit(writer, *whole(), all_=True)
    with path.open("r+b") as file:
        file.write(b"\0" * path.stat().st_size)
    path.with_name("state.db-wal").write_bytes(b"")
    state = commit(writer, {"AAPL": forecast(0, 1.0)}, {"AAPL": features(0)})
    with pytest.raises(StoreError, match="cannot be read"):
        reader.current()
    writer.report({})
    assert reader.current() == state


def test_a_disk_that_is_full_leaves_the_old_state(writer, reader):
    first = commit(writer, *whole(), all_=True)
    page = writer._database.execute("PRAGMA page_count").fetchone()[0]
    writer._database.execute(f"PRAGMA max_page_count = {page}")  # what SQLite says of a full disk
    many = {f"S{i}": replace(forecast(0), symbol=f"S{i}") for i in range(2000)}
    with pytest.raises(StoreError, match=r"state\.db: the state of the market cannot be written .*full"):
        commit(writer, many, {})
    assert writer.state is first
    assert reader.current() == first
    writer._database.execute("PRAGMA max_page_count = 1000000")
    assert len(commit(writer, many, {}).forecasts) == 2004
    assert len(reader.current().forecasts) == 2004


def test_statuses_are_told_part_by_part(writer, reader):
    bad = PartStatus(False, "does not answer", 3, 12.5, {"rebuilt": 2})
    writer.report({"store": bad, "log": PartStatus(True, "", 0, 1.0)})
    writer.report({"log": PartStatus(True, "", 1, 2.0)})
    assert reader.statuses() == {"store": bad, "log": PartStatus(True, "", 1, 2.0)}


def test_threads_read_while_one_writes(writer, reader):
    """Each state has all four symbols at one price: a mixture would show."""
    commit(writer, *whole(), all_=True)
    wrong, over = [], threading.Event()

    def follow():
        last = 0
        while not over.is_set():
            state = reader.current()
            closes = {round(f.last_close) for f in state.forecasts.values()}
            if state.number < last or (len(closes) != 1 and last):
                wrong.append((state.number, closes))
            last = state.number if len(closes) == 1 else last

    threads = [threading.Thread(target=follow) for _ in range(3)]
    for thread in threads:
        thread.start()
    for price in range(1, 150):
        new = {s: forecast(i, float(price)) for i, s in enumerate(SYMBOLS)}
        commit(writer, new, {s: features(i) for i, s in enumerate(SYMBOLS)})
        assert {f.last_close for f in reader.current().forecasts.values()} == {float(price)}
    over.set()
    for thread in threads:
        thread.join()
    assert not wrong


COMMITS_FOR_EVER = """
import sys
from pathlib import Path
from support.fake_processes import CLOSE, MODEL, SESSION, SYMBOLS, features, forecast
from serving.state.database import StateWriter

writer = StateWriter(Path(sys.argv[1]))
price = 1.0
while True:
    price += 1
    rows = {s: features(i) for i, s in enumerate(SYMBOLS)}
    forecasts = {s: forecast(i, price) for i, s in enumerate(SYMBOLS)}
    writer.commit(MODEL, SESSION, CLOSE, forecasts, rows, {}, True)
    print(price, flush=True)
"""


def test_what_a_killed_writer_said_it_committed_is_there(path, reader):
    last = 0.0
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", COMMITS_FOR_EVER, path],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert process.stdout
        for _ in range(20):
            last = float(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()
        process.wait()
        last = max([last, *map(float, rest)])
        closes = {f.last_close for f in reader.current().forecasts.values()}
        assert len(closes) == 1
        assert closes.pop() >= last
    again = StateWriter(path)
    assert again.state == reader.current()
    again.close()
