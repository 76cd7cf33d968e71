"""The current champion, on a real registry and a real Feast store, and versions that are refused."""

import hashlib
import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import numpy as np
import pytest
from support.models_by_hand import (
    FEATURES,
    contract,
    make_champion,
    onnx_model,
    register,
    registry,
)

from feature_repo.store import open_store
from pitwise.errors import StoreError
from pitwise.features.errors import NonFiniteWindowError
from pitwise.registry.champion import registry_client
from pitwise.registry.model import RegistryParams
from pitwise.workspace import Workspace
from serving.inference import champion
from serving.inference.champion import LiveChampion
from serving.inference.check import check_predictor
from serving.inference.predictor import Predictor, load_champion

SYMBOLS = [f"S{i:03d}" for i in range(5)]
GOOD, BETTER = "1", "2"
REGISTRY = RegistryParams(tracking_uri="sqlite:///mlflow.db", model="pitwise")
BROKEN = {
    "nan": (onnx_model(scale=float("nan")), contract(), "forecasts a NaN or an infinity for S000"),
    "p_up": (onnx_model(p_up_offset=2.0), contract(), "a p_up outside 0 to 1 for S000"),
    "scale": (onnx_model(spread=-0.02), contract(), "a scale that is not above 0 for S000"),
    "apart": (
        onnx_model(spread=0.02, p_up_offset=0.001),
        contract(),
        "a p_up that is not that of its log_return and scale for S000",
    ),
    "huge": (onnx_model(scale=9.0), contract(), "a log_return beyond 1 for S00"),
    "batch": (onnx_model(of_batch=True), contract(), "S000 depends on the batch, by "),
    "input": (onnx_model(names=("x", "log_return", "p_up")), contract(), "its inputs are {'x'"),
    "output": (
        onnx_model(names=("windows", "y", "p_up")),
        contract(),
        "has no output log_return of one",
    ),
    "shape": (onnx_model(keepdims=1), contract(), "has no output log_return and no p_up of one value"),
    "width": (
        onnx_model(features=3),
        contract(),
        "its inputs are {'windows': ['tensor(float)', 10, 3]}",
    ),
    "window": (onnx_model(window=11), contract(window=11), "windows of 11 sessions, the online store"),
    "feature": (onnx_model(), contract(features=["close", "moon_phase"]), "wants moon_phase, which"),
    "contract": (onnx_model(), None, "does not name its features"),
    "garbage": (onnx_model(), contract(), "cannot be fetched or run (InvalidProtobuf"),
    "gone": (onnx_model(), contract(), "cannot be fetched or run ("),
}


@pytest.fixture(scope="module")
def workspace(published, tmp_path_factory) -> Workspace:
    """Versions 1 and 2 are sound, those of BROKEN come after them in their order."""
    folder = tmp_path_factory.mktemp("champions") / "workspace"
    workspace = Workspace(shutil.copytree(published.root, folder))
    register(workspace, onnx_model(0.01), contract())
    register(workspace, onnx_model(0.02), contract())
    for model, metadata, _ in BROKEN.values():
        register(workspace, model, metadata)
    artifact(workspace, "garbage").write_bytes(b"not a model")
    artifact(workspace, "gone").unlink()
    return workspace


@pytest.fixture(scope="module")
def store(workspace):
    return open_store(workspace)


@pytest.fixture
def point_to(workspace):
    """Move the alias `champion` to a version."""
    return lambda version: make_champion(workspace, version)


@pytest.fixture
def live(workspace, store, point_to) -> LiveChampion:
    point_to(GOOD)
    return LiveChampion(workspace, REGISTRY, store, lambda: SYMBOLS, 0.05)


