"""The same promises kept by both online stores: SQLite in the project's folder, and a real Redis."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
import pytest
from feast import FeatureService, FeatureStore
from feast.data_source import PushMode

from feature_repo import definitions, publish
from feature_repo.artifacts import read_parquet
from feature_repo.errors import StoreError
from feature_repo.indicators import NAMES
from feature_repo.model import RegisteredModel, run_onnx
from feature_repo.revisions import CREATED
from feature_repo.windows import gather, packed
from serving.predictor import Predictor, load_champion
from tests import models_for_tests as small
from tests.servers import Redis, redis
from training import dataset

YAML = "FEAST_FS_YAML_FILE_PATH"
SYMBOLS = ["S000", "S001", "S002", "S003"]


@dataclass
class Online:
    """A published project whose online store is one of the two."""

    folder: Path
    rows: pd.DataFrame
    champion: RegisteredModel
    server: Redis | None

    def store(self) -> FeatureStore:
        return FeatureStore("feature_repo")

    def predictor(self) -> Predictor:
        return Predictor(self.champion, self.store())

    def last_windows(self) -> pd.DataFrame:
        """Each symbol's newest window, as it would be pushed again."""
        table = read_parquet(self.folder / "data/features/windows.parquet")
        return table.groupby("symbol").tail(1).reset_index(drop=True)


def prepared(folder: Path, server: Redis | None) -> Online:
    small.make_workspace(folder, small.market(4, 150, seed=11))
    small.copy_rooms(folder)
    publish.main()
    dataset.main()
    rows = read_parquet(folder / "data/dataset/rows.parquet")
    small.register_champion(folder, rows)
    return Online(folder, rows, load_champion(f"sqlite:///{folder}/mlflow.db", "pitwise"), server)


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def online(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        daily, windows = definitions.feature_views(folder)
        daily_v1 = FeatureService(name="daily_v1", features=[daily])
        patch.setattr(definitions, "OBJECTS", [definitions.symbol, daily, daily_v1, windows])
        if request.param == "sqlite":
            patch.delenv(YAML, raising=False)
            yield prepared(folder, None)
            return
        with redis() as server:
            config = (small.PROJECT / "feature_repo/feature_store.redis.yaml").read_text()
            assert "localhost:6379" in config
            # Without these a lookup goes on for 4 s if Redis is down, and for a minute if it hangs.
            address = f"{server.address},retry=null,socket_timeout=2"
            (folder / "redis.yaml").write_text(config.replace("localhost:6379", address))
            patch.setenv(YAML, str(folder / "redis.yaml"))
            yield prepared(folder, server)


@pytest.fixture
def with_redis(online) -> Redis:
    if online.server is None:
        pytest.skip("of Redis alone")
    return online.server


def test_the_store_in_use_is_the_one_the_environment_names(online):
    kind = "redis" if online.server else "sqlite"
    assert online.store().config.online_store.type == kind
    assert (online.folder / "data/feast/online.db").exists() == (kind == "sqlite")
    feast = Path(sys.executable).parent / "feast"
    for arguments in (["apply"], ["materialize-incremental", "2014-12-31T00:00:00"]):
        done = subprocess.run(
            [feast, *arguments],
            cwd=online.folder / "feature_repo",
            env=os.environ | {"PYTHONPATH": str(online.folder)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert f"into the {kind} online store" in done.stdout.replace("\x1b[1m", "").replace(
        "\x1b[32m", ""
    ).replace("\x1b[0m", "")


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
    """Neither store compares instants: whoever pushes looks first, under the lock of online writers."""
    older = published_again.head(1)
    older["event_timestamp"] -= pd.Timedelta(days=7)
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
        publish.main()
        assert online.predictor().forecast(SYMBOLS).last_close[3] == 2.0
    finally:
        for path in (online.folder / "data/features/windows.pushed").glob("*"):
            path.unlink()


def test_windows_of_another_length_are_refused(online):
    other = Predictor(replace(online.champion, window=small.WINDOW + 1), online.store())
    with pytest.raises(StoreError, match=rf"windows of {small.WINDOW + 1} .* holds {small.WINDOW}\."):
        other.forecast(SYMBOLS)


def same(one, other) -> bool:
    return (one.window_hash, one.price.tolist()) == (other.window_hash, other.price.tolist())


def test_a_restarted_redis_serves_the_same_predictor_again(online, with_redis):
    predictor = online.predictor()
    before = predictor.forecast(SYMBOLS)
    with_redis.stop()
    try:
        for _ in range(2):
            with pytest.raises(StoreError, match="the online store does not answer"):
                predictor.forecast(SYMBOLS)
        with pytest.raises(StoreError, match="the online store does not answer"):
            online.predictor().forecast(SYMBOLS)
    finally:
        with_redis.start()
    assert same(predictor.forecast(SYMBOLS), before)


def test_a_redis_that_hangs_is_an_error_within_seconds(online, with_redis):
    predictor = online.predictor()
    before = predictor.forecast(SYMBOLS)
    started = perf_counter()
    with_redis.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(StoreError, match="the online store does not answer"):
            predictor.forecast(SYMBOLS)
    finally:
        with_redis.process.send_signal(signal.SIGCONT)
    assert perf_counter() - started < 20
    assert same(predictor.forecast(SYMBOLS), before)


def test_a_redis_that_lost_its_data_knows_no_symbol_until_it_is_published_again(online, with_redis):
    predictor = online.predictor()
    before = predictor.forecast(SYMBOLS)
    with_redis.process.kill()
    with_redis.process.wait()
    for path in with_redis.folder.glob("appendonlydir/*"):
        path.unlink()
    with_redis.start()
    assert predictor.forecast(SYMBOLS).missing == SYMBOLS
    publish.main()
    assert same(predictor.forecast(SYMBOLS), before)
