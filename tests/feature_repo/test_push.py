"""Rows pushed to Feast: read like the stages' own, kept apart from them, written beside readers."""

import itertools
import shutil
import sqlite3
import threading
from datetime import timedelta
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource, ValueType
from feast.data_source import PushMode
from feast.types import Float64
from hypothesis import given, settings
from support import small_runs as small

from feature_repo import publish
from feature_repo.offline_store import AsofDuckDBOfflineStore
from feature_repo.store import open_store
from pitwise.bars.calendar import next_session, session_close
from pitwise.features.daily import daily_features
from pitwise.features.history import CREATED
from pitwise.features.indicators import NAMES
from pitwise.features.windows import packed, unpacked
from pitwise.workspace import Workspace, pushed_folder, write_json, write_parquet

CLOSE = pd.Timestamp("2014-01-03 21:00", tz="UTC")
DAY = pd.Timedelta(days=1)
SYMBOLS = ["A", "B", "C"]
COLUMNS = ["symbol", "event_timestamp", "created", "close"]


def rows_of(versions) -> pd.DataFrame:
    """(symbol, day, creation in days after CLOSE, close or None for a withdrawal) as a table."""
    rows = [(s, CLOSE + e * DAY, CLOSE + c * DAY, v) for s, e, c, v in versions]
    table = pd.DataFrame(rows, columns=COLUMNS).astype({"symbol": "string", "close": "float64"})
    return table.astype(dict.fromkeys(("event_timestamp", "created"), "datetime64[us, UTC]"))


def opened(folder: Path, batch: pd.DataFrame) -> FeatureStore:
    """A store of one view over a file, with a push source."""
    folder.mkdir(parents=True, exist_ok=True)
    write_parquet(batch, folder / "daily.parquet")
    symbol = Entity(name="symbol", value_type=ValueType.STRING)
    source = FileSource(
        name="daily",
        path=str(folder / "daily.parquet"),
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
    )
    daily = FeatureView(
        name="daily",
        entities=[symbol],
        ttl=timedelta(days=36500),
        schema=[Field(name="close", dtype=Float64)],
        source=PushSource(name="daily_push", batch_source=source),
    )
    (folder / "feature_store.yaml").write_text(
        "project: market\nprovider: local\nregistry: registry.db\n"
        "offline_store:\n  type: feature_repo.offline_store.AsofDuckDBOfflineStore\n"
        "online_store:\n  type: sqlite\n  path: online.db\n"
        "entity_key_serialization_version: 3\nmaterialization:\n  pull_latest_features: true\n"
    )
    store = FeatureStore(str(folder))
    store.apply([symbol, daily])
    return store


def pulled(store: FeatureStore, method, *columns: str) -> list[tuple]:
    """What a pull of the whole history brings, sorted, NaN as None."""
    job = method(
        config=store.config,
        data_source=store.get_feature_view("daily").batch_source,
        join_key_columns=["symbol"],
        feature_name_columns=["close"],
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
        start_date=(CLOSE - 99 * DAY).to_pydatetime(),
        end_date=(CLOSE + 99 * DAY).to_pydatetime(),
    )
    return in_order(job.to_df()[list(columns)])


def in_order(rows: pd.DataFrame) -> list[tuple]:
    plain = rows.astype(object).where(rows.notna(), None)
    return sorted(plain.itertuples(index=False, name=None), key=repr)


def seen_last(rows: pd.DataFrame, symbol: str, instant: pd.Timestamp) -> float | None:
    """The close of the newest row at or before an instant whose version created last has one."""
    past = rows[rows["event_timestamp"] <= instant]
    standing = {name: close for name, _, close in still_standing(past)}
    return standing.get(symbol)


def still_standing(rows: pd.DataFrame) -> list[tuple]:
    """Each symbol's newest row whose version created last has a close."""
    versions = {}
    for row in rows.sort_values("created").to_dict("records"):
        versions[row["symbol"], row["event_timestamp"]] = row["close"]
    newest = {}
    for symbol, instant in sorted(versions):
        if pd.notna(versions[symbol, instant]):
            newest[symbol] = (symbol, instant, versions[symbol, instant])
    return sorted(newest.values(), key=repr)


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> FeatureStore:
    return opened(tmp_path_factory.mktemp("market"), rows_of([("A", 0, 0, 1.0)]))


FEW = st.integers(0, 4)
VERSIONS = st.dictionaries(  # (symbol, day, creation): the value then known, and which push brought it
    st.tuples(st.sampled_from(SYMBOLS), FEW, FEW),
    st.tuples(st.one_of(st.none(), st.floats(1, 99)), st.sampled_from(["batch", 1, 2, 3])),
    min_size=8,
)


