"""From the files of all processes to the database: each answer once, whoever is killed or away."""

import json
import logging
import threading
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa
from support.answered import RECEIVED, answered, logged, requests

from pitwise.errors import StoreError
from pitwise.registry.prediction_log import append, open_log
from serving.log.mover import REFUSED, Mover
from serving.log.served_log import ServedLog
from serving.supervised import Loop

NEVER = 3600.0


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "wal"


@pytest.fixture
def mover(url, root):
    mover = Mover(url, root)
    yield mover
    mover.close()


def recorded(root: Path, *answers, name: str = "reader-0") -> None:
    """Answers of a process that has ended."""
    log = ServedLog(root / name, NEVER)
    for answer in answers:
        log.record(answer)
    log.close()


def test_answers_are_in_the_log_as_they_were_sent(mover, root, url):
    recorded(root, answered(["A", "B"]))
    assert mover.pending == 1
    assert mover.step() == 1
    assert mover.pending == 0
    second = logged(url).iloc[1].to_dict()
    assert second | {"as_of": None, "served_at": None, "for_session": None} == {
        "symbol": "B",
        "as_of": None,
        "model_version": "1",
        "window_hash": "0f",
        "for_session": None,
        "log_return": 1 / 300,
        "price": 100.1,
        "p_up": 0.5,
        "served_at": None,
        "request_id": "r",
        "caller": "desk",
        "latency_ms": 1.5,
        "role": "champion",
        "state": 2**60,
        "horizon": 1,
        "score": 2.5,
        "scale": 0.02,
    }
    assert second["as_of"] == pd.Timestamp("2024-01-12 21:00", tz="UTC")
    assert second["served_at"] == RECEIVED + timedelta(milliseconds=1.5)
    assert pd.Timestamp(second["for_session"]).date() == date(2024, 1, 16)
    (asked,) = requests(url).to_dict("records")
    assert asked | {"received_at": None, "as_of": None} == {
        "received_at": None,
        "request_id": "r",
        "caller": "desk",
        "route": "/v1/predict",
        "latency_ms": 1.5,
        "model_version": "1",
        "state": 2**60,
        "as_of": None,
        "n": 2,
        "windows": "A:0f B:0f",
    }
    assert (asked["received_at"], asked["as_of"]) == (RECEIVED, second["as_of"])


def test_a_forecast_that_two_processes_have_sent_is_logged_as_the_first(mover, root, url):
    recorded(root, answered(["A"], request_id="first"), name="reader-0")
    recorded(root, answered(["A"], request_id="second"), name="reader-1")
    assert mover.step() == 2
    assert logged(url)["request_id"].tolist() == ["first"]
    assert requests(url)["request_id"].tolist() == ["first", "second"]


def test_the_open_file_of_a_living_process_is_left_to_it(mover, root, url):
    log = ServedLog(root / "reader-0", NEVER)
    log.record(answered(["A"]))
    assert mover.step() == 0
    log.record(answered(["B"], request_id="s"))
    log.close()
    assert mover.step() == 2
    assert logged(url)["symbol"].tolist() == ["A", "B"]


RECORDS_AND_WAITS = """
import sys, time
from pathlib import Path
from serving.log.served_log import ServedLog
from support.answered import answered

log = ServedLog(Path(sys.argv[1]), 3600)
log.record(answered("A"))
print("recorded", flush=True)
time.sleep(3600)
"""


def test_the_open_file_of_a_killed_process_is_moved(mover, root, url, child):
    process = child(RECORDS_AND_WAITS, root / "reader-7")
    assert process.stdout.readline() == "recorded\n"
    assert mover.step() == 0
    process.kill()
    process.wait(timeout=10)
    assert mover.step() == 1
    assert logged(url)["symbol"].tolist() == ["A"]
    assert mover.step() == 0


