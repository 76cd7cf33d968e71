"""Rows in a real Redis: a key space for each workspace, and writes that compare instants."""

import asyncio
import itertools
import shutil
import socket
import threading
from datetime import timedelta
from pathlib import Path

import hypothesis.strategies as st
import pandas as pd
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource, ValueType
from feast.data_source import PushMode
from feast.types import Float64
from hypothesis import given, settings
from pydantic import ValidationError
from support.servers import Redis, redis

from feature_repo.online_store import (
    OWNER_FILE,
    WorkspaceRedisOnlineStore,
    WorkspaceRedisOnlineStoreConfig,
    key_space,
)
from pitwise.features.errors import ForeignStoreError, StaleWriteError
from pitwise.workspace import write_parquet

CLOSE = pd.Timestamp("2014-01-03 21:00", tz="UTC")
DAY = pd.Timedelta(days=1)
FEAST = """
project: market
provider: local
registry: ../registry.db
offline_store:
  type: feature_repo.offline_store.AsofDuckDBOfflineStore
online_store:
  type: feature_repo.online_store.WorkspaceRedisOnlineStore
  connection_string: {address},retry=null,socket_timeout=5
entity_key_serialization_version: 3
materialization:
  pull_latest_features: true
"""


@pytest.fixture(scope="module")
def server():
    with redis() as running:
        yield running


def rows_of(*versions: tuple[str, float, float, float | None]) -> pd.DataFrame:
    """(symbol, day, creation in days, close or None for a withdrawal) as a table."""
    rows = [(s, CLOSE + e * DAY, CLOSE + c * DAY, v) for s, e, c, v in versions]
    table = pd.DataFrame(rows, columns=["symbol", "event_timestamp", "created", "close"])
    instants = dict.fromkeys(("event_timestamp", "created"), "datetime64[us, UTC]")
    return table.astype({"symbol": "string", "close": "float64"}).astype(instants)


def opened(root: Path, server: Redis, workspace: str | None = None) -> FeatureStore:
    """The store of a workspace with one view, `daily`, of one feature, `close`."""
    repo = root / "feature_repo"
    if not repo.exists():
        repo.mkdir(parents=True)
        write_parquet(rows_of(("A", 0, 0, 1.0)), root / "daily.parquet")
    name = f"  workspace: {workspace}\n" if workspace else ""
    text = FEAST.format(address=server.address).replace("entity_key", f"{name}entity_key")
    (repo / "feature_store.yaml").write_text(text)
    source = FileSource(
        name="daily",
        path=str(root / "daily.parquet"),
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
    )
    daily = FeatureView(
        name="daily",
        entities=[Entity(name="symbol", value_type=ValueType.STRING)],
        ttl=timedelta(days=36500),
        schema=[Field(name="close", dtype=Float64)],
        source=PushSource(name="daily_push", batch_source=source),
    )
    store = FeatureStore(str(repo))
    store.apply([Entity(name="symbol", value_type=ValueType.STRING), daily])
    return store


@pytest.fixture
def store(tmp_path, server) -> FeatureStore:
    return opened(tmp_path / "ours", server)


def push(store: FeatureStore, *versions) -> None:
    store.push("daily_push", rows_of(*versions), to=PushMode.ONLINE)


def held(store: FeatureStore, symbol: str = "A") -> tuple[float | None, float | None]:
    """The close online, and the day that it is of."""
    answer = store.get_online_features(["daily:close"], [{"symbol": symbol}])
    answer = answer.to_dict(include_event_timestamps=True)
    (close,), (seconds,) = answer["close"], answer["close__ts"]
    day = (pd.Timestamp(seconds, unit="s", tz="UTC") - CLOSE) / DAY if seconds else None
    return close, day


# One Redis, several workspaces


def test_workspaces_of_one_redis_keep_their_own_rows(tmp_path, server):
    stores = [opened(tmp_path / place, server) for place in ("one/project", "two/project", "three")]
    for number, store in enumerate(stores):
        push(store, ("A", 0, 0, float(number)))
    assert [held(store)[0] for store in stores] == [0.0, 1.0, 2.0]
    spaces = [key_space(store.config) for store in stores]
    assert len(set(spaces)) == 3
    assert [space.rpartition("-")[0] for space in spaces] == ["market.project"] * 2 + ["market.three"]