@given(VERSIONS, FEW)
@settings(deadline=None, max_examples=12)
def test_pushed_and_batch_rows_are_read_as_a_slow_reader_reads_them_together(market, versions, cutoff):
    path = market.repo_path / "daily.parquet"
    shutil.rmtree(pushed_folder(path), ignore_errors=True)
    together = rows_of([(*key, value) for key, (value, _) in versions.items()])
    place = np.array([str(where) for _, where in versions.values()])
    batch = together[place == "batch"]
    write_parquet(batch, path)
    before = path.read_bytes()
    for number in "123":
        if (place == number).any():
            rows = together[place == number].sample(frac=1, random_state=7).reset_index(drop=True)
            market.push("daily_push", rows, to=PushMode.OFFLINE)
    assert path.read_bytes() == before
    days = {f"{day:%Y-%m-%d}" for day in together.loc[place != "batch", "event_timestamp"]}
    assert {file.stem for file in pushed_folder(path).glob("*")} == days

    wanted = itertools.product([*SYMBOLS, "UNKNOWN"], [CLOSE + day * DAY for day in range(-1, 6)])
    spine = pd.DataFrame(wanted, columns=["symbol", "event_timestamp"])
    spine["event_timestamp"] = spine["event_timestamp"].astype("datetime64[us, UTC]")
    options = market.config.offline_store
    try:
        for counts, known_at in itertools.product([True, False], [None, CLOSE + cutoff * DAY]):
            options.pushed, options.known_at = counts, known_at
            rows = together if counts else batch
            rows = rows if known_at is None else rows[rows["created"] <= known_at]
            found = market.get_historical_features(spine.copy(), ["daily:close"]).to_df()
            pairs = zip(found["symbol"], found["event_timestamp"], strict=True)
            expected = [seen_last(rows, *pair) for pair in pairs]
            assert found["close"].astype(object).where(found["close"].notna(), None).tolist() == expected
            latest = AsofDuckDBOfflineStore.pull_latest_from_table_or_query
            standing = pulled(market, latest, "symbol", "event_timestamp", "close")
            assert standing == still_standing(rows)
            everything = AsofDuckDBOfflineStore.pull_all_from_table_or_query
            assert pulled(market, everything, *COLUMNS) == in_order(rows)
    finally:
        options.pushed, options.known_at = True, None


def asked(store: FeatureStore, instant: pd.Timestamp = CLOSE) -> float:
    spine = pd.DataFrame({"symbol": ["A"], "event_timestamp": [instant]})
    return store.get_historical_features(spine, ["daily:close"]).to_df()["close"].item()


def online(store: FeatureStore) -> float:
    return store.get_online_features(["daily:close"], [{"symbol": "A"}]).to_dict()["close"][0]


@pytest.mark.parametrize(
    ("mode", "offline", "held"),
    [
        (PushMode.ONLINE, 1.0, 2.0),
        (PushMode.OFFLINE, 2.0, None),
        (PushMode.ONLINE_AND_OFFLINE, 2.0, 2.0),
    ],
)
def test_a_push_goes_where_its_mode_says(tmp_path, mode, offline, held):
    store = opened(tmp_path, rows_of([("A", 0, 0, 1.0)]))
    before = (tmp_path / "daily.parquet").read_bytes()
    store.push("daily_push", rows_of([("A", 0, 1, 2.0)]), to=mode)
    assert asked(store) == offline
    assert online(store) == held
    assert (tmp_path / "daily.parquet").read_bytes() == before
    assert pushed_folder(tmp_path / "daily.parquet").exists() == (mode != PushMode.ONLINE)


@pytest.mark.parametrize(("batch", "pushed"), [(1, 2), (2, 1)])
def test_of_a_batch_and_a_pushed_version_the_one_created_later_counts(tmp_path, batch, pushed):
    store = opened(tmp_path, rows_of([("A", 0, batch, float(batch))]))
    store.push("daily_push", rows_of([("A", 0, pushed, float(pushed))]), to=PushMode.OFFLINE)
    store.materialize(CLOSE - DAY, CLOSE)
    assert asked(store) == online(store) == 2.0
    store.config.offline_store.known_at = CLOSE + DAY
    assert asked(store) == 1.0