def test_files_of_an_earlier_version_are_moved(mover, root, url):
    row = {
        "symbol": "A",
        "as_of": "2024-01-12T21:00:00+00:00",
        "model_version": "1",
        "window_hash": "0f",
        "for_session": "2024-01-16",
        "log_return": 0.01,
        "price": 101.0,
        "p_up": 0.5,
        "served_at": "2024-01-12T22:00:00.5+00:00",
    }
    root.mkdir()
    (root / "00000000000000000001.jsonl").write_text(
        "\n" + json.dumps([row, row | {"symbol": "B"}]) + "\n" + json.dumps([row])[:-9]
    )
    assert mover.step() == 1
    table = logged(url)
    assert table["symbol"].tolist() == ["A", "B"]
    assert table["role"].tolist() == ["champion"] * 2
    assert table["served_at"].tolist() == [datetime(2024, 1, 12, 22, 0, 0, 500_000, tzinfo=UTC)] * 2
    assert requests(url).empty
    assert list(root.glob("*.jsonl")) == []


def test_a_file_moved_twice_is_in_the_log_once(mover, root, url):
    recorded(root, answered(["A", "B"]))
    (path,) = root.glob("*/*.jsonl")
    content = path.read_bytes()
    mover.step()
    path.write_bytes(content)  # killed between the commit and the file's end
    mover.step()
    assert (len(logged(url)), len(requests(url))) == (2, 1)
    assert not path.exists()


def test_more_answers_than_a_batch_holds_are_moved(mover, root, url, monkeypatch):
    monkeypatch.setattr("serving.log.mover.BATCH", 3)
    recorded(root, *(answered(["A"], f"{i:02d}", window_hash=f"{i:02d}") for i in range(10)))
    assert mover.step() == 10
    assert len(logged(url)) == len(requests(url)) == 10


def test_an_answer_that_the_database_never_takes_is_set_aside_and_holds_up_no_other(
    mover, root, url, caplog
):
    recorded(root, *(answered(["A"], f"{i}", window_hash=f"{i}") for i in range(5)))
    (path,) = root.glob("*/*.jsonl")
    lines = path.read_text().split("\n")
    lines[2] = lines[2].replace('"for_session":"2024-01-16"', '"for_session":"one day"')
    lines[4] = lines[4].replace('"caller":"desk"', '"caller":null')
    path.write_text("\n".join(lines))
    with caplog.at_level(logging.ERROR):
        mover.step()
    assert requests(url)["request_id"].tolist() == ["0", "2", "4"]
    refused = [json.loads(line) for line in (root / REFUSED).read_text().splitlines()]
    assert [line["answer"]["request_id"] for line in refused] == ["1", "3"]
    assert "one day" in refused[0]["reason"]
    assert len(caplog.messages) == 2
    assert REFUSED in caplog.text
    assert mover.step() == 0


def test_what_the_database_refuses_stays_and_the_reason_has_no_rows(tmp_path, root):
    url = f"sqlite:///{tmp_path}/log.db"
    mover = Mover(url, root)
    recorded(root, answered(["A"]))
    mover.step()
    recorded(root, answered(["B"]))
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text("DROP TABLE requests"))
        connection.execute(sa.text("CREATE TABLE requests (received_at TEXT)"))
    with pytest.raises(StoreError, match="answers wait for the log") as caught:
        mover.step()
    assert "INSERT" not in str(caught.value)
    assert mover.pending == 1
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text("DROP TABLE requests"))
    assert mover.step() == 1
    mover.close()


def test_a_database_file_that_is_deleted_is_made_anew(tmp_path, root):
    url = f"sqlite:///{tmp_path}/log.db"
    mover = Mover(url, root)
    recorded(root, answered(["A"]))
    mover.step()
    for path in tmp_path.glob("log.db*"):
        path.unlink()
    recorded(root, answered(["B"]))
    with pytest.raises(StoreError, match="no such table"):
        mover.step()
    assert mover.step() == 1
    assert logged(url)["symbol"].tolist() == ["B"]
    mover.close()


