"""The same promises kept by both online stores: SQLite in the workspace's folder, and a real Redis."""

import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from feast import FeatureStore
from feast.data_source import PushMode
from support import small_runs as small
from support.servers import Redis, redis
from support.workspaces import ENVIRONMENT, ROOT

from feature_repo import publish
from feature_repo.store import REDIS, SQLITE, open_store, rebuild
from pitwise.errors import StoreError
from pitwise.features.errors import (
    EmptyStoreError,
    ForeignStoreError,
    StaleWriteError,
    UnreachableStoreError,
    WindowSchemaError,
)
from pitwise.features.history import CREATED
from pitwise.features.indicators import NAMES
from pitwise.features.windows import HEADER, gather, packed
from pitwise.init import DEFINITIONS
from pitwise.registry.contract import run_onnx
from pitwise.registry.model import RegisteredModel, RegistryParams
from pitwise.stage import load_params
from pitwise.workspace import Workspace, pushed_folder, read_parquet, write_parquet
from serving.inference.predictor import Predictor, load_champion
from training import dataset

YAML = "FEAST_FS_YAML_FILE_PATH"
SYMBOLS = ["S000", "S001", "S002", "S003"]


@dataclass
class Online:
    """A published workspace whose online store is one of the two."""

    workspace: Workspace
    rows: pd.DataFrame
    champion: RegisteredModel
    environment: dict[str, str]
    server: Redis | None

    def store(self) -> FeatureStore:
        return open_store(self.workspace)

    def predictor(self) -> Predictor:
        return Predictor(self.champion, self.store())

    def last_windows(self) -> pd.DataFrame:
        """Each symbol's newest window, as it would be pushed again."""
        table = read_parquet(self.workspace.window_features)
        return table.groupby("symbol").tail(1).reset_index(drop=True)