def test_a_pushed_withdrawal_puts_the_row_before_online(tmp_path):
    store = opened(tmp_path, rows_of([("A", 0, 0, 1.0), ("A", 1, 1, 2.0)]))
    store.materialize(CLOSE - DAY, CLOSE + DAY)
    assert online(store) == 2.0
    store.push("daily_push", rows_of([("A", 1, 2, None)]), to=PushMode.OFFLINE)
    store.materialize(CLOSE - DAY, CLOSE + DAY)
    assert online(store) == 1.0


@pytest.mark.parametrize("unit", ["ns", "us", "ms"])
def test_a_source_may_be_in_any_unit_and_is_pushed_to_again_and_again(tmp_path, unit):
    store = opened(tmp_path, rows_of([("A", 0, 0, 1.0)]))
    path = tmp_path / "daily.parquet"
    instants = dict.fromkeys(("event_timestamp", "created"), f"datetime64[{unit}, UTC]")
    rows_of([("A", 0, 0, 1.0)]).astype(instants).to_parquet(path)
    assert pq.read_schema(path).field("created").type.unit == unit
    for created, close in ((1, 2.0), (2, 3.0), (3, None), (4, 5.0)):
        rows = rows_of([("A", 0, created, close)]).astype(dict.fromkeys(instants, "datetime64[ns, UTC]"))
        store.push("daily_push", rows, to=PushMode.OFFLINE)
    assert asked(store) == 5.0
    store.config.offline_store.known_at = CLOSE + 2 * DAY
    assert asked(store) == 3.0


def test_a_push_with_other_columns_is_refused_and_leaves_nothing(tmp_path):
    store = opened(tmp_path, rows_of([("A", 0, 0, 1.0)]))
    with pytest.raises(ValueError, match="extra_unexpected_columns"):
        store.push("daily_push", rows_of([("A", 0, 1, 2.0)]).assign(moon=1.0), to=PushMode.OFFLINE)
    assert not pushed_folder(tmp_path / "daily.parquet").exists()


N, SESSIONS, WINDOW, WINDOW_SESSIONS = 4, 80, 10, 5
LOADED = pd.Timestamp("2014-06-03 22:00", tz="UTC")
BARS = small.market(N, SESSIONS + 1, seed=11)
LAST = BARS["date"].unique()[-1]


def computed(workspace: Workspace, bars: pd.DataFrame) -> None:
    """What the stages before `publish` leave of these bars."""
    write_parquet(small.known_at_their_close(daily_features(bars)), workspace.daily_features)
    write_json([], workspace.bar_landings)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Workspace:
    """The market but its last session, published."""
    sizes = {"window": WINDOW, "window_sessions": WINDOW_SESSIONS}
    workspace = small.new_workspace(tmp_path_factory.mktemp("push") / "project", publish=sizes)
    computed(workspace, BARS[BARS["date"] < LAST].reset_index(drop=True))
    publish.main(workspace)
    return workspace


@pytest.fixture
def project(published, tmp_path) -> Workspace:
    """A copy to write to."""
    return Workspace(shutil.copytree(published.root, tmp_path / "project"))


