"""What was answered is in the log, whatever happens to the process, the database or the disk."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from pitwise.errors import StoreError
from pitwise.registry.prediction_log import PREDICTIONS, open_log
from serving.inference.predictor import Forecasts
from serving.log.served_log import ServedLog

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).resolve().parent
NEVER = 3600.0  # seconds between two flushes: the test flushes for itself


def forecasts(
    symbols: list[str], window: str = "0f", version: str = "1", p_up: float = 0.5
) -> Forecasts:
    n = len(symbols)
    return Forecasts(
        model_version=version,
        symbols=symbols,
        as_of=np.full(n, np.datetime64("2024-01-12T21:00", "us")),
        last_close=np.full(n, 100.0),
        log_return=np.arange(n) / 300,
        price=np.full(n, 100.1),
        p_up=np.full(n, p_up),
        window_hash=[window] * n,
        missing=[],
    )


def logged(url: str) -> pd.DataFrame:
    engine = open_log(url)
    table = pd.read_sql(sa.select(PREDICTIONS), engine)
    engine.dispose()
    return table.sort_values(["symbol", "window_hash", "model_version"], ignore_index=True)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def leave_behind(log: ServedLog) -> None:
    """End a log as a kill does: its thread and its lock go, its files stay."""
    log._ending.set()
    log._thread.join()
    log._write_ahead.release()


def wait_until(true, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def test_an_answer_is_in_a_file_at_once_and_in_the_log_as_it_was_sent(url, tmp_path):
    log = ServedLog(url, tmp_path / "wal", NEVER)
    before = datetime.now(UTC)
    log.record(forecasts(["A", "B"]))
    after = datetime.now(UTC)
    assert log.pending == 2
    assert b'"B"' in files(tmp_path / "wal")[0].read_bytes()
    assert logged(url).empty

    assert log.flush() == 2
    assert log.pending == 0
    assert files(tmp_path / "wal") == []
    second = logged(url).iloc[1]
    assert (second["symbol"], second["model_version"], second["window_hash"]) == ("B", "1", "0f")
    assert (second["log_return"], second["price"], second["p_up"]) == (1 / 300, 100.1, 0.5)
    assert second["as_of"] == pd.Timestamp("2024-01-12 21:00", tz="UTC")
    assert pd.Timestamp(second["for_session"]).date() == date(2024, 1, 16)  # over a long weekend
    assert before <= second["served_at"] <= after
    log.close()


def test_the_thread_moves_answers_to_the_log_by_itself(url, tmp_path):
    log = ServedLog(url, tmp_path / "wal", 0.05)
    log.record(forecasts(["A"]))
    wait_until(lambda: log.pending == 0)
    assert len(logged(url)) == 1
    log.close()


def test_an_answer_sent_again_is_written_down_once(url, tmp_path):
    log = ServedLog(url, tmp_path / "wal", NEVER)
    log.record(forecasts(["A", "B"]))
    size = files(tmp_path / "wal")[0].stat().st_size
    log.record(forecasts(["B", "A"]))
    assert files(tmp_path / "wal")[0].stat().st_size == size
    log.record(forecasts(["A", "C"]))
    assert log.pending == 3
    log.flush()
    log.record(forecasts(["A", "B", "C"]))
    assert log.pending == 0
    log.close()


def test_another_window_another_version_and_another_day_are_other_answers(url, tmp_path):
    log = ServedLog(url, tmp_path / "wal", NEVER)
    another_day = forecasts(["A"])
    another_day.as_of[:] = np.datetime64("2024-01-16T21:00", "us")
    answers = [
        forecasts(["A"]),
        forecasts(["A"], window="1e"),
        forecasts(["A"], version="2"),
        another_day,
    ]
    for answer in answers:
        log.record(answer)
    assert log.flush() == 4
    log.close()


def test_answers_forgotten_and_sent_again_are_in_the_log_once(url, tmp_path, monkeypatch):
    monkeypatch.setattr("serving.log.served_log.REMEMBERED", 2)
    log = ServedLog(url, tmp_path / "wal", NEVER)
    for symbols in (["A", "B", "C"], ["D"], ["A"], ["D"]):
        log.record(forecasts(symbols, p_up=0.1 * len(symbols)))
    assert log.pending == 5  # A once more, D not
    assert log.flush() == 4
    assert logged(url)["p_up"].round(6).tolist() == [0.3, 0.3, 0.3, 0.1]  # the first A stands
    log.close()


def test_closing_leaves_everything_in_the_log_and_the_folder_free(url, tmp_path):
    log = ServedLog(url, tmp_path / "wal", NEVER)
    log.record(forecasts(["A"]))
    log.close()
    assert len(logged(url)) == 1
    ServedLog(url, tmp_path / "wal", NEVER).close()


def test_a_log_can_be_closed_by_another_thread_than_opened_it(url, tmp_path):
    log = ServedLog(url, tmp_path / "wal", NEVER)
    closer = threading.Thread(target=log.close)
    closer.start()
    closer.join()
    ServedLog(url, tmp_path / "wal", NEVER).close()


CHILD = """
import sys
import numpy as np
from pathlib import Path
from serving.log.served_log import ServedLog
from test_served_log import forecasts