def wait_until(true, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def version_of(broken: str) -> str:
    return str(list(BROKEN).index(broken) + 3)


def artifact(workspace: Workspace, broken: str) -> Path:
    uri = registry(workspace).get_model_version_download_uri("pitwise", version_of(broken))
    return Path(mlflow.artifacts.download_artifacts(uri)) / "model.onnx"


def test_the_champion_is_loaded_and_forecasts(live):
    assert live.predictor.model.version == GOOD
    assert live.predictor.forecast(SYMBOLS).symbols == SYMBOLS
    assert (live.swaps, live.refused) == (0, {})


def test_the_alias_moves_and_the_next_poll_swaps(live, point_to):
    taken = live.predictor
    before = taken.forecast(SYMBOLS).log_return
    point_to(BETTER)
    live.poll()
    assert live.predictor.model.version == BETTER
    np.testing.assert_allclose(live.predictor.forecast(SYMBOLS).log_return, 2 * before, rtol=1e-6)
    assert live.swaps == 1
    assert taken.forecast(SYMBOLS).model_version == GOOD  # a caller that holds the old one keeps it


def test_an_alias_that_stays_loads_nothing(live, monkeypatch):
    monkeypatch.setattr(champion, "load_registered", None)
    taken = live.predictor
    live.poll()
    assert live.predictor is taken
    assert (live.swaps, live.refused) == (0, {})


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_champion_is_refused_and_the_old_one_stays(live, point_to, caplog, broken):
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


def test_the_start_fails_where_the_champion_is_broken(workspace, store, point_to):
    point_to(version_of("nan"))
    with pytest.raises(StoreError, match="a NaN or an infinity"):
        LiveChampion(workspace, REGISTRY, store, lambda: SYMBOLS, 1)
    point_to(version_of("garbage"))
    with pytest.raises(StoreError, match="cannot be fetched or run"):
        LiveChampion(workspace, REGISTRY, store, lambda: SYMBOLS, 1)
    with pytest.raises(StoreError, match="no version with the alias 'champion'"):
        LiveChampion(
            workspace, REGISTRY.model_copy(update={"model": "nobody"}), store, lambda: SYMBOLS, 1
        )


def test_a_refused_one_is_tried_again_when_the_alias_comes_back_to_it(live, point_to, caplog):
    for version in (version_of("nan"), GOOD, version_of("nan")):
        point_to(version)
        live.poll()
    assert [line.levelname for line in caplog.records] == ["ERROR", "ERROR"]


def test_a_refused_one_is_tried_again_after_a_while_and_taken_once_it_is_sound(
    live, point_to, monkeypatch, caplog
):
    names = ["NOSUCH"]
    monkeypatch.setattr(live, "_symbols", lambda: names)
    point_to(BETTER)
    live.poll()
    assert "no window of NOSUCH" in live.refused[BETTER]
    names[:] = SYMBOLS
    live.poll()
    assert live.predictor.model.version == GOOD
    later = time.monotonic() + champion.RETRY_SECONDS
    monkeypatch.setattr(champion, "monotonic", lambda: later)
    live.poll()
    assert live.predictor.model.version == BETTER
    assert live.refused == {}
    assert len([line for line in caplog.records if line.levelname == "ERROR"]) == 1


def test_a_refused_one_is_forgotten_when_the_alias_moves_away(live, point_to):
    point_to(version_of("nan"))
    live.poll()
    assert list(live.refused) == [version_of("nan")]
    point_to(version_of("huge"))
    live.poll()
    assert list(live.refused) == [version_of("huge")]
    assert list(live.info().refused) == [version_of("huge")]
    point_to(GOOD)
    live.poll()
    assert live.refused == {}


def test_a_refused_one_is_forgotten_when_the_alias_is_gone(live, point_to):
    point_to(version_of("nan"))
    live.poll()
    mlflow.MlflowClient().delete_registered_model_alias("pitwise", "champion")
    live.poll()
    assert live.refused == {}


def test_its_status_says_that_the_alias_is_gone_until_it_is_back(live, point_to):
    assert live.status.ok
    mlflow.MlflowClient().delete_registered_model_alias("pitwise", "champion")
    live.poll()
    assert not live.status.ok
    assert live.status.detail == "the registry has no version of 'pitwise' with the alias 'champion'"
    point_to(GOOD)
    live.poll()
    assert live.status.ok


def test_the_champion_is_described_with_its_files_hash(live, workspace, point_to):
    file = Path(mlflow.artifacts.download_artifacts("models:/pitwise/1")) / "model.onnx"
    info = live.info()
    assert info.identity == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (info.version, info.kind, info.window, info.swaps) == (GOOD, "by_hand", 10, 0)
    assert info.features == list(FEATURES)
    assert info.metadata == contract()
    point_to(BETTER)
    live.poll()
    assert live.info().identity != info.identity
    assert live.info().swaps == 1
    assert info.since < live.info().since


@pytest.fixture
def anew(published, tmp_path):
    """A champion of version 1, and a function that puts a new registry in its place."""
    workspace = Workspace(shutil.copytree(published.root, tmp_path / "workspace"))
    registry_client(workspace, REGISTRY)  # as the service does, before anything else opens it
    register(workspace, onnx_model(0.01), contract())
    make_champion(workspace, "1")
    live = LiveChampion(workspace, REGISTRY, open_store(workspace), lambda: SYMBOLS, 1)

    def replaced(scale: float) -> None:
        other = Workspace(tmp_path / "other")
        other.root.mkdir()
        register(other, onnx_model(scale), contract())
        make_champion(other, "1")
        registry(workspace)
        live.poll()
        (other.root / "mlflow.db").replace(workspace.root / "mlflow.db")

    return live, replaced


def test_a_registry_made_anew_with_the_same_numbers_is_noticed(anew):
    """Version 1 is another file then: by its number nothing has moved."""
    live, replaced = anew
    before = live.predictor.forecast(SYMBOLS).log_return
    replaced(0.03)
    live.poll()
    assert live.swaps == 1
    assert live.predictor.model.version == "1"
    np.testing.assert_allclose(live.predictor.forecast(SYMBOLS).log_return, 3 * before, rtol=1e-6)


def test_the_same_file_under_the_same_number_is_no_swap(anew):
    live, replaced = anew
    taken = live.predictor
    replaced(0.01)
    live.poll()
    assert live.predictor is taken
    assert live.swaps == 0


def test_a_swap_is_told_before_it_is_made(workspace, store, point_to):
    point_to(GOOD)
    told = []

    @contextmanager
    def swapping(predictor: Predictor) -> Iterator[None]:
        info = live.info(predictor)
        told.append((predictor.model.version, live.predictor.model.version, info.version, info.swaps))
        yield
        # What the block holds off is never answered by the old one after the new one's was told.
        told.append(live.predictor.model.version)

    live = LiveChampion(workspace, REGISTRY, store, lambda: SYMBOLS, 1, swapping)
    assert told == []
    point_to(BETTER)
    live.poll()
    live.poll()
    assert told == [(BETTER, GOOD, BETTER, 1), BETTER]
    assert live.predictor.model.version == BETTER


def test_a_swap_that_cannot_be_told_is_not_made_and_tried_again(workspace, store, point_to):
    point_to(GOOD)
    failures = [OSError("no room")]

    @contextmanager
    def swapping(predictor: Predictor) -> Iterator[None]:
        if failures:
            raise failures.pop()
        yield

    live = LiveChampion(workspace, REGISTRY, store, lambda: SYMBOLS, 1, swapping)
    point_to(BETTER)
    with pytest.raises(OSError, match="no room"):
        live.poll()
    assert (live.predictor.model.version, live.swaps, live.refused) == (GOOD, 0, {})
    live.poll()
    assert (live.predictor.model.version, live.swaps) == (BETTER, 1)


def test_a_thread_that_fails_says_so_and_goes_on(workspace, store, point_to):
    point_to(GOOD)
    fails = threading.Event()
    fails.set()

    @contextmanager
    def swapping(predictor: Predictor) -> Iterator[None]:
        if fails.is_set():
            raise OSError("no room")
        yield

    live = LiveChampion(workspace, REGISTRY, store, lambda: SYMBOLS, 0.05, swapping)
    live.start()
    point_to(BETTER)
    wait_until(lambda: not live.status.ok)
    assert "no room" in live.status.detail
    fails.clear()
    wait_until(lambda: live.swaps == 1)
    wait_until(lambda: live.status.ok)
    live.stop()


def test_a_window_that_is_not_finite_is_no_fault_of_the_model(workspace, store, point_to):
    point_to(GOOD)
    real = Predictor(load_champion(workspace, REGISTRY), store)
    asked = []

    class Broken:
        """The store's window of S001 has a NaN."""

        model = real.model

        def forecast(self, symbols):
            asked.append(list(symbols))
            if "S001" in symbols:
                raise NonFiniteWindowError("a NaN", ["S001"])
            return real.forecast(symbols)

    check_predictor(Broken(), SYMBOLS)
    assert [symbol for symbols in asked[1:] for symbol in symbols].count("S001") == 0
    with pytest.raises(NonFiniteWindowError):
        check_predictor(Broken(), ["S001"])


def test_without_the_alias_the_old_one_stays_with_one_warning(live, caplog):
    mlflow.MlflowClient().delete_registered_model_alias("pitwise", "champion")
    live.poll()
    live.poll()
    assert live.predictor.model.version == GOOD
    (line,) = caplog.records
    assert line.levelname == "WARNING"
    assert "has no version of 'pitwise' with the alias 'champion', version 1 stays" in line.message


def test_while_the_registry_is_away_the_old_one_stays_with_one_warning(live, workspace, caplog):
    caplog.set_level(logging.INFO, "pitwise.serving")
    database = workspace.root / "mlflow.db"
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


def test_the_thread_follows_the_alias_and_ends(live, point_to):
    live.start()
    point_to(BETTER)
    wait_until(lambda: live.swaps == 1)
    live.stop()
    assert live.predictor.model.version == BETTER
    assert "champion" not in [thread.name for thread in threading.enumerate()]


def test_forecasts_go_on_through_a_swap(live, point_to):
    seen = set()

    def forecast() -> None:
        until = time.monotonic() + 10
        while BETTER not in seen and time.monotonic() < until:
            answer = live.predictor.forecast(SYMBOLS)
            assert answer.symbols == SYMBOLS
            seen.add(answer.model_version)

    thread = threading.Thread(target=forecast)
    thread.start()
    time.sleep(0.1)
    point_to(BETTER)
    live.poll()
    thread.join()
    assert seen == {GOOD, BETTER}


def test_a_fetched_version_leaves_no_file_behind(live, point_to, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for version in (BETTER, version_of("garbage"), version_of("nan")):
        point_to(version)
        live.poll()
    assert live.swaps == 1
    assert list(tmp_path.iterdir()) == []


def test_a_window_that_changes_in_between_is_no_fault_of_the_model(workspace, store, point_to):
    point_to(GOOD)
    real = Predictor(load_champion(workspace, REGISTRY), store)

    class Shifting:
        """A live bar comes in before each forecast of one symbol: the next symbol's window."""

        model = real.model

        def forecast(self, symbols):
            following = {s: SYMBOLS[(i + 1) % 5] for i, s in enumerate(SYMBOLS)}
            return real.forecast([following[s] for s in symbols] if len(symbols) == 1 else symbols)

    check_predictor(Shifting(), SYMBOLS)