def live_rows(upto: pd.Timestamp, created: pd.Timestamp) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of both views that end at a session, as a live bar makes them."""
    table = daily_features(BARS[BARS["date"] <= upto].reset_index(drop=True))
    daily = table.groupby("symbol").tail(1).reset_index(drop=True)
    rows = table.groupby("symbol").tail(WINDOW)[NAMES].to_numpy("float32")
    windows = daily[["symbol", "event_timestamp"]].copy()
    windows["window"] = packed(rows.reshape(N, WINDOW, len(NAMES)))
    return daily.assign(**{CREATED: created}), windows.assign(**{CREATED: created})


def push_live(store: FeatureStore, rows: tuple, to: PushMode = PushMode.ONLINE_AND_OFFLINE) -> None:
    for source, table in zip(("daily_push", "windows_push"), rows, strict=True):
        store.push(source, table, to=to)


def held_online(store: FeatureStore) -> tuple[list[float], list[bytes]]:
    rows = [{"symbol": symbol} for symbol in sorted(BARS["symbol"].unique())]
    answer = store.get_online_features(["daily:close", "windows:window"], rows).to_dict()
    return answer["close"], answer["window"]


def test_publish_keeps_the_newest_pushed_rows_online(project):
    store = open_store(project)
    daily, windows = live_rows(LAST, LOADED)
    before = held_online(store)
    push_live(store, (daily, windows))
    pushed = (daily["close"].tolist(), windows["window"].tolist())
    assert held_online(store) == pushed != before
    publish.main(project)
    assert held_online(open_store(project)) == pushed
    (project.root / "data/feast/online.db").unlink()  # a store that lost its data gets them back
    publish.main(project)
    assert held_online(open_store(project)) == pushed


def test_a_batch_that_catches_up_overwrites_what_was_pushed(project):
    store = open_store(project)
    daily, windows = live_rows(LAST, LOADED)
    push_live(
        store,
        (
            daily.assign(close=1.0),
            windows.assign(window=packed(np.zeros((N, WINDOW, len(NAMES)), "float32"))),
        ),
    )
    computed(project, BARS)
    publish.main(project)
    expected = live_rows(LAST, LOADED)
    assert held_online(store) == (expected[0]["close"].tolist(), expected[1]["window"].tolist())


def test_publish_drops_pushed_rows_of_the_sessions_that_it_holds(project):
    days = BARS["date"].unique()
    store = open_store(project)
    for day in (days[-9], days[-2], LAST):
        push_live(store, live_rows(day, LOADED), PushMode.OFFLINE)
    publish.main(project)
    for source in (project.window_features, project.daily_features):
        assert [path.stem for path in pushed_folder(source).glob("*")] == [f"{LAST:%Y-%m-%d}"]


def test_a_pushed_withdrawal_of_the_last_bar_brings_the_session_before_back(project):
    store = open_store(project)
    before = held_online(store)
    push_live(store, live_rows(LAST, LOADED))
    daily, windows = live_rows(LAST, LOADED + DAY)
    push_live(store, (daily.assign(**dict.fromkeys(NAMES, np.nan)), windows.assign(window=None)))
    assert held_online(store) != before  # no withdrawal goes online with a push; publish is needed
    publish.main(project)
    assert held_online(store) == before


def test_a_withdrawal_may_be_the_first_row_pushed_for_a_session(project):
    days = BARS["date"].unique()
    store = open_store(project)
    _, windows = live_rows(LAST, LOADED + DAY)
    beyond = windows.assign(
        event_timestamp=session_close(pd.Series([next_session(LAST)]))[0], window=None
    )
    store.push("windows_push", beyond, to=PushMode.OFFLINE)
    push_live(store, tuple(table.head(1) for table in live_rows(LAST, LOADED)), PushMode.OFFLINE)
    publish.main(project)
    expected = [live_rows(day, LOADED)[1]["window"][i] for i, day in enumerate([LAST] + [days[-2]] * 3)]
    assert held_online(store)[1] == expected


def test_several_sessions_pushed_at_once_are_read_back(project):
    store = open_store(project)
    beyond = next_session(LAST)
    first, second = live_rows(LAST, LOADED), live_rows(LAST, LOADED)
    (close,) = session_close(pd.Series([beyond]))
    both = tuple(
        pd.concat([one, two.assign(event_timestamp=close)]).sample(frac=1, random_state=3)
        for one, two in zip(first, second, strict=True)
    )
    push_live(store, tuple(table.reset_index(drop=True) for table in both), PushMode.OFFLINE)
    publish.main(project)
    names = [f"{day:%Y-%m-%d}" for day in (LAST, beyond)]
    assert sorted(path.stem for path in pushed_folder(project.window_features).glob("*")) == names
    answer = store.get_online_features(["windows:window"], [{"symbol": "S000"}])
    (seen,) = answer.to_dict(include_event_timestamps=True)["window__ts"]
    assert seen == close.timestamp()


def test_a_reader_sees_every_window_from_before_a_write_or_every_one_from_after_it(project):
    with sqlite3.connect(project.root / "data/feast/online.db") as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    _, windows = live_rows(LAST, LOADED)
    first = windows["window"].tolist()
    second = packed(-unpacked(first, NAMES))
    failures = []

    def write() -> None:
        try:
            store = open_store(project)
            for _ in range(20):
                for values in (first, second):
                    store.push("windows_push", windows.assign(window=values), to=PushMode.ONLINE)
        except Exception as error:
            failures.append(error)

    store = open_store(project)
    store.push("windows_push", windows.assign(window=second), to=PushMode.ONLINE)
    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    while writer.is_alive():
        seen.append(held_online(store)[1])
    writer.join()
    assert failures == []
    assert all(values in (first, second) for values in seen)
    assert first in seen
    assert second in seen


def test_publish_waits_for_whoever_writes_to_the_online_store(project):
    project.published.unlink()
    with project.online_writer():
        stage = threading.Thread(target=publish.main, args=[project])
        stage.start()
        stage.join(timeout=3)
        assert stage.is_alive()
        assert not project.published.exists()
    stage.join(timeout=60)
    assert project.published.exists()