def published(folder: Path, environment: dict[str, str], server: Redis | None) -> Online:
    workspace = small.make_workspace(folder, small.market(4, 150, seed=11))
    (workspace.feast_repo / "definitions.py").write_text(DEFINITIONS)
    publish.main(workspace)
    dataset.main(workspace)
    rows = read_parquet(workspace.dataset_rows)
    small.register_champion(workspace, rows)
    champion = load_champion(workspace, load_params(workspace, "registry", RegistryParams))
    return Online(workspace, rows, champion, environment, server)


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def online(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "project"
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "sqlite":
            patch.delenv(YAML, raising=False)
            yield published(folder, {}, None)
            return
        with redis() as server:
            config = (ROOT / "feature_repo/feature_store.redis.yaml").read_text()
            assert "localhost:6379" in config
            settings = folder.with_name("redis.yaml")
            settings.write_text(config.replace("localhost:6379", server.address))
            patch.setenv(YAML, str(settings))
            yield published(folder, {YAML: str(settings)}, server)


redis_alone = pytest.mark.parametrize("online", ["redis"], indirect=True)


def test_the_store_in_use_is_the_one_the_environment_names(online, monkeypatch):
    """The command `feast` in this process, for its start takes seconds."""
    from feast.cli.cli import cli  # takes a second, which workers without this test do not spend

    kind = REDIS if online.server else SQLITE[1]
    assert online.store().config.online_store.type == kind
    assert (online.workspace.root / "data/feast/online.db").exists() == (kind != REDIS)
    before = online.predictor().forecast(SYMBOLS)
    monkeypatch.chdir(online.workspace.feast_repo)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for arguments in (["apply"], ["materialize-incremental", "2014-12-31T00:00:00"]):
        done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    del sys.modules["definitions"]
    plain = re.sub(r"\x1b\[[0-9;]*m", "", done.output)
    assert f"into the {kind} online store" in plain
    assert same(online.predictor().forecast(SYMBOLS), before)


def test_forecasts_are_the_models_on_the_offline_windows_bit_for_bit(online):
    rows = online.rows
    last = rows[rows["ends_window"]].groupby("symbol").tail(1)
    offline = gather(rows[list(small.FEATURES)].to_numpy("float32"), last.index.to_numpy(), small.WINDOW)
    expected = run_onnx(online.champion.session, offline)
    forecasts = online.predictor().forecast([*SYMBOLS, "NOSUCH"])
    assert (forecasts.symbols, forecasts.missing) == (SYMBOLS, ["NOSUCH"])
    for name in ("log_return", "p_up"):
        assert (getattr(forecasts, name) == expected[name].astype(float)).all()
    assert (pd.to_datetime(forecasts.as_of, utc=True) == last["event_timestamp"]).all()
    shown = [float(f"{np.float32(close):.7g}") for close in last["close"]]
    assert forecasts.last_close.tolist() == shown


def test_unknown_symbols_alone_are_no_error(online):
    assert online.predictor().forecast(["NOSUCH"]).missing == ["NOSUCH"]


@pytest.fixture
def published_again(online):
    """Lets a test write what it likes online: the published windows stand there again afterwards."""
    yield online.last_windows()
    rebuild(online.workspace, online.store())


def test_a_corrected_window_of_the_same_instant_replaces_the_one_online(online, published_again):
    predictor = online.predictor()
    before = predictor.forecast(SYMBOLS)
    other = packed(np.ones((1, small.WINDOW, len(NAMES)), "float32"))
    corrected = published_again.head(1).assign(window=other)
    corrected[CREATED] += pd.Timedelta(hours=1)
    online.store().push("windows_push", corrected, to=PushMode.ONLINE)
    after = predictor.forecast(SYMBOLS)
    assert after.last_close[0] == 1.0
    assert after.window_hash[0] != before.window_hash[0]
    assert after.window_hash[1:] == before.window_hash[1:]
    np.testing.assert_array_equal(after.as_of, before.as_of)


@redis_alone
def test_redis_refuses_an_older_push_and_keeps_the_newer_row(online, published_again):
    predictor = online.predictor()
    before = predictor.forecast(SYMBOLS)
    older = published_again.head(2).assign(
        event_timestamp=lambda rows: rows["event_timestamp"] - pd.Timedelta(days=7)
    )
    with pytest.raises(StaleWriteError, match="S000"):
        online.store().push("windows_push", older, to=PushMode.ONLINE)
    assert same(predictor.forecast(SYMBOLS), before)


@redis_alone
def test_what_is_published_replaces_what_was_pushed_later_and_so_does_the_next_push(
    online, published_again
):
    before = online.predictor().forecast(SYMBOLS)
    later = published_again.assign(
        window=packed(np.full((4, small.WINDOW, len(NAMES)), 7, "float32")),
        **{CREATED: pd.Timestamp.now("UTC")},
    )
    online.store().push("windows_push", later, to=PushMode.ONLINE)
    assert online.predictor().forecast(SYMBOLS).last_close.tolist() == [7.0] * 4
    publish.main(online.workspace)
    assert same(online.predictor().forecast(SYMBOLS), before)
    online.store().push("windows_push", later, to=PushMode.ONLINE)
    assert online.predictor().forecast(SYMBOLS).last_close.tolist() == [7.0] * 4


sqlite_alone = pytest.mark.parametrize("online", ["sqlite"], indirect=True)


@sqlite_alone
def test_sqlite_takes_an_older_push_for_its_lock_lets_one_writer_near_it(online, published_again):
    older = published_again.head(1).assign(
        event_timestamp=lambda rows: rows["event_timestamp"] - pd.Timedelta(days=7)
    )
    online.store().push("windows_push", older, to=PushMode.ONLINE)
    forecasts = online.predictor().forecast(SYMBOLS)
    newest = online.rows["event_timestamp"].max()
    assert pd.to_datetime(forecasts.as_of, utc=True)[0] == newest - pd.Timedelta(days=7)
    assert (pd.to_datetime(forecasts.as_of, utc=True)[1:] == newest).all()


def test_a_push_of_a_published_session_gives_way_to_the_next_publish(online, published_again):
    store = online.store()
    corrected = published_again.tail(1).assign(
        window=packed(np.full((1, small.WINDOW, len(NAMES)), 2, "float32")),
        **{CREATED: pd.Timestamp.now("UTC")},
    )
    store.push("windows_push", corrected.reset_index(drop=True), to=PushMode.OFFLINE)
    try:
        before = online.predictor().forecast(SYMBOLS).last_close[3]
        publish.main(online.workspace)
        assert online.predictor().forecast(SYMBOLS).last_close[3] == before != 2.0
        assert not list(pushed_folder(online.workspace.window_features).glob("*"))
    finally:
        for path in pushed_folder(online.workspace.window_features).glob("*"):
            path.unlink()


def test_windows_of_another_length_are_refused(online):
    other = Predictor(replace(online.champion, window=small.WINDOW + 1), online.store())
    expected = rf"windows of {small.WINDOW + 1} .* holds {small.WINDOW}\."
    with pytest.raises(WindowSchemaError, match=expected):
        other.forecast(SYMBOLS)


def same(one, other) -> bool:
    return (one.window_hash, one.price.tolist()) == (other.window_hash, other.price.tolist())


@redis_alone
def test_a_restarted_redis_serves_the_same_predictor_again(online):
    predictor = online.predictor()
    before = predictor.forecast(SYMBOLS)
    online.server.stop()
    try:
        for _ in range(2):
            with pytest.raises(UnreachableStoreError, match="the online store does not answer"):
                predictor.forecast(SYMBOLS)
        with pytest.raises(UnreachableStoreError, match="the online store does not answer"):
            online.predictor().forecast(SYMBOLS)
    finally:
        online.server.start()
    assert same(predictor.forecast(SYMBOLS), before)


@redis_alone
def test_a_redis_that_hangs_is_an_error_within_seconds(online):
    predictor = online.predictor()
    before = predictor.forecast(SYMBOLS)
    started = perf_counter()
    online.server.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(UnreachableStoreError, match="the online store does not answer"):
            predictor.forecast(SYMBOLS)
    finally:
        online.server.process.send_signal(signal.SIGCONT)
    assert perf_counter() - started < 20
    assert same(predictor.forecast(SYMBOLS), before)


@redis_alone
def test_a_redis_that_lost_its_data_is_told_from_unknown_symbols(online):
    predictor = Predictor(online.champion, online.store(), published=SYMBOLS)
    before = predictor.forecast(SYMBOLS)
    online.server.lose_data()
    online.server.start()
    with pytest.raises(EmptyStoreError, match=r"no window of S000, S002, .*-f -s publish") as raised:
        predictor.forecast(["S000", "NOSUCH", "S002"])
    assert raised.value.symbols == ["S000", "S002"]
    assert predictor.forecast(["NOSUCH"]).missing == ["NOSUCH"]
    rebuild(online.workspace, online.store())
    assert same(predictor.forecast(SYMBOLS), before)


@redis_alone
@pytest.mark.parametrize("anew", [publish.main, open_store], ids=["publish", "open_store"])
def test_a_redis_that_lost_its_data_is_filled_by_who_publishes_or_opens_the_store(online, anew):
    predictor = online.predictor()
    before = predictor.forecast(SYMBOLS)
    online.server.lose_data()
    online.server.start()
    assert predictor.forecast(SYMBOLS).missing == SYMBOLS
    anew(online.workspace)
    assert same(predictor.forecast(SYMBOLS), before)


@redis_alone
def test_a_moved_workspace_is_filled_from_its_files_and_leaves_the_other_alone(online, tmp_path):
    before = online.predictor().forecast(SYMBOLS)
    copy = Workspace(shutil.copytree(online.workspace.root, tmp_path / "moved"))
    moved = Predictor(online.champion, open_store(copy))
    assert same(moved.forecast(SYMBOLS), before)
    other = online.last_windows().assign(
        window=packed(np.full((4, small.WINDOW, len(NAMES)), 9, "float32")),
        **{CREATED: pd.Timestamp.now("UTC")},
    )
    open_store(copy).push("windows_push", other, to=PushMode.ONLINE)
    assert moved.forecast(SYMBOLS).last_close.tolist() == [9.0] * 4
    assert same(online.predictor().forecast(SYMBOLS), before)


@redis_alone
def test_a_workspace_whose_name_another_one_has_is_refused_when_its_store_is_opened(
    online, tmp_path, monkeypatch
):
    text = Path(online.environment[YAML]).read_text()
    named = tmp_path / "named.yaml"
    named.write_text(text.replace("entity_key_", "  workspace: ours\nentity_key_"))
    monkeypatch.setenv(YAML, str(named))
    first, second = (
        Workspace(shutil.copytree(online.workspace.root, tmp_path / name)) for name in ("one", "two")
    )
    open_store(first)
    before = second.window_features.stat().st_mtime_ns
    for opened in (open_store, publish.main):
        with pytest.raises(ForeignStoreError, match=rf"'pitwise\.ours' belongs to .*{first.root} on "):
            opened(second)
    assert second.window_features.stat().st_mtime_ns == before


@redis_alone
def test_feasts_own_redis_store_is_refused_with_what_to_write(online, tmp_path, monkeypatch):
    stock = tmp_path / "stock.yaml"
    stock.write_text(Path(online.environment[YAML]).read_text().replace(REDIS, "redis"))
    monkeypatch.setenv(YAML, str(stock))
    with pytest.raises(StoreError, match=rf"overwrite each other.*`type: {REDIS}`"):
        open_store(online.workspace)


# Registry and online store are a cache of what is published


def without_state(online: Online, folder: Path) -> Workspace:
    """What Git and DVC bring: the published files, but no registry and no online store."""
    workspace = Workspace(shutil.copytree(online.workspace.root, folder))
    for name in ("registry.db", "online.db", "online.db-wal", "online.db-shm", "materialized.json"):
        (workspace.published.parent / name).unlink(missing_ok=True)
    assert [path.name for path in workspace.published.parent.glob("*.db")] == []
    return workspace


@sqlite_alone
def test_a_store_without_state_is_made_anew_by_whoever_opens_it_first(online, tmp_path):
    expected = online.predictor().forecast(SYMBOLS)
    workspace = without_state(online, tmp_path / "clone")
    assert same(Predictor(online.champion, open_store(workspace)).forecast(SYMBOLS), expected)


@sqlite_alone
@pytest.mark.parametrize("lost", ["registry.db", "online.db", "materialized.json"])
def test_a_part_of_the_state_that_is_lost_is_made_anew(online, tmp_path, lost):
    workspace = Workspace(shutil.copytree(online.workspace.root, tmp_path / "copy"))
    open_store(workspace)
    expected = online.predictor().forecast(SYMBOLS)
    (workspace.published.parent / lost).unlink()
    assert same(Predictor(online.champion, open_store(workspace)).forecast(SYMBOLS), expected)


@sqlite_alone
def test_a_checkout_of_other_files_is_what_the_store_holds_next(online, tmp_path):
    workspace = Workspace(shutil.copytree(online.workspace.root, tmp_path / "copy"))
    before = Predictor(online.champion, open_store(workspace)).forecast(SYMBOLS)
    table = read_parquet(workspace.window_features)
    other = packed(np.full((len(table), small.WINDOW, len(NAMES)), 3, "float32"))
    write_parquet(table.assign(window=other), workspace.window_features)
    workspace.published.write_text(workspace.published.read_text() + "\n")
    after = Predictor(online.champion, open_store(workspace)).forecast(SYMBOLS)
    assert before.last_close[0] != 3.0
    assert after.last_close.tolist() == [3.0] * 4


@sqlite_alone
def test_state_that_holds_what_is_published_is_left_alone(online, published_again):
    open_store(online.workspace)
    pushed = published_again.head(1).assign(
        window=packed(np.full((1, small.WINDOW, len(NAMES)), 5, "float32"))
    )
    online.store().push("windows_push", pushed, to=PushMode.ONLINE)
    assert online.predictor().forecast(SYMBOLS).last_close[0] == 5.0


@sqlite_alone
def test_tables_that_lost_their_rows_are_told_from_unknown_symbols_and_filled(online, published_again):
    predictor = Predictor(online.champion, online.store(), published=SYMBOLS)
    before = predictor.forecast(SYMBOLS)
    for statement in ("DELETE FROM pitwise_windows_rows", "DROP TABLE pitwise_windows_rows"):
        with closing(sqlite3.connect(online.workspace.root / "data/feast/online.db")) as database:
            database.execute(statement)
            database.commit()
        with pytest.raises(EmptyStoreError, match="it has lost its data"):
            predictor.forecast(SYMBOLS)
        rebuild(online.workspace, online.store())
        assert same(predictor.forecast(SYMBOLS), before)


@sqlite_alone
@pytest.mark.parametrize("lost", [True, False])
def test_windows_of_an_older_version_are_not_put_online_and_who_publishes_replaces_them(
    online, tmp_path, lost
):
    workspace = Workspace(shutil.copytree(online.workspace.root, tmp_path / "copy"))
    table = read_parquet(workspace.window_features)
    old = table.assign(window=[window[HEADER:] for window in table["window"]])
    write_parquet(old, workspace.window_features)
    pushed = old.tail(1).assign(event_timestamp=old["event_timestamp"].max() + pd.Timedelta(days=7))
    write_parquet(pushed, pushed_folder(workspace.window_features) / "2099-01-01.parquet")
    if lost:
        workspace.published.with_name("online.db").unlink()
    with pytest.raises(WindowSchemaError, match=r"windows\.parquet: .*older version.*dvc repro publish"):
        open_store(workspace)
    assert workspace.published.with_name("online.db").exists() != lost
    publish.main(workspace)
    expected = online.predictor().forecast(SYMBOLS)
    assert same(Predictor(online.champion, open_store(workspace)).forecast(SYMBOLS), expected)


@sqlite_alone
def test_a_workspace_where_nothing_is_published_opens_empty(online, tmp_path):
    workspace = without_state(online, tmp_path / "clone")
    workspace.published.unlink()
    assert open_store(workspace).list_feature_views() == []


OPEN = "from feature_repo.store import open_store; from pitwise.workspace import Workspace; "
OPEN += "print(len(open_store(Workspace('.')).list_feature_views()))"


@sqlite_alone
def test_two_who_open_it_at_once_make_it_once(online, tmp_path):
    workspace = without_state(online, tmp_path / "clone")
    command = [sys.executable, "-W", "ignore", "-c", OPEN]
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    pair = [
        subprocess.Popen(command, cwd=workspace.root, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=120)[0].split()[-1] for process in pair]
    assert answers == ["2", "2"]
