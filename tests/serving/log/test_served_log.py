"""An answer is written down before it is sent, whatever happens to the process or the disk."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.answered import answered, logged, requests

from pitwise.errors import StoreError
from serving.log.mover import Mover
from serving.log.served_log import ServedLog

ROOT = Path(__file__).resolve().parents[3]
NEVER = 3600.0  # seconds until a file is handed over: the test closes it


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "wal/reader-0"


@pytest.fixture
def log(folder):
    log = ServedLog(folder, NEVER)
    yield log
    log.close()


def written(folder: Path) -> list[dict]:
    """The answers in the files of a folder."""
    paths = sorted([*folder.glob("*.open"), *folder.glob("*.jsonl")])
    return [json.loads(line) for path in paths for line in path.read_bytes().split(b"\n") if line]


def test_an_answer_is_in_a_file_when_it_is_recorded(log, folder):
    log.record(answered(["A", "B"], as_of="2024-01-11T21:00:00Z"))
    (answer,) = written(folder)
    assert answer | {"forecasts": []} == {
        "request_id": "r",
        "caller": "desk",
        "route": "/v1/predict",
        "received_at": "2024-01-12T22:30:15.123456+00:00",
        "latency_ms": 1.5,
        "model_version": "1",
        "state": 2**60,
        "as_of": "2024-01-11T21:00:00Z",
        "n": 2,
        "windows": "A:0f B:0f",
        "forecasts": [],
    }
    assert answer["forecasts"][1] == {
        "symbol": "B",
        "as_of": "2024-01-11T21:00:00Z",
        "window_hash": "0f",
        "for_session": "2024-01-16",
        "horizon": 1,
        "score": 2.5,
        "log_return": 1 / 300,
        "price": 100.1,
        "p_up": 0.5,
        "scale": 0.02,
    }
    assert log.pending == 1


def test_the_audit_trail_has_the_oldest_instant_of_an_answer(log, folder):
    older = answered(["B"], as_of="2024-01-10T21:00:00Z").forecasts
    both = answered(["A"])
    log.record(
        type(both)("r", "", "/v1/forecasts", both.received_at, 1.0, "1", 1, [*both.forecasts, *older])
    )
    assert written(folder)[0]["as_of"] == "2024-01-10T21:00:00Z"


def test_an_answer_without_forecasts_is_a_request_all_the_same(log, folder):
    log.record(answered([]))
    (answer,) = written(folder)
    assert (answer["n"], answer["windows"], answer["as_of"], answer["forecasts"]) == (0, "", None, [])


def test_a_forecast_sent_again_is_written_down_once_and_its_request_each_time(log, folder):
    for symbols in ("AB", "BA", "AC"):
        log.record(answered(symbols, request_id=symbols))
    new = [[row["symbol"] for row in answer["forecasts"]] for answer in written(folder)]
    assert new == [["A", "B"], [], ["C"]]
    assert [answer["windows"] for answer in written(folder)] == ["A:0f B:0f", "B:0f A:0f", "A:0f C:0f"]


def test_another_window_another_version_and_another_day_are_other_forecasts(log, folder):
    log.record(answered(["A"]))
    log.record(answered(["A"], window_hash="1e"))
    log.record(answered(["A"], version="2"))
    log.record(answered(["A"], as_of="2024-01-16T21:00:00Z"))
    assert [len(answer["forecasts"]) for answer in written(folder)] == [1, 1, 1, 1]


def test_forecasts_remembered_are_bounded_and_in_the_log_once_all_the_same(
    log, folder, url, monkeypatch
):
    monkeypatch.setattr("serving.log.served_log.REMEMBERED", 2)
    for number, symbols in enumerate(["ABC", "D", "A", "D"]):
        log.record(answered(symbols, request_id=str(number), p_up=0.1 * len(symbols)))
        assert len(log._seen) <= 4
    assert [len(answer["forecasts"]) for answer in written(folder)] == [3, 1, 1, 0]
    log.close()
    mover = Mover(url, folder.parent)
    mover.step()
    mover.close()
    assert logged(url)["p_up"].round(6).tolist() == [0.3, 0.3, 0.3, 0.1]  # the first A stands


@pytest.mark.parametrize("field", ["log_return", "price", "p_up"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_forecast_that_is_no_finite_number_is_refused_and_spoils_nothing(log, folder, field, value):
    good, bad = answered(["A"]), answered(["B"], **{field: value})
    both = type(good)("r", "", "/", good.received_at, 1.0, "1", 1, [*good.forecasts, *bad.forecasts])
    with pytest.raises(StoreError, match=r"of B that is no finite .* `pitwise model rollback`"):
        log.record(both)
    assert (log.pending, written(folder)) == (0, [])
    log.record(good)
    assert [row["symbol"] for row in written(folder)[0]["forecasts"]] == ["A"]


def test_what_was_written_is_handed_over_after_a_moment(folder, wait_until):
    log = ServedLog(folder, 0.02)
    log.record(answered(["A"]))
    wait_until(lambda: list(folder.glob("*.jsonl")) != [])
    assert list(folder.glob("*.open")) == []
    log.record(answered(["B"]))
    assert log.pending == 2
    for path in folder.glob("*.jsonl"):
        path.unlink()  # moved
    wait_until(lambda: len(list(folder.glob("*.jsonl"))) == 1)
    assert log.pending == 1
    assert log.status.figures == {"pending": 1.0}
    log.close()


def test_a_large_file_is_handed_over_at_once(log, folder, monkeypatch):
    monkeypatch.setattr("serving.log.write_ahead.LARGEST", 1000)
    for i in range(10):
        log.record(answered(["A"], request_id=str(i)))
    sizes = [path.stat().st_size for path in folder.glob("*.jsonl")]
    assert len(sizes) > 1
    assert max(sizes) < 1500
    assert len(written(folder)) == log.pending == 10


def test_closing_hands_everything_over_and_frees_the_folder(log, folder):
    log.record(answered(["A"]))
    log.close()
    assert list(folder.glob("*.open")) == []
    again = ServedLog(folder, NEVER)
    assert len(written(folder)) == 1
    again.close()


def test_a_log_can_be_closed_by_another_thread_than_opened_it(folder):
    log = ServedLog(folder, NEVER)
    closer = threading.Thread(target=log.close)
    closer.start()
    closer.join()
    ServedLog(folder, NEVER).close()


def test_a_second_log_of_the_same_folder_is_refused(log, folder, monkeypatch):
    monkeypatch.setattr("serving.log.write_ahead.LOCK_TRIES", 2)
    with pytest.raises(StoreError, match="another process logs its answers there"):
        ServedLog(folder, NEVER)
    other = ServedLog(folder.with_name("reader-1"), NEVER)
    log.record(answered(["A"]))
    assert len(written(folder)) == 1
    other.close()


RECORDS = """
import sys
from pathlib import Path
from serving.log.served_log import ServedLog
from support.answered import answered