def test_a_folder_with_any_name_has_a_key_space(tmp_path, server):
    store = opened(tmp_path / "die Börse [*]", server)
    push(store, ("A", 0, 0, 3.0))
    assert held(store) == (3.0, 0)
    assert key_space(store.config).startswith("market.die-B-rse-")


def test_a_moved_folder_has_another_key_space(tmp_path, server):
    store = opened(tmp_path / "before", server)
    push(store, ("A", 0, 0, 1.0))
    shutil.move(tmp_path / "before", tmp_path / "after")
    assert held(FeatureStore(str(tmp_path / "after/feature_repo"))) == (None, None)


def test_a_link_to_the_folder_is_the_folder(tmp_path, server):
    store = opened(tmp_path / "project", server)
    push(store, ("A", 0, 0, 1.0))
    (tmp_path / "link").symlink_to(tmp_path / "project")
    linked = FeatureStore(str(tmp_path / "link/feature_repo"))
    push(linked, ("A", 1, 1, 2.0))
    assert held(store) == held(linked) == (2.0, 1)


def test_another_workspace_of_the_same_name_is_refused_with_what_to_do(tmp_path, server):
    ours, theirs = (opened(tmp_path / place, server, "shared") for place in ("ours", "theirs"))
    push(ours, ("A", 0, 0, 1.0))
    who = rf"127\.0\.0\.1:{server.port}: key space 'market\.shared' belongs to the workspace "
    who += rf"{tmp_path}/ours on {socket.gethostname()}\. .*`workspace:`.*DEL market\.shared:owner"
    online = WorkspaceRedisOnlineStore()
    for refused in (
        lambda: push(theirs, ("A", 1, 1, 2.0)),
        lambda: push(theirs, ("B", 1, 1, 2.0)),
        lambda: online.published(theirs.config),
        lambda: online.mark(theirs.config, "publication"),
        theirs.teardown,
    ):
        with pytest.raises(ForeignStoreError, match=who):
            refused()
    assert held(ours) == (1.0, 0)
    assert held(ours, "B") == (None, None)
    ours.teardown()
    again = opened(tmp_path / "theirs", server, "shared")
    push(again, ("A", 1, 1, 2.0))
    assert held(again) == (2.0, 1)
    online.disconnect()


@pytest.fixture
def elsewhere(monkeypatch):
    """This host, with another name."""
    return lambda: monkeypatch.setattr(socket, "gethostname", lambda: "another-host")


def test_a_container_that_got_another_host_name_is_the_same_workspace(tmp_path, server, elsewhere):
    store = opened(tmp_path / "app", server, "container")
    push(store, ("A", 0, 0, 1.0))
    elsewhere()
    push(store, ("A", 1, 1, 2.0))
    assert held(store) == (2.0, 1)


def test_a_folder_that_lost_its_id_is_the_same_workspace_on_its_host_alone(tmp_path, server, elsewhere):
    store = opened(tmp_path / "app", server, "no_id")
    push(store, ("A", 0, 0, 1.0))
    (tmp_path / "app" / OWNER_FILE).unlink()
    push(store, ("A", 1, 1, 2.0))
    assert held(store) == (2.0, 1)
    (tmp_path / "app" / OWNER_FILE).unlink()
    elsewhere()
    with pytest.raises(ForeignStoreError):
        push(store, ("A", 2, 2, 3.0))


def test_a_copy_of_the_folder_is_another_workspace(tmp_path, server):
    store = opened(tmp_path / "project", server, "copied")
    push(store, ("A", 0, 0, 1.0))
    shutil.copytree(tmp_path / "project", tmp_path / "copy")
    with pytest.raises(ForeignStoreError, match="project on"):
        push(FeatureStore(str(tmp_path / "copy/feature_repo")), ("A", 1, 1, 2.0))


