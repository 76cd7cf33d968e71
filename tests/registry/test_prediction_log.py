import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
import yaml
from support.project import PROJECT

from pitwise.errors import PitwiseError, StoreError
from pitwise.registry.prediction_log import (
    COLUMNS,
    FROM_CHAMPION,
    PREDICTIONS,
    REQUESTS,
    append,
    forecasts_of,
    insert_requests,
    open_log,
    session_after,
)
from pitwise.stage import load_params
from pitwise.workspace import Workspace
from serving.settings import PredictParams

SERVED_AT = datetime(2024, 1, 2, 22, 30, 15, 123456, tzinfo=UTC)


def predictions(version: str = "1", p_up: float = 0.5, day: int = 2, window: str = "0f") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "symbol": ["A", "B"],
            "as_of": pd.to_datetime([f"2024-01-{day:02d} 21:00"] * 2, utc=True),
            "for_session": [date(2024, 1, day + 1)] * 2,
            "log_return": [0.01, -0.1 / 3],
            "price": [101.0, 99.0],
            "p_up": [p_up] * 2,
            "model_version": version,
            "window_hash": window,
            "served_at": SERVED_AT,
            "not_logged": "x",
        }
    )


@pytest.fixture
def log(url):
    engine = open_log(url)
    yield engine
    engine.dispose()


def logged(engine: sa.Engine) -> pd.DataFrame:
    keys = ["model_version", "as_of", "symbol", "window_hash"]
    return pd.read_sql(sa.select(PREDICTIONS), engine).sort_values(keys, ignore_index=True)


def test_the_file_is_made_with_its_folders(tmp_path):
    engine = open_log(f"sqlite:///{tmp_path}/not/yet/there/log.db")
    assert (tmp_path / "not/yet/there/log.db").is_file()
    assert logged(engine).empty


def test_predictions_are_logged_as_they_were_made(log):
    assert append(log, predictions()) == 2
    table = logged(log)
    later = ["request_id", "caller", "latency_ms", "role", "state", "horizon", "score", "scale"]
    assert table[later].isna().all(axis=None)
    table = table.drop(columns=later)
    made = predictions().drop(columns="not_logged")
    made["for_session"] = pd.to_datetime(made["for_session"])
    table["for_session"] = pd.to_datetime(table["for_session"])
    pd.testing.assert_frame_equal(table, made, check_like=True, check_dtype=False, check_exact=True)


def test_instants_are_read_in_utc_whatever_zone_they_were_written_in(log):
    new_york = timezone(timedelta(hours=-5))
    new_yorks = predictions().assign(as_of=datetime(2024, 1, 2, 16, tzinfo=new_york))
    append(log, new_yorks)
    with log.connect() as connection:
        row = connection.execute(sa.select(PREDICTIONS)).first()
    assert row.as_of == datetime(2024, 1, 2, 21, tzinfo=UTC)
    assert row.as_of.utcoffset() == row.served_at.utcoffset() == timedelta(0)
    assert row.served_at == SERVED_AT
    assert append(log, predictions()) == 0  # the same instants


def test_a_rerun_adds_nothing_and_the_first_made_stands(log):
    append(log, predictions(p_up=0.5))
    assert append(log, predictions(p_up=0.9).assign(served_at=datetime.now(UTC))) == 0
    assert logged(log)["p_up"].tolist() == [0.5, 0.5]
    assert (logged(log)["served_at"] == SERVED_AT).all()


def test_what_is_new_is_added_beside_what_is_there(log):
    append(log, predictions().head(1))
    assert append(log, predictions()) == 1
    assert append(log, predictions(day=3)) == 2
    assert len(logged(log)) == 4


def test_two_versions_stand_side_by_side(log):
    append(log, predictions("1", p_up=0.5))
    assert append(log, predictions("2", p_up=0.6)) == 2
    assert logged(log)["p_up"].tolist() == [0.5, 0.5, 0.6, 0.6]


def test_the_answers_before_and_after_a_corrected_bar_are_both_kept(log):
    append(log, predictions(p_up=0.5, window="0f"))
    assert append(log, predictions(p_up=0.6, window="1e")) == 2
    table = logged(log)
    assert table["window_hash"].tolist() == ["0f", "1e", "0f", "1e"]
    assert table["p_up"].tolist() == [0.5, 0.6, 0.5, 0.6]


