"""The champion in office, on a real registry and a real Feast store, and those that are refused."""

import logging
import tempfile
import threading
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest

from feature_repo.errors import StoreError
from feature_repo.model import RegistryParams
from serving import champion as office
from serving.champion import LiveChampion, self_check
from serving.predictor import Predictor, load_champion, open_store
from tests.models_by_hand import contract, onnx_model, published_workspace, register

SYMBOLS = [f"S{i:03d}" for i in range(5)]
GOOD, BETTER = "1", "2"
BROKEN = {
    "nan": (onnx_model(scale=float("nan")), contract(), "outputs that are not finite for S000"),
    "p_up": (onnx_model(p_up_offset=2.0), contract(), "a p_up outside 0 to 1 for S000"),
    "huge": (onnx_model(scale=9.0), contract(), "a log_return beyond 1 for S00"),
    "batch": (onnx_model(of_batch=True), contract(), "S000 depends on the batch, by "),
    "input": (onnx_model(names=("x", "log_return", "p_up")), contract(), "it takes {'x'"),
    "output": (onnx_model(names=("windows", "y", "p_up")), contract(), "gives no log_return of one"),
    "shape": (onnx_model(keepdims=1), contract(), "gives no log_return and no p_up of one value"),
    "width": (onnx_model(features=3), contract(), "it takes {'windows': ['tensor(float)', 10, 3]}"),
    "window": (onnx_model(window=11), contract(window=11), "windows of 11 sessions, the online store"),
    "feature": (onnx_model(), contract(features=["close", "moon_phase"]), "wants moon_phase, which"),
    "contract": (onnx_model(), None, "does not say which features"),
    "garbage": (onnx_model(), contract(), "cannot be fetched or run (InvalidProtobuf"),
    "gone": (onnx_model(), contract(), "cannot be fetched or run ("),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Versions 1 and 2 are sound, those of BROKEN come after them in their order."""
    folder = tmp_path_factory.mktemp("champion")
    published_workspace(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        register(folder, onnx_model(0.01), contract())
        register(folder, onnx_model(0.02), contract())
        for model, metadata, _ in BROKEN.values():
            register(folder, model, metadata)
        artifact("garbage").write_bytes(b"not a model")
        artifact("gone").unlink()
        yield folder


@pytest.fixture(scope="module")
def store(folder):
    return open_store(folder / "feature_repo")


@pytest.fixture
def live(folder, store) -> LiveChampion:
    point_to(GOOD)
    registry = RegistryParams(tracking_uri=f"sqlite:///{folder}/mlflow.db", model="pitwise")
    return LiveChampion(registry, store, lambda: SYMBOLS, 0.05)


def version_of(broken: str) -> str:
    return str(list(BROKEN).index(broken) + 3)


def artifact(broken: str) -> Path:
    uri = mlflow.MlflowClient().get_model_version_download_uri("pitwise", version_of(broken))
    return Path(mlflow.artifacts.download_artifacts(uri)) / "model.onnx"


def point_to(version: str) -> None:
    mlflow.MlflowClient().set_registered_model_alias("pitwise", "champion", version)


def test_the_champion_takes_office_and_answers(live):
    assert live.predictor.model.version == GOOD
    assert live.predictor.forecast(SYMBOLS).symbols == SYMBOLS
    assert (live.swaps, live.refused) == (0, {})


def test_the_alias_moves_and_the_next_poll_swaps(live):
    taken = live.predictor
    before = taken.forecast(SYMBOLS).log_return
    point_to(BETTER)
    live.poll()
    assert live.predictor.model.version == BETTER
    np.testing.assert_allclose(live.predictor.forecast(SYMBOLS).log_return, 2 * before, rtol=1e-6)
    assert live.swaps == 1
    assert taken.forecast(SYMBOLS).model_version == GOOD  # who took the old one keeps it


def test_an_alias_that_stays_loads_nothing(live, monkeypatch):
    monkeypatch.setattr(office, "load_registered", None)
    taken = live.predictor
    live.poll()
    assert live.predictor is taken
    assert (live.swaps, live.refused) == (0, {})


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_champion_is_refused_and_the_old_one_stays(live, caplog, broken):
    version, reason = version_of(broken), BROKEN[broken][2]
    point_to(version)
    taken = live.predictor
    live.poll()
    live.poll()
    assert live.predictor is taken
    assert live.swaps == 0
    assert reason in live.refused[version]
    (line,) = caplog.records
    assert (line.name, line.levelname) == ("pitwise.serving", "ERROR")
    assert line.message.startswith(f"version {version} refused, version {GOOD} stays: ")


def test_the_start_fails_where_the_champion_is_broken(folder, store):
    registry = RegistryParams(tracking_uri=f"sqlite:///{folder}/mlflow.db", model="pitwise")
    point_to(version_of("nan"))
    with pytest.raises(StoreError, match="not finite"):
        LiveChampion(registry, store, lambda: SYMBOLS, 1)
    point_to(version_of("garbage"))
    with pytest.raises(StoreError, match="cannot be fetched or run"):
        LiveChampion(registry, store, lambda: SYMBOLS, 1)
    with pytest.raises(StoreError, match="no version with the alias 'champion'"):
        LiveChampion(registry.model_copy(update={"model": "nobody"}), store, lambda: SYMBOLS, 1)


def test_a_refused_one_is_tried_again_when_the_alias_comes_back_to_it(live, caplog):
    for version in (version_of("nan"), GOOD, version_of("nan")):
        point_to(version)
        live.poll()
    assert [line.levelname for line in caplog.records] == ["ERROR", "ERROR"]


def test_a_refused_one_is_tried_again_after_a_while_and_taken_once_it_is_sound(
    live, monkeypatch, caplog
):
    names = ["NOSUCH"]
    monkeypatch.setattr(live, "_probe", lambda: names)
    point_to(BETTER)
    live.poll()
    assert "no window of NOSUCH" in live.refused[BETTER]
    names[:] = SYMBOLS
    live.poll()
    assert live.predictor.model.version == GOOD
    later = time.monotonic() + office.RETRY_SECONDS
    monkeypatch.setattr(office, "monotonic", lambda: later)
    live.poll()
    assert live.predictor.model.version == BETTER
    assert live.refused == {}
    assert len([line for line in caplog.records if line.levelname == "ERROR"]) == 1


def test_without_the_alias_the_old_one_stays_with_one_warning(live, caplog):
    mlflow.MlflowClient().delete_registered_model_alias("pitwise", "champion")
    live.poll()
    live.poll()
    assert live.predictor.model.version == GOOD
    (line,) = caplog.records
    assert line.levelname == "WARNING"
    assert "has no version of 'pitwise' with the alias 'champion', version 1 stays" in line.message


def test_while_the_registry_is_away_the_old_one_stays_with_one_warning(live, folder, caplog):
    caplog.set_level(logging.INFO, "pitwise.serving")
    database = folder / "mlflow.db"
    whole = database.read_bytes()
    try:
        database.write_bytes(b"\0" * len(whole))
        live.poll()
        live.poll()
    finally:
        database.write_bytes(whole)
    assert live.predictor.model.version == GOOD
    live.poll()
    ours = [line.message for line in caplog.records if line.name == "pitwise.serving"]
    assert len(ours) == 2
    assert ours[0].startswith("the registry does not answer, version 1 stays (")
    assert ours[1] == "the registry is back"


def test_the_thread_follows_the_alias_and_ends(live):
    live.start()
    point_to(BETTER)
    until = time.monotonic() + 10
    while live.swaps == 0 and time.monotonic() < until:
        time.sleep(0.05)
    live.stop()
    assert live.predictor.model.version == BETTER
    assert "champion" not in [thread.name for thread in threading.enumerate()]


def test_forecasts_go_on_through_a_swap(live):
    seen = set()

    def ask() -> None:
        until = time.monotonic() + 10
        while BETTER not in seen and time.monotonic() < until:
            answer = live.predictor.forecast(SYMBOLS)
            assert answer.symbols == SYMBOLS
            seen.add(answer.model_version)

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.1)
    point_to(BETTER)
    live.poll()
    asking.join()
    assert seen == {GOOD, BETTER}


def test_a_fetched_version_leaves_no_file_behind(live, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for version in (BETTER, version_of("garbage"), version_of("nan")):
        point_to(version)
        live.poll()
    assert live.swaps == 1
    assert list(tmp_path.iterdir()) == []


def test_a_window_that_changes_in_between_is_no_fault_of_the_model(folder, store):
    point_to(GOOD)
    real = Predictor(load_champion(f"sqlite:///{folder}/mlflow.db", "pitwise"), store)

    class Shifting:
        """A live bar comes in before each question about one symbol: the next symbol's window."""

        model = real.model

        def forecast(self, symbols):
            following = {s: SYMBOLS[(i + 1) % 5] for i, s in enumerate(SYMBOLS)}
            return real.forecast([following[s] for s in symbols] if len(symbols) == 1 else symbols)

    self_check(Shifting(), SYMBOLS)