def test_teardown_deletes_the_rows_of_its_workspace_alone(tmp_path, server):
    ours, theirs = (opened(tmp_path / place, server, place) for place in ("ours", "not-ours"))
    # Feast finds a project's keys by how they end.
    suffixed = opened(tmp_path / "suffixed", server, "ours")
    text = (tmp_path / "suffixed/feature_repo/feature_store.yaml").read_text()
    (tmp_path / "suffixed/feature_repo/feature_store.yaml").write_text(
        text.replace("project: market", "project: super_market")
    )
    suffixed = FeatureStore(str(tmp_path / "suffixed/feature_repo"))
    suffixed.apply([Entity(name="symbol", value_type=ValueType.STRING), *ours.list_feature_views()])
    for number, store in enumerate((ours, theirs, suffixed)):
        push(store, ("A", 0, 0, float(number)))
    before = set(server_keys(server))
    ours.teardown()
    gone = before - set(server_keys(server))
    assert {key.rpartition(b":")[2] for key in gone} == {b"market.ours", b"owner"}
    assert len(gone) == 2
    assert [held(store)[0] for store in (theirs, suffixed)] == [1.0, 2.0]


def server_keys(server: Redis) -> list[bytes]:
    import redis as client

    with client.Redis(port=server.port) as connection:
        return connection.keys()


def test_a_view_that_is_no_longer_defined_is_deleted_without_a_trace(store, server):
    push(store, ("A", 0, 5, 1.0))
    store.apply([], objects_to_delete=store.list_feature_views(), partial=False)
    assert [key for key in server_keys(server) if key.endswith(key_space(store.config).encode())] == []


def test_an_asynchronous_write_goes_the_same_way(store):
    push(store, ("A", 1, 1, 1.0))
    asyncio.run(store.push_async("daily_push", rows_of(("A", 2, 2, 2.0)), to=PushMode.ONLINE))
    assert held(store) == (2.0, 2)
    with pytest.raises(StaleWriteError):
        asyncio.run(store.push_async("daily_push", rows_of(("A", 1, 1, 3.0)), to=PushMode.ONLINE))


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({"redis_type": "redis_cluster"}, "use one server"),
        ({"key_ttl_seconds": 60}, "rows must not expire"),
        ({"workspace": "two words"}, "pattern"),
        ({"workspace": "*"}, "pattern"),
    ],
)
def test_settings_that_cannot_be_kept_are_refused(setting, reason):
    with pytest.raises(ValidationError, match=reason):
        WorkspaceRedisOnlineStoreConfig(**setting)


# What is known later wins


def test_a_row_known_later_replaces_what_is_there_be_it_newer_or_older(store):
    push(store, ("A", 1, 1.0, 1.0))
    push(store, ("A", 1, 1.5, 2.0))  # a correction has the instant of what it corrects
    assert held(store) == (2.0, 1)
    push(store, ("A", 2, 2.0, 3.0))
    push(store, ("A", 1, 2.5, 2.0))  # day 2 withdrawn: the newest row that stands is the one before it
    assert held(store) == (2.0, 1)


@pytest.mark.parametrize("late", [("A", 1, 1.9, 9.0), ("A", 3, 1.9, 9.0), ("A", 1, 2.0, 9.0)])
def test_a_row_known_earlier_or_of_an_earlier_instant_is_an_error_and_changes_nothing(store, late):
    push(store, ("A", 2, 2.0, 1.0), ("B", 0, 0.0, 1.0))
    with pytest.raises(StaleWriteError, match=r"'daily' has of A is known since 2014-01-05 21:00:00"):
        push(store, ("B", 5, 5.0, 2.0), late)
    assert held(store) == (1.0, 2)
    assert held(store, "B") == (1.0, 0)


def test_the_same_instants_again_are_written(store):
    push(store, ("A", 1, 1, 1.0))
    push(store, ("A", 1, 1, 2.0))
    assert held(store) == (2.0, 1)


def test_of_several_rows_of_a_batch_the_one_known_last_is_written(store):
    push(store, ("A", 1, 3, 3.0), ("A", 2, 2, 2.0), ("A", 0, 3, 1.0))
    assert held(store) == (3.0, 1)


def test_a_microsecond_later_is_later(store):
    moment = 1 / 86_400_000_000
    push(store, ("A", 1, 4000 + 2 * moment, 1.0))
    with pytest.raises(StaleWriteError):
        push(store, ("A", 1, 4000 + moment, 2.0))
    push(store, ("A", 1, 4000 + 3 * moment, 3.0))
    assert held(store) == (3.0, 1)


def test_instants_of_before_1970_are_compared_as_such(store):
    past = -20_000
    push(store, ("A", past, past, 1.0))
    with pytest.raises(StaleWriteError):
        push(store, ("A", past, past - 1, 2.0))
    push(store, ("A", past, past + 1, 3.0))
    assert held(store) == (3.0, past)