def test_nothing_to_log_is_no_error(log):
    assert append(log, predictions().head(0)) == 0


def test_a_log_is_opened_again_as_it_was(url):
    append(open_log(url), predictions())
    assert len(logged(open_log(url))) == 2


AS_OF_0_2 = """
CREATE TABLE predictions (
    symbol VARCHAR NOT NULL, as_of TIMESTAMP WITH TIME ZONE NOT NULL, model_version VARCHAR NOT NULL,
    window_hash VARCHAR NOT NULL, for_session DATE NOT NULL, log_return FLOAT NOT NULL,
    price FLOAT NOT NULL, p_up FLOAT NOT NULL, served_at TIMESTAMP WITH TIME ZONE NOT NULL,
    PRIMARY KEY (symbol, as_of, model_version, window_hash))
"""


def of_0_2(url: str) -> None:
    """A log as version 0.2 has made it, with one forecast."""
    engine = sa.create_engine(url)
    zone = "" if engine.dialect.name == "sqlite" else "+00"
    with engine.begin() as connection:
        connection.execute(sa.text(AS_OF_0_2))
        connection.execute(
            sa.text(
                "INSERT INTO predictions "
                "VALUES ('A', :as_of, '1', '0f', '2024-01-03', 0.01, 101, 0.5, :at)"
            ),
            {
                "as_of": f"2024-01-02 21:00:00.000000{zone}",
                "at": f"2024-01-02 22:30:15.123456{zone}",
            },
        )
    engine.dispose()


def test_a_log_of_0_2_gets_its_columns_and_keeps_its_forecasts(url):
    of_0_2(url)
    log = open_log(url)
    (row,) = logged(log).to_dict("records")
    assert (row["symbol"], row["price"], row["served_at"]) == ("A", 101.0, SERVED_AT)
    assert append(log, predictions().assign(role="champion", request_id="r", state=2**60)) == 1
    assert logged(log)["request_id"].tolist() == [None, "r"]
    assert logged(log)["state"].tolist()[1] == 2**60
    assert logged(log)[["horizon", "score", "scale"]].isna().all(axis=None)
    assert sorted(forecasts_of(log, "1")["score"]) == [-0.1 / 3, 0.01]
    with log.connect() as connection:
        seen = sa.select(PREDICTIONS.c.symbol).where(FROM_CHAMPION).order_by("symbol")
        assert connection.execute(seen).scalars().all() == ["A", "B"]
        connection.execute(sa.insert(REQUESTS), [request()])
    indexes = {index["name"] for index in sa.inspect(log).get_indexes("predictions")}
    assert "predictions_as_of" in indexes
    log.dispose()


OPENS = """
import sys
import threading
from pitwise.registry.prediction_log import open_log

print("ready", flush=True)
sys.stdin.readline()
open_log(sys.argv[1]).dispose()
"""