log = ServedLog(Path(sys.argv[1]), 0.02)
for i in range(int(sys.argv[2]), 10**9):
    log.record(answered("ABC", request_id=f"{i:016x}", window_hash=f"{i:016x}"))
    print(i, flush=True)
"""


def test_after_kill_9_every_acknowledged_answer_is_in_the_log(url, folder, child):
    """Killed twice, started again under the same name, and moved by another process all the while."""
    mover = Mover(url, folder.parent)
    acknowledged = -1
    for _ in range(2):
        process = child(RECORDS, folder, acknowledged + 1)
        until = acknowledged + 400
        for line in process.stdout:
            acknowledged = int(line)
            if acknowledged % 100 == 50:
                mover.step()
            if acknowledged == until:
                process.kill()  # and read what it still had printed
        process.wait(timeout=10)
    mover.step()
    assert mover.pending == 0
    mover.close()
    assert written(folder) == []
    table, asked = logged(url), requests(url)
    expected = {f"{i:016x}" for i in range(acknowledged + 1)}
    kept = set(zip(table["symbol"], table["window_hash"], strict=True))
    assert {(symbol, window) for symbol in "ABC" for window in expected} <= kept
    assert len(kept) <= 3 * len(expected) + 6  # an answer written down and never acknowledged
    assert expected <= set(asked["request_id"])
    assert not table.duplicated(["symbol", "window_hash"]).any()
    assert not asked.duplicated("request_id").any()


def test_a_process_of_the_same_name_beside_it_is_refused(folder, child):
    process = child(RECORDS, folder, 0)
    assert process.stdout.readline() == "0\n"
    with pytest.raises(StoreError, match="another process"):
        ServedLog(folder, NEVER)
    process.kill()
    process.wait(timeout=10)
    ServedLog(folder, NEVER).close()


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_torn_last_line_is_skipped_with_a_log_line(url, folder, caplog, cut):
    log = ServedLog(folder, NEVER)
    log.record(answered(["A", "B"], request_id="whole"))
    log.record(answered(["C"], request_id="torn"))
    log.close()
    (path,) = folder.glob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-cut])
    mover = Mover(url, folder.parent)
    with caplog.at_level(logging.WARNING):
        assert mover.step() == 1
    mover.close()
    assert logged(url)["symbol"].tolist() == ["A", "B"]
    assert requests(url)["request_id"].tolist() == ["whole"]
    assert written(folder) == []
    assert [path.name in message and "torn" in message for message in caplog.messages] == [True]


def test_a_process_that_records_loads_no_database_and_no_pandas(folder):
    code = f"""
import sys
from pathlib import Path
from serving.log.served_log import ServedLog