def test_another_process_that_writes_is_waited_for(tmp_path, root):
    url = f"sqlite:///{tmp_path}/log.db"
    mover, log = Mover(url, root), open_log(url)
    recorded(root, answered(["A"]))
    release = threading.Event()
    holding = threading.Event()

    def hold() -> None:
        with log.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            holding.set()
            release.wait(timeout=20)
            connection.rollback()

    thread = threading.Thread(target=hold)
    thread.start()
    assert holding.wait(timeout=20)
    threading.Timer(0.5, release.set).start()
    assert mover.step() == 1
    assert release.is_set()
    thread.join()
    mover.close()
    log.dispose()


def test_the_evenings_forecasts_and_those_served_stand_side_by_side(mover, root, url):
    """What `pitwise update` has logged of the same window is not logged again."""
    log = open_log(url)
    row = {"symbol": "A", "as_of": pd.Timestamp("2024-01-12T21:00Z"), "model_version": "1"}
    row |= {"window_hash": "0f", "for_session": date(2024, 1, 16), "served_at": RECEIVED}
    row |= {"log_return": 0.01, "price": 101.0, "p_up": 0.5, "role": "champion"}
    append(log, pd.DataFrame([row]))
    log.dispose()
    recorded(root, answered(["A", "B"]))
    mover.step()
    assert logged(url)["request_id"].tolist() == [None, "r"]
    assert len(requests(url)) == 1


def test_postgresql_away_for_a_while_loses_nothing_and_doubles_nothing(
    server, root, caplog, wait_until, monkeypatch
):
    monkeypatch.setattr("serving.supervised.FIRST_PAUSE", 0.05)
    url = server.new_database()
    log, mover = ServedLog(root / "reader-0", 0.02), Mover(url, root)
    loop = Loop("log", 0.02, mover.step).start()
    log.record(answered(["A"]))
    wait_until(lambda: log.pending == 0)
    server.stop()
    try:
        for i in range(20):
            log.record(answered(["B", "C"], f"{i:02x}", window_hash=f"{i:02x}"))
            time.sleep(0.01)
        wait_until(lambda: not loop.status.ok)
        assert "log" in loop.status.detail
        assert log.pending == 20
        assert log.status.ok
    finally:
        server.start()
    wait_until(lambda: log.pending == 0)
    log.record(answered(["D"], "last"))
    log.close()
    assert loop.stop(20)
    mover.step()
    mover.close()
    assert logged(url)["symbol"].value_counts().to_dict() == {"A": 1, "B": 20, "C": 20, "D": 1}
    assert len(requests(url)) == 22


def test_answers_sent_while_postgresql_goes_and_comes_are_all_there(
    server, root, wait_until, monkeypatch
):
    monkeypatch.setattr("serving.supervised.FIRST_PAUSE", 0.05)
    url = server.new_database()
    log, mover = ServedLog(root / "reader-0", 0.01), Mover(url, root)
    loop = Loop("log", 0.01, mover.step).start()
    ending = threading.Event()
    sent = 0

    def answer() -> None:
        nonlocal sent
        while not ending.is_set():
            log.record(answered(["A"], f"{sent:04x}", window_hash=f"{sent:04x}"))
            sent += 1
            time.sleep(0.002)

    thread = threading.Thread(target=answer)
    thread.start()
    for _ in range(2):
        time.sleep(0.3)
        server.kill()
        time.sleep(0.2)
        server.start()
    ending.set()
    thread.join()
    wait_until(lambda: log.pending == 0, seconds=60)
    log.close()
    assert loop.stop(20)
    mover.close()
    numbers = [f"{i:04x}" for i in range(sent)]
    assert logged(url)["window_hash"].tolist() == numbers
    assert requests(url)["request_id"].tolist() == numbers


def test_a_database_that_is_away_at_the_start_is_waited_for(server, root):
    url = server.new_database()
    recorded(root, answered(["A"]))
    mover = Mover(url, root)
    server.stop()
    try:
        with pytest.raises(StoreError, match="opens no prediction log"):
            mover.step()
    finally:
        server.start()
    assert mover.step() == 1
    mover.close()
    assert logged(url)["symbol"].tolist() == ["A"]