log = ServedLog(sys.argv[1], Path(sys.argv[2]), 0.02)
for i in range(10**9):
    log.record(forecasts(["A", "B", "C"], window=f"{i:016x}"))
    print(i, flush=True)
"""


def child(code: str, *arguments: object, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{HERE}"},
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def test_after_kill_9_every_acknowledged_answer_is_in_the_log_at_the_next_start(url, tmp_path):
    acknowledged = -1
    for round_ in range(2):
        process = child(CHILD, url, tmp_path / "wal")
        first = acknowledged
        for line in process.stdout:
            acknowledged = max(acknowledged, int(line))
            if acknowledged >= first + 400 * (round_ + 1):
                process.send_signal(signal.SIGKILL)  # and read what it still had printed
        assert process.wait(timeout=10) == -signal.SIGKILL
    log = ServedLog(url, tmp_path / "wal", NEVER)
    assert log.pending == 0
    assert files(tmp_path / "wal") == []
    log.close()
    table = logged(url)
    expected = {(s, f"{i:016x}") for s in "ABC" for i in range(acknowledged + 1)}
    kept = set(zip(table["symbol"], table["window_hash"], strict=True))
    assert expected <= kept
    assert len(kept - expected) <= 3  # an answer written down and never acknowledged
    assert not table.duplicated(["symbol", "window_hash"]).any()


def test_what_a_kill_left_is_moved_at_the_start_even_if_it_was_in_the_log_already(url, tmp_path):
    log = ServedLog(url, tmp_path / "wal", NEVER)
    log.record(forecasts(["A", "B"]))
    left = files(tmp_path / "wal")[0].read_bytes()
    log.close()
    # Killed between the database's commit and the file's end.
    (tmp_path / "wal/00000000000000000001.jsonl").write_bytes(left)
    log = ServedLog(url, tmp_path / "wal", NEVER)
    assert files(tmp_path / "wal") == []
    assert len(logged(url)) == 2
    log.close()


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_torn_last_line_is_skipped_with_a_log_line(url, tmp_path, caplog, cut):
    log = ServedLog(url, tmp_path / "wal", NEVER)
    log.record(forecasts(["A", "B"]))
    log.record(forecasts(["C"]))
    leave_behind(log)
    path = files(tmp_path / "wal")[0]
    path.write_bytes(path.read_bytes()[:-cut])
    with caplog.at_level(logging.WARNING):
        ServedLog(url, tmp_path / "wal", NEVER).close()
    assert logged(url)["symbol"].tolist() == ["A", "B"]
    assert files(tmp_path / "wal") == []
    assert [path.name in message and "torn" in message for message in caplog.messages] == [True]


def test_a_second_process_on_the_folder_is_refused(url, tmp_path):
    process = child(CHILD, url, tmp_path / "wal")
    assert process.stdout.readline() == "0\n"
    try:
        with pytest.raises(StoreError, match="another process"):
            ServedLog(url, tmp_path / "wal", NEVER)
    finally:
        process.kill()
        process.communicate(timeout=10)
    ServedLog(url, tmp_path / "wal", NEVER).close()


def test_a_second_log_in_the_same_process_is_refused(url, tmp_path):
    log = ServedLog(url, tmp_path / "wal", NEVER)
    with pytest.raises(StoreError, match="another process"):
        ServedLog(url, tmp_path / "wal", NEVER)
    log.record(forecasts(["A"]))
    log.close()
    assert len(logged(url)) == 1


def test_postgresql_away_for_a_while_loses_nothing_and_doubles_nothing(server, tmp_path, caplog):
    url = server.new_database()
    log = ServedLog(url, tmp_path / "wal", 0.05)
    log.record(forecasts(["A"]))
    wait_until(lambda: log.pending == 0)
    server.stop()
    try:
        for i in range(20):
            log.record(forecasts(["B", "C"], window=f"{i:02x}"))
            time.sleep(0.01)
        wait_until(lambda: any("wait" in message for message in caplog.messages))
        assert log.pending == 40
        assert log.flush() == 0
        assert log._pause > 0.05
    finally:
        server.start()
    wait_until(lambda: log.pending == 0)
    log.record(forecasts(["D"]))
    log.close()
    table = logged(url)
    assert table["symbol"].value_counts().to_dict() == {"A": 1, "B": 20, "C": 20, "D": 1}
    assert files(tmp_path / "wal") == []


def test_answers_sent_while_postgresql_goes_and_comes_are_all_there(server, tmp_path):
    url = server.new_database()
    log = ServedLog(url, tmp_path / "wal", 0.01)
    ending = threading.Event()
    sent = 0

    def answer() -> None:
        nonlocal sent
        while not ending.is_set():
            log.record(forecasts(["A"], window=f"{sent:04x}"))
            sent += 1
            time.sleep(0.002)

    thread = threading.Thread(target=answer)
    thread.start()
    for _ in range(2):
        time.sleep(0.3)
        server.stop()
        time.sleep(0.2)
        server.start()
    ending.set()
    thread.join()
    wait_until(lambda: log.pending == 0)
    log.close()
    assert logged(url)["window_hash"].tolist() == [f"{i:04x}" for i in range(sent)]


def test_no_database_at_the_start_is_one_message_and_the_files_stay(server, tmp_path):
    url = server.new_database()
    log = ServedLog(url, tmp_path / "wal", NEVER)
    log.record(forecasts(["A"]))
    leave_behind(log)
    server.stop()
    try:
        with pytest.raises(StoreError, match="log_url"):
            ServedLog(url, tmp_path / "wal", NEVER)
    finally:
        server.start()
    assert len(files(tmp_path / "wal")) == 1
    ServedLog(url, tmp_path / "wal", NEVER).close()
    assert len(logged(url)) == 1


def test_what_the_database_refuses_stays_and_is_counted(tmp_path, caplog):
    url = f"sqlite:///{tmp_path}/log.db"
    log = ServedLog(url, tmp_path / "wal", NEVER)
    log.record(forecasts(["A"]))
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE predictions RENAME TO away"))
    assert log.flush() == 0
    assert log.pending == 1
    assert "no such table" in caplog.text
    assert "INSERT" not in caplog.text
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE away RENAME TO predictions"))
    assert log.flush() == 1
    log.close()


FULL_DISK = """
import os, subprocess, sys
from pathlib import Path
from pitwise.errors import StoreError
from serving.log.served_log import ServedLog
from test_served_log import forecasts