ServedLog(Path({str(folder)!r})).close()
heavy = {{"pandas", "sqlalchemy", "numpy", "pyarrow", "mlflow", "feast"}}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


FULL_DISK = """
import os, subprocess, sys
from pathlib import Path
from pitwise.errors import StoreError
from serving.log.served_log import ServedLog
from support.answered import answered

folder = Path(sys.argv[1])
log = ServedLog(folder, 3600)
log.writable()
symbols = [f"S{i:03d}" for i in range(100)]
refused = acknowledged = 0
while not refused:
    try:
        number = f"{acknowledged:016x}"
        log.record(answered(symbols, request_id=number, window_hash=number))
        acknowledged += 1
    except StoreError as error:
        refused, message = 1, str(error)
try:
    log.writable()
except StoreError as error:
    message += "|" + str(error)
print(acknowledged, message, sep="|")
assert log.pending == acknowledged
(folder / "ballast").unlink()
log.writable()  # there is room again
number = f"{acknowledged:016x}"
log.record(answered(symbols, request_id=number, window_hash=number))
log.close()
print(sorted(path.suffix or path.name for path in folder.iterdir()))
from serving.log.mover import Mover
print(Mover(sys.argv[2], folder.parent).step())
"""


def in_a_mount(folder: Path, options: str, code: str, *arguments: object) -> subprocess.Popen:
    """Run Python with a small file system of its own mounted at `folder`, 128 kB of it taken."""
    probe = subprocess.run(["unshare", "--mount", "--map-root-user", "true"], capture_output=True)
    if probe.returncode:
        pytest.skip("this machine lets nobody mount in a namespace of their own")
    folder.mkdir(parents=True)
    mount = f"mount -t tmpfs -o {options} tmpfs {folder}"
    ballast = f"head -c 131072 /dev/zero > {folder}/ballast"
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
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_on_a_full_disk_no_answer_is_sent_that_is_not_written_down(folder, tmp_path):
    url = f"sqlite:///{tmp_path}/log.db"
    process = in_a_mount(folder, "size=512k", FULL_DISK, folder, url)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    first, left, moved = printed.splitlines()
    acknowledged, message, not_writable = first.split("|")
    for said in (message, not_writable):
        assert "No space left" in said
        assert "Make room" in said
    assert left == "['.jsonl', 'lock']"
    assert "torn" in errors  # what fitted of the refused answer
    expected = [f"{i:016x}" for i in range(int(acknowledged) + 1)]
    assert int(acknowledged) >= 2
    assert moved == str(len(expected))
    assert logged(url)["window_hash"].value_counts().to_dict() == dict.fromkeys(expected, 100)
    assert requests(url)["request_id"].tolist() == expected


def test_a_folder_that_cannot_be_written_is_one_message_at_the_start(folder):
    code = """
import sys
from pathlib import Path
from pitwise.errors import StoreError
from serving.log.served_log import ServedLog

try:
    ServedLog(Path(sys.argv[1]))
except StoreError as error:
    print(error)
"""
    process = in_a_mount(folder, "ro", code, folder)
    printed, errors = process.communicate(timeout=60)
    assert "Read-only" in printed, errors


def test_what_is_probed_leaves_nothing_behind(log, folder):
    log.writable()
    log.writable()
    assert [path.name for path in folder.iterdir()] == ["lock"]


def test_threads_that_answer_at_once_lose_nothing_and_write_each_forecast_once(url, folder):
    log = ServedLog(folder, 0.01)
    symbols = [f"S{i}" for i in range(20)]
    barrier = threading.Barrier(8)
    errors = []

    def answer(number: int) -> None:
        try:
            barrier.wait()
            for i in range(40):
                window = f"{i:02x}"
                log.record(answered(symbols, request_id=f"{number}-{i}", window_hash=window))
                log.record(answered([f"own{number}"], f"own{number}-{i}", window_hash=window))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=answer, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    log.close()
    new = sum(len(answer["forecasts"]) for answer in written(folder))
    assert new == 20 * 40 + 8 * 40
    mover = Mover(url, folder.parent)
    assert mover.step() == 8 * 40 * 2
    mover.close()
    assert log.pending == 0
    assert logged(url).groupby("symbol")["window_hash"].nunique().eq(40).all()
    assert len(requests(url)) == 8 * 40 * 2


def test_recording_costs_little(log):
    """About 10 us for one forecast and half a millisecond for the market, on an idle machine."""
    one = answered(["A"])
    market = [f"S{i:03d}" for i in range(500)]

    def best(answers) -> float:
        seconds = []
        for answer in answers:
            start = time.perf_counter()
            log.record(answer)
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    assert best([one] * 200) < 100e-6
    assert best([answered(market, window_hash=f"{i:02x}") for i in range(20)]) < 10e-3
