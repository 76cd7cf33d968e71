"""Old requests go to monthly files, once each; forecasts and newer requests stay."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from support.answered import requests

from pitwise.errors import StoreError
from pitwise.registry.prediction_log import append, insert_requests, open_log
from pitwise.workspace import Workspace
from serving.log import compact as module
from serving.log.compact import ARCHIVE, compact

NOW = datetime(2024, 6, 15, 12, tzinfo=UTC)


def request(at: datetime, number: int = 0) -> dict:
    return {
        "received_at": at,
        "request_id": f"{at:%m%d}-{number:03d}",
        "caller": "desk",
        "route": "/v1/predict",
        "latency_ms": 1.5,
        "model_version": "1",
        "state": 2**60,
        "as_of": None if number % 2 else at - timedelta(hours=1),
        "n": 1,
        "windows": f"A:{number:02x}",
    }


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def log(url):
    """Four requests a day at noon, from 20 March to 10 June, and one forecast."""
    engine = open_log(url)
    days = [datetime(2024, 3, 20, 12, tzinfo=UTC) + timedelta(days=i) for i in range(83)]
    insert_requests(engine, [request(day, number) for day in days for number in range(4)])
    row = {"symbol": "A", "as_of": days[0], "model_version": "1", "window_hash": "0f"}
    row |= {"for_session": days[1].date(), "served_at": days[0]}
    append(engine, pd.DataFrame([row | {"log_return": 0.01, "price": 101.0, "p_up": 0.5}]))
    yield engine
    engine.dispose()


def archived(workspace: Workspace) -> dict[str, pd.DataFrame]:
    paths = sorted((workspace.root / ARCHIVE).glob("*"))
    return {path.name: pd.read_parquet(path) for path in paths}


def test_requests_beyond_the_days_go_to_their_months(workspace, url, log):
    before = requests(url)
    done = compact(workspace, url, 30, NOW)  # older than noon of 16 May: 20 March to 15 May
    files = archived(workspace)
    assert list(files) == done.files
    assert {name: len(table) for name, table in files.items()} == {
        "requests-2024-03.parquet": 12 * 4,
        "requests-2024-04.parquet": 30 * 4,
        "requests-2024-05.parquet": 15 * 4,
    }
    assert (done.archived, done.kept) == (57 * 4, 26 * 4)
    kept = requests(url)
    assert kept["received_at"].min() == pd.Timestamp("2024-05-16T12:00Z")
    together = pd.concat([*files.values(), kept]).sort_values("request_id", ignore_index=True)
    together["received_at"] = together["received_at"].astype(before["received_at"].dtype)
    together["as_of"] = together["as_of"].astype(before["as_of"].dtype)
    pd.testing.assert_frame_equal(together, before, check_dtype=False)
    with log.connect() as connection:
        assert connection.execute(sa.text("select count(*) from predictions")).scalar() == 1


def test_later_runs_add_to_the_month_that_is_there(workspace, url, log):
    for day in (10, 12, 15):
        compact(workspace, url, 30, NOW.replace(day=day))
    table = archived(workspace)["requests-2024-05.parquet"]
    assert len(table) == table["request_id"].nunique() == 15 * 4
    assert table["received_at"].is_monotonic_increasing
    assert compact(workspace, url, 30, NOW).archived == 0


def test_without_days_nothing_is_moved(workspace, url, log):
    done = compact(workspace, url, None, NOW)
    assert (done.archived, done.files, done.kept) == (0, [], 83 * 4)
    assert archived(workspace) == {}


def test_an_empty_log_is_compacted(workspace, url):
    assert compact(workspace, url, 1, NOW).kept == 0


def test_what_is_interrupted_before_the_commit_is_in_the_archive_once(workspace, url, log, monkeypatch):
    whole = module._archive

    def killed(path, parts) -> bool:
        whole(path, parts)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_archive", killed)
    with pytest.raises(KeyboardInterrupt):
        compact(workspace, url, 30, NOW)
    assert len(requests(url)) == 83 * 4
    assert len(archived(workspace)["requests-2024-03.parquet"]) == 12 * 4
    monkeypatch.undo()
    assert compact(workspace, url, 30, NOW).archived == 57 * 4
    assert sum(map(len, archived(workspace).values())) == 57 * 4


def test_a_late_request_of_an_archived_month_is_added(workspace, url, log):
    compact(workspace, url, 30, NOW)
    insert_requests(log, [request(datetime(2024, 3, 25, 12, tzinfo=UTC), 900)])
    assert compact(workspace, url, 30, NOW).archived == 1
    table = archived(workspace)["requests-2024-03.parquet"]
    assert len(table) == table["request_id"].nunique() == 12 * 4 + 1


def test_rows_are_read_a_batch_at_a_time(workspace, url, log, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 50)
    compact(workspace, url, 30, NOW)
    file = pq.ParquetFile(workspace.root / ARCHIVE / "requests-2024-04.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [50, 50, 20]


def test_the_room_is_given_back(workspace, tmp_path):
    url = f"sqlite:///{tmp_path}/log.db"
    engine = open_log(url)
    first = datetime(2024, 1, 1, tzinfo=UTC)
    rows = [
        request(first + timedelta(seconds=i), i) | {"windows": "A:0123456789abcdef " * 20}
        for i in range(5000)
    ]
    insert_requests(engine, rows)
    engine.dispose()

    def size() -> int:
        return sum(path.stat().st_size for path in Path(tmp_path).glob("log.db*"))

    before = size()
    compact(workspace, url, 30, NOW)
    assert size() < before / 10


def test_requests_that_come_meanwhile_are_kept(workspace, url, log):
    """A process goes on adding old requests: each is in the log or in the archive."""
    ending = threading.Event()
    added = []

    def add() -> None:
        engine = open_log(url)
        while not ending.is_set():
            row = request(datetime(2024, 4, 2, tzinfo=UTC) + timedelta(seconds=len(added)), len(added))
            row["request_id"] = f"late-{len(added)}"
            insert_requests(engine, [row])
            added.append(row["request_id"])
        engine.dispose()

    thread = threading.Thread(target=add)
    thread.start()
    try:
        for day in (11, 13, 15):
            compact(workspace, url, 30, NOW.replace(day=day))
    finally:
        ending.set()
        thread.join()
    found = pd.concat([*archived(workspace).values(), requests(url)])["request_id"]
    assert not found.duplicated().any()
    assert set(added) <= set(found)
    assert len(found) == 83 * 4 + len(added)


def test_a_log_that_does_not_answer_is_one_message(workspace, server):
    url = server.new_database()
    open_log(url).dispose()
    server.stop()
    try:
        with pytest.raises(StoreError, match="opens no prediction log"):
            compact(workspace, url, 30, NOW)
    finally:
        server.start()
