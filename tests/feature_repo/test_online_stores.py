"""The same promises kept by both online stores: SQLite in the workspace's folder, and a real Redis."""

import re
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
import pytest
from feast import FeatureStore
from feast.data_source import PushMode
from support import small_runs as small
from support.servers import Redis, redis
from support.workspaces import ENVIRONMENT, ROOT

from feature_repo import publish
from feature_repo.store import open_store
from pitwise.errors import StoreError
from pitwise.features.history import CREATED
from pitwise.features.indicators import NAMES
from pitwise.features.windows import gather, packed
from pitwise.init import DEFINITIONS
from pitwise.registry.contract import run_onnx
from pitwise.registry.model import RegisteredModel, RegistryParams
from pitwise.stage import load_params
from pitwise.workspace import Workspace, pushed_folder, read_parquet
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


APPLY_AND_MATERIALIZE = """
from feast.cli.cli import cli
for arguments in (["apply"], ["materialize-incremental", "2014-12-31T00:00:00"]):
    cli(arguments, standalone_mode=False)
"""
"""The command `feast`, twice in one process: each start takes seconds."""


def test_the_store_in_use_is_the_one_the_environment_names(online):
    kind = "redis" if online.server else "sqlite"
    assert online.store().config.online_store.type == kind
    assert (online.workspace.root / "data/feast/online.db").exists() == (kind == "sqlite")
    done = subprocess.run(
        [sys.executable, "-c", APPLY_AND_MATERIALIZE],
        cwd=online.workspace.feast_repo,
        env=ENVIRONMENT | online.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    assert f"into the {kind} online store" in plain


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
    online.store().push("windows_push", online.last_windows(), to=PushMode.ONLINE)


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


def test_an_older_push_overwrites_a_newer_one_so_the_writer_must_not_send_it(online, published_again):
    """Neither store compares instants: whoever pushes checks first, under the lock of online writers."""
    older = published_again.head(1).assign(
        event_timestamp=lambda rows: rows["event_timestamp"] - pd.Timedelta(days=7)
    )
    online.store().push("windows_push", older, to=PushMode.ONLINE)
    forecasts = online.predictor().forecast(SYMBOLS)
    newest = online.rows["event_timestamp"].max()
    assert pd.to_datetime(forecasts.as_of, utc=True)[0] == newest - pd.Timedelta(days=7)
    assert (pd.to_datetime(forecasts.as_of, utc=True)[1:] == newest).all()


def test_an_offline_push_is_online_after_the_next_publish(online, published_again):
    store = online.store()
    corrected = published_again.tail(1).assign(
        window=packed(np.full((1, small.WINDOW, len(NAMES)), 2, "float32")),
        **{CREATED: pd.Timestamp.now("UTC")},
    )
    store.push("windows_push", corrected.reset_index(drop=True), to=PushMode.OFFLINE)
    try:
        publish.main(online.workspace)
        assert online.predictor().forecast(SYMBOLS).last_close[3] == 2.0
    finally:
        for path in pushed_folder(online.workspace.window_features).glob("*"):
            path.unlink()


def test_windows_of_another_length_are_refused(online):
    other = Predictor(replace(online.champion, window=small.WINDOW + 1), online.store())
    with pytest.raises(StoreError, match=rf"windows of {small.WINDOW + 1} .* holds {small.WINDOW}\."):
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
            with pytest.raises(StoreError, match="the online store does not answer"):
                predictor.forecast(SYMBOLS)
        with pytest.raises(StoreError, match="the online store does not answer"):
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
        with pytest.raises(StoreError, match="the online store does not answer"):
            predictor.forecast(SYMBOLS)
    finally:
        online.server.process.send_signal(signal.SIGCONT)
    assert perf_counter() - started < 20
    assert same(predictor.forecast(SYMBOLS), before)


@redis_alone
def test_a_redis_that_lost_its_data_knows_no_symbol_until_it_is_published_again(online):
    predictor = online.predictor()
    before = predictor.forecast(SYMBOLS)
    online.server.lose_data()
    online.server.start()
    assert predictor.forecast(SYMBOLS).missing == SYMBOLS
    publish.main(online.workspace)
    assert same(predictor.forecast(SYMBOLS), before)