def test_processes_that_open_a_log_at_once_bring_it_up_once(url):
    of_0_2(url)
    command = [sys.executable, "-c", OPENS, url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen(command, text=True, cwd=PROJECT.root, **pipes) for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    log = open_log(url)
    assert set(logged(log).columns) == set(COLUMNS)
    log.dispose()


def test_one_who_is_about_to_write_holds_up_the_opening_of_an_older_log_for_a_moment_only(tmp_path):
    """SQLite refuses another journal mode at once then, whatever the timeout."""
    url = f"sqlite:///{tmp_path}/log.db"
    of_0_2(url)
    writer = sqlite3.connect(tmp_path / "log.db", check_same_thread=False)
    writer.execute("BEGIN IMMEDIATE")
    threading.Timer(0.5, writer.rollback).start()
    log = open_log(url)
    with log.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    writer.close()
    log.dispose()


def test_sqlite_does_not_stop_readers_while_something_is_written(tmp_path):
    log = open_log(f"sqlite:///{tmp_path}/log.db")
    append(log, predictions())
    with log.connect() as writing:
        writing.exec_driver_sql("BEGIN EXCLUSIVE")
        assert len(logged(log)) == 2
        writing.rollback()
    log.dispose()


def test_a_shadows_forecast_becomes_the_champions_when_it_is_served(log):
    append(log, predictions(p_up=0.5).assign(role="shadow"))
    served = predictions(p_up=0.5).assign(role="champion", request_id="r", served_at=datetime.now(UTC))
    assert append(log, served.head(1)) == 1
    assert logged(log)["role"].tolist() == ["champion", "shadow"]
    assert logged(log)["request_id"].tolist() == ["r", None]
    assert append(log, predictions().assign(role="shadow")) == 0
    assert logged(log)["role"].tolist() == ["champion", "shadow"]


def test_one_forecast_twice_in_one_insert_is_logged_as_the_first(log):
    twice = pd.concat([predictions(p_up=0.5), predictions(p_up=0.9)]).assign(role="champion")
    assert append(log, twice) == 2
    assert logged(log)["p_up"].tolist() == [0.5, 0.5]


def request(**changed) -> dict:
    row = {"received_at": SERVED_AT, "request_id": "r", "caller": "desk", "route": "/v1/predict"}
    row |= {"latency_ms": 1.5, "model_version": "1", "state": 2**60, "n": 1, "windows": "A:0f"}
    return row | {"as_of": datetime(2024, 1, 2, 21, tzinfo=UTC)} | changed


def test_a_scale_that_is_not_known_is_null_and_a_score_ranks(log):
    made = predictions().assign(horizon=5, score=[3.0, -1.0], scale=[0.02, np.nan])
    append(log, made)
    with log.connect() as connection:
        known = sa.select(PREDICTIONS.c.symbol).where(PREDICTIONS.c.scale.is_not(None))
        assert connection.execute(known).scalars().all() == ["A"]
    assert logged(log)["horizon"].tolist() == [5, 5]
    assert forecasts_of(log, "1").set_index("symbol")["score"].to_dict() == {"A": 3.0, "B": -1.0}


def test_requests_are_kept_as_they_were_and_once(log):
    asked = [request(), request(request_id="s", as_of=None, n=0, windows="")]
    insert_requests(log, asked)
    insert_requests(log, [request(caller="another"), *asked])
    insert_requests(log, [])
    with log.connect() as connection:
        rows = connection.execute(sa.select(REQUESTS).order_by("request_id")).mappings().all()
    assert [dict(row) for row in rows] == asked


def test_a_log_of_an_earlier_version_is_one_message_that_says_what_to_do(url):
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE predictions (symbol VARCHAR PRIMARY KEY)"))
    with pytest.raises(StoreError, match=r"window_hash.*served_at.*Move that database away"):
        open_log(url)
    assert [column["name"] for column in sa.inspect(engine).get_columns("predictions")] == ["symbol"]


def test_a_password_is_not_shown_in_the_message_about_an_earlier_version(tmp_path, server):
    url = server.new_database()
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text("CREATE TABLE predictions (symbol VARCHAR PRIMARY KEY)"))
    with pytest.raises(StoreError) as caught:
        open_log(url.replace("pitwise@", "pitwise:s3cret@"))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "not a url",
        "oracle://host/db",
        "postgresql+psycopg://nobody:s3cret@127.0.0.1:1/log",  # nothing listens there
    ],
)
def test_a_url_that_opens_no_log_is_one_clear_message(tmp_path, url):
    workspace = Workspace(tmp_path)
    workspace.params.write_text(yaml.safe_dump({"predict": {"log_url": url, "suspect": "mark"}}))
    with pytest.raises(PitwiseError, match="log_url") as caught:
        open_log(workspace.database_url(load_params(workspace, "predict", PredictParams).log_url))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("close", "session"),
    [
        ("2024-01-02 21:00", date(2024, 1, 3)),
        ("2024-01-12 21:00", date(2024, 1, 16)),  # a weekend and Martin Luther King's day
        ("2024-07-03 17:00", date(2024, 7, 5)),  # closes at one, and then Independence Day
    ],
)
def test_a_forecast_is_for_the_next_session(close, session):
    assert session_after(datetime.fromisoformat(close).replace(tzinfo=UTC)) == session


def test_a_forecast_over_five_sessions_is_for_the_fifth_after():
    friday = datetime(2024, 1, 12, 21, tzinfo=UTC)  # Monday is no session
    assert session_after(friday, 5) == date(2024, 1, 22)