url, folder = sys.argv[1], Path(sys.argv[2])
log = ServedLog(url, folder, 3600)
symbols = [f"S{i:03d}" for i in range(100)]
refused = acknowledged = 0
while not refused:
    try:
        log.record(forecasts(symbols, window=f"{acknowledged:016x}"))
        acknowledged += 1
    except StoreError as error:
        refused, message = 1, str(error)
print(acknowledged, message, sep="|")
assert log.pending == 100 * acknowledged
ballast = folder / "ballast"
ballast.unlink()
log.record(forecasts(symbols, window=f"{acknowledged:016x}"))  # there is room again
log.close()
print(sorted(path.name for path in folder.iterdir()))
"""


def in_a_mount(folder: Path, options: str, code: str, *arguments: object) -> subprocess.Popen:
    """Run Python with a small file system of its own mounted at `folder`, 64 kB of it taken."""
    probe = subprocess.run(["unshare", "--mount", "--map-root-user", "true"], capture_output=True)
    if probe.returncode:
        pytest.skip("this machine lets nobody mount in a namespace of their own")
    folder.mkdir()
    mount = f"mount -t tmpfs -o {options} tmpfs {folder}"
    ballast = f"head -c 65536 /dev/zero > {folder}/ballast"
    command = [
        "sh",
        "-c",
        f'{mount} && ({ballast} || true) && exec "$@"',
        "-",
        sys.executable,
        "-c",
        code,
    ]
    return subprocess.Popen(
        ["unshare", "--mount", "--map-root-user", *command, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{HERE}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_on_a_full_disk_no_answer_is_sent_that_is_not_written_down(tmp_path):
    url = f"sqlite:///{tmp_path}/log.db"
    process = in_a_mount(tmp_path / "wal", "size=256k", FULL_DISK, url, tmp_path / "wal")
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    acknowledged, message = printed.splitlines()[0].split("|")
    assert "No space left" in message
    assert "Make room" in message
    assert "torn" in errors  # what fitted of the refused answer
    table = logged(url)
    expected = [f"{i:016x}" for i in range(int(acknowledged) + 1)]
    assert int(acknowledged) >= 2
    assert table["window_hash"].value_counts().to_dict() == dict.fromkeys(expected, 100)


def test_a_folder_that_cannot_be_written_is_one_message_at_the_start(tmp_path):
    code = """