NUMBER = itertools.count()
PUSHES = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from([1.0, 2.0])), max_size=8
)


@settings(max_examples=60, deadline=None)
@given(PUSHES)
def test_whatever_the_order_of_pushes_the_row_known_last_is_online(property_store, pushes):
    symbol, seen = f"P{next(NUMBER)}", None
    for day, created, close in pushes:
        row = (created, day, close)
        is_late = seen is not None and row[:2] < seen[:2]
        if is_late and (day, close) != seen[1:]:
            with pytest.raises(StaleWriteError):
                push(property_store, (symbol, day, created, close))
        else:
            push(property_store, (symbol, day, created, close))
        if not is_late:
            seen = row
        assert held(property_store, symbol) == (seen[2], seen[1])


@pytest.fixture(scope="module")
def property_store(tmp_path_factory, server) -> FeatureStore:
    return opened(tmp_path_factory.mktemp("property") / "project", server)


def test_of_writers_at_once_none_puts_back_what_another_knew_later(tmp_path, server):
    stores = [opened(tmp_path / "project", server) for _ in range(4)]
    errors, started = [], threading.Barrier(4)
    last = 30

    def write(number: int) -> None:
        started.wait()
        for created in range(number, last, 2):
            try:
                push(stores[number], *((s, 0, created, float(created * 10 + number)) for s in "ABC"))
            except Exception as error:
                errors.append(error)

    writers = [threading.Thread(target=write, args=[number]) for number in range(3)]
    for writer in writers:
        writer.start()
    seen = []
    started.wait()
    while any(writer.is_alive() for writer in writers):
        close, _ = held(stores[3])
        if close is not None:
            seen.append(close // 10)
    for writer in writers:
        writer.join()
    assert {type(error) for error in errors} <= {StaleWriteError}
    assert seen == sorted(seen)
    assert {held(stores[3], symbol)[0] // 10 for symbol in "ABC"} == {last - 1}
    assert len({held(stores[3], symbol)[0] for symbol in "ABC"}) == 1  # a batch is written as one


# What is published is right whatever was pushed before


def materialize(store: FeatureStore, known: float) -> None:
    store.config.online_store.materialized_at = (CLOSE + known * DAY).to_pydatetime()
    try:
        store.materialize(start_date=CLOSE - DAY, end_date=CLOSE + 9 * DAY, feature_views=["daily"])
    finally:
        store.config.online_store.materialized_at = None


def test_materialized_rows_replace_later_ones_and_are_known_since_their_publication(store, tmp_path):
    push(store, ("A", 2, 8, 7.0))
    write_parquet(rows_of(("A", 1, 1, 5.0), ("B", 1, 1, 6.0)), tmp_path / "ours/daily.parquet")
    materialize(store, known=4)
    assert held(store) == (5.0, 1)
    for symbol in "AB":  # what another process has computed of less than was published
        with pytest.raises(StaleWriteError):
            push(store, (symbol, 2, 3, 8.0))
    push(store, ("A", 2, 4.5, 9.0))
    assert held(store) == (9.0, 2)


def test_the_command_materialize_leaves_rows_that_are_there_and_fills_in_the_others(store, tmp_path):
    rows = rows_of(("A", 1, 1, 5.0), ("B", 1, 1, 6.0))
    write_parquet(rows, tmp_path / "ours/daily.parquet")
    materialize(store, known=4)
    write_parquet(pd.concat([rows, rows_of(("C", 1, 1, 7.0))]), tmp_path / "ours/daily.parquet")
    store.materialize(start_date=CLOSE - DAY, end_date=CLOSE + 9 * DAY, feature_views=["daily"])
    assert [held(store, symbol) for symbol in "ABC"] == [(5.0, 1), (6.0, 1), (7.0, 1)]


def test_more_rows_than_one_script_writes_are_all_written(store, monkeypatch):
    monkeypatch.setattr("feature_repo.online_store.ROWS", 7)
    symbols = [f"S{i}" for i in range(24)]
    push(store, *((symbol, 1, 1, float(i)) for i, symbol in enumerate(symbols)))
    assert [held(store, symbol)[0] for symbol in symbols] == [float(i) for i in range(24)]