import sys
from pathlib import Path
from pitwise.errors import StoreError
from serving.log.served_log import ServedLog

try:
    ServedLog(sys.argv[1], Path(sys.argv[2]))
except StoreError as error:
    print(error)
"""
    url = f"sqlite:///{tmp_path}/log.db"
    process = in_a_mount(tmp_path / "wal", "ro", code, url, tmp_path / "wal")
    printed, errors = process.communicate(timeout=60)
    assert "Read-only" in printed, errors


@pytest.mark.parametrize("field", ["log_return", "price", "p_up"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_forecast_that_is_no_finite_number_is_refused_and_spoils_nothing(tmp_path, field, value):
    url = f"sqlite:///{tmp_path}/log.db"
    log = ServedLog(url, tmp_path / "wal", NEVER)
    broken = forecasts(["A", "B"])
    getattr(broken, field)[1] = value
    with pytest.raises(StoreError, match="finite"):
        log.record(broken)
    assert log.pending == 0
    log.record(forecasts(["A"]))
    assert log.flush() == 1
    log.close()


def test_threads_that_answer_at_once_lose_nothing_and_write_each_answer_once(url, tmp_path):
    log = ServedLog(url, tmp_path / "wal", 0.01)
    symbols = [f"S{i}" for i in range(20)]
    barrier = threading.Barrier(8)
    errors = []

    def answer(number: int) -> None:
        try:
            barrier.wait()
            for i in range(40):
                log.record(forecasts(symbols, window=f"{i:02x}"))  # the same in every thread
                log.record(forecasts([f"own{number}"], window=f"{i:02x}"))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=answer, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    log.close()
    assert log.pending == 0
    table = logged(url)
    assert len(table) == 20 * 40 + 8 * 40
    assert table.groupby("symbol")["window_hash"].nunique().eq(40).all()


def test_the_whole_market_is_written_down_in_a_few_milliseconds(tmp_path):
    log = ServedLog(f"sqlite:///{tmp_path}/log.db", tmp_path / "wal", NEVER)
    symbols = [f"S{i:03d}" for i in range(500)]
    log.record(forecasts(symbols))

    def best(windows: list[str]) -> float:
        seconds = []
        for window in windows:
            answer = forecasts(symbols, window=window)
            start = time.perf_counter()
            log.record(answer)
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    assert best([f"{i:02x}" for i in range(20)]) < 0.010
    assert best(["0f"] * 20) < 0.002
    log.close()
