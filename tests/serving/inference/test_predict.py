"""A champion run from a real Feast store, in this process and as the stage in one of its own."""

import hashlib
import pickle
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace

import numpy as np
import onnx
import pandas as pd
import pyarrow as pa
import pytest
from sqlalchemy import create_engine, text
from support import small_runs as small
from support.models_by_hand import FEATURES, make_champion, onnx_model, register
from support.once import once

from feature_repo import publish
from feature_repo.publish import window_table
from feature_repo.store import open_store
from pitwise.bars.calendar import next_session
from pitwise.errors import StoreError
from pitwise.features.errors import (
    EmptyStoreError,
    NonFiniteForecastError,
    NonFiniteWindowError,
    WindowSchemaError,
)
from pitwise.features.history import CREATED
from pitwise.features.indicators import NAMES
from pitwise.features.windows import HEADER, gather, packed
from pitwise.registry.contract import open_onnx, run_onnx
from pitwise.registry.model import RegisteredModel, RegistryParams
from pitwise.workspace import Workspace, read_parquet
from serving.inference.latest import latest_forecasts
from serving.inference.marks import Marks
from serving.inference.predictor import Predictor, load_champion
from training import dataset

REGISTRY = RegistryParams(tracking_uri="sqlite:///mlflow.db", model="pitwise")
PREDICT_TWICE = """
import sys
from pathlib import Path
from pitwise.workspace import Workspace
from serving.inference import predict
for _ in range(2):
    predict.main(Workspace(Path.cwd()))
loaded = {name.partition(".")[0] for name in sys.modules}
assert {"feast", "mlflow", "onnxruntime"} <= loaded
print(*sorted(loaded & {"training", "monitoring"}))
"""


@dataclass
class Run:
    """A finished run, and what came out of it."""

    workspace: Workspace
    store: object
    rows: pd.DataFrame
    champion: RegisteredModel


def build(folder: Path) -> None:
    """Seven stocks: S001 delisted, S002 listed too late for a window, S003 often halted."""
    bars = small.market(7, 150, seed=11)
    days = pd.Series(bars["date"].unique())
    rng = np.random.default_rng(11)
    kept = ~(
        (bars["symbol"] == "S001") & (bars["date"] >= days[130])
        | (bars["symbol"] == "S002") & (bars["date"] < days[135])
        | (bars["symbol"] == "S003") & (rng.random(len(bars)) < 0.1) & (bars["date"] < days[149])
    )
    bars = bars[kept].reset_index(drop=True)
    workspace = small.make_workspace(folder, bars)
    publish.main(workspace)
    dataset.main(workspace)
    small.register_champion(workspace, read_parquet(workspace.dataset_rows))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    workspace = Workspace(once(tmp_path_factory, "seven_stocks", build))
    champion = load_champion(workspace, REGISTRY)
    return Run(workspace, open_store(workspace), read_parquet(workspace.dataset_rows), champion)


@pytest.fixture(scope="module")
def predictor(run) -> Predictor:
    return Predictor(run.champion, run.store)


@pytest.fixture(scope="module")
def last_windows(run) -> tuple[list[str], np.ndarray, pd.Series]:
    """Every symbol that has a window, its last one from the offline store, and its instant."""
    rows = run.rows
    last = rows[rows["ends_window"]].groupby("symbol").tail(1)
    values = rows[list(small.FEATURES)].to_numpy("float32")
    windows = gather(values, last.index.to_numpy(), small.WINDOW)
    return last["symbol"].tolist(), windows, last["event_timestamp"].reset_index(drop=True)


@dataclass
class Stage:
    workspace: Workspace
    loaded: str
    """Of the other packages, those the process had loaded by its end."""


@pytest.fixture(scope="module")
def stage(run, tmp_path_factory) -> Stage:
    """Stage `predict`, run twice in a process of its own, in a copy of the run."""
    folder = tmp_path_factory.mktemp("predict") / "workspace"
    workspace = Workspace(shutil.copytree(run.workspace.root, folder))
    return Stage(
        workspace, small.run_python(workspace, small.WITHOUT_TORCH + PREDICT_TWICE).splitlines()[-1]
    )


def test_rows_through_feast_are_the_rows_of_the_bars(run):
    expected = small.dataset_rows(read_parquet(run.workspace.clean_bars))
    pd.testing.assert_frame_equal(
        run.rows[expected.columns], expected, check_exact=True, check_dtype=False
    )


def test_the_online_window_of_every_symbol_is_the_offline_one_bit_for_bit(predictor, last_windows):
    symbols, offline, instants = last_windows
    assert symbols == ["S000", "S001", "S003", "S004", "S005", "S006"]
    windows = predictor.windows(symbols)
    assert (windows.symbols, windows.missing) == (symbols, [])
    assert windows.values.dtype == np.float32
    found = windows.values[:, :, [NAMES.index(name) for name in small.FEATURES]]
    np.testing.assert_array_equal(found, offline)
    assert (pd.to_datetime(windows.as_of, utc=True) == instants).all()


def test_a_windows_hash_is_that_of_its_rows_and_of_all_their_features(run, predictor):
    own = run.rows[run.rows["symbol"] == "S005"]
    stored = own[NAMES].tail(small.WINDOW).to_numpy("<f4").tobytes()
    (found,) = predictor.forecast(["S005"]).window_hash
    assert found == hashlib.blake2b(stored, digest_size=8).hexdigest()
    assert len(found) == 16


def test_predictions_are_the_models_on_the_offline_windows_bit_for_bit(predictor, last_windows):
    symbols, offline, instants = last_windows
    forecasts = predictor.forecast(symbols)
    expected = run_onnx(predictor.model.session, offline)
    assert (forecasts.symbols, forecasts.missing) == (symbols, [])
    assert (forecasts.log_return == expected["log_return"].astype(float)).all()
    assert (forecasts.p_up == expected["p_up"].astype(float)).all()
    assert forecasts.log_return.dtype == forecasts.p_up.dtype == forecasts.price.dtype == np.float64
    assert (pd.to_datetime(forecasts.as_of, utc=True) == instants).all()
    assert forecasts.model_version == "1"


def test_forecasts_as_a_frame_are_the_same(predictor, last_windows):
    symbols, _, instants = last_windows
    forecasts = predictor.forecast([*symbols, "NOSUCH"])
    frame = forecasts.frame()
    assert list(frame) == [
        *("symbol", "as_of", "horizon", "score", "log_return", "price", "p_up", "scale"),
        *("model_version", "window_hash"),
    ]
    assert (frame["as_of"] == instants).all()
    assert str(frame["as_of"].dt.tz) == "UTC"
    assert (frame["model_version"] == "1").all()
    for name in ("score", "log_return", "price", "p_up", "window_hash"):
        assert frame[name].tolist() == list(getattr(forecasts, name))


def test_the_price_is_the_last_close_moved_by_the_return(run, predictor, last_windows):
    symbols, _, _ = last_windows
    forecasts = predictor.forecast(symbols)
    closes = run.rows.groupby("symbol")["close"].last()[symbols].to_numpy()
    shown = [float(f"{np.float32(close):.7g}") for close in closes]
    assert forecasts.last_close.tolist() == shown
    np.testing.assert_allclose(forecasts.price, closes * np.exp(forecasts.log_return), rtol=6e-7)


def test_forecasts_come_in_the_order_of_the_symbols(predictor, last_windows):
    symbols, _, _ = last_windows
    forward = predictor.forecast(symbols).frame().set_index("symbol")
    backward = predictor.forecast(symbols[::-1]).frame().set_index("symbol")
    assert backward.index.tolist() == symbols[::-1]
    for name in ("as_of", "window_hash"):
        assert (backward.loc[symbols, name] == forward[name]).all()
    np.testing.assert_allclose(backward.loc[symbols, "p_up"], forward["p_up"], atol=1e-6)
    (alone,) = predictor.forecast(["S005"]).p_up
    assert alone == pytest.approx(forward.loc["S005", "p_up"], abs=1e-6)


@pytest.mark.parametrize("symbol", ["NOSUCH", "S002"])
def test_a_symbol_without_a_window_is_named_and_the_others_are_forecast(predictor, symbol):
    forecasts = predictor.forecast(["S005", symbol, "S000"])
    assert (forecasts.symbols, forecasts.missing) == (["S005", "S000"], [symbol])
    expected = predictor.forecast(["S005", "S000"])
    assert forecasts.window_hash == expected.window_hash
    np.testing.assert_array_equal(forecasts.price, expected.price)
    np.testing.assert_array_equal(forecasts.as_of, expected.as_of)


def test_symbols_none_of_which_has_a_window_are_forecast_as_none(predictor):
    forecasts = predictor.forecast(["NOSUCH", "S002"])
    assert (forecasts.symbols, forecasts.missing) == ([], ["NOSUCH", "S002"])
    assert forecasts.frame().empty


def test_no_symbols_is_refused(predictor):
    with pytest.raises(ValueError, match="no symbols"):
        predictor.forecast([])


def test_each_step_is_timed(predictor):
    steps = {}
    started = perf_counter()
    predictor.forecast(["S000"], seconds=steps.__setitem__)
    assert list(steps) == ["lookup", "model"]
    assert min(steps.values()) > 0
    assert sum(steps.values()) <= perf_counter() - started


def test_a_model_of_another_window_is_refused(run):
    other = Predictor(replace(run.champion, window=small.WINDOW + 1), run.store)
    with pytest.raises(StoreError, match=rf"windows of {small.WINDOW + 1} .* holds {small.WINDOW}\."):
        other.forecast(["S000"])


class AlteredStore:
    """A store of which some windows are other bytes, by symbol; None: it has none."""

    def __init__(self, store, windows: dict[str, bytes | None]):
        self._store, self._windows = store, windows
        self.get_feature_view = store.get_feature_view

    def get_online_features(self, features, entity_rows):
        answer = self._store.get_online_features(features=features, entity_rows=entity_rows)
        table = answer.to_dict(include_event_timestamps=True)
        table["window"] = [
            self._windows.get(symbol, window)
            for symbol, window in zip(entity_rows["symbol"], table["window"], strict=True)
        ]
        return SimpleNamespace(to_dict=lambda include_event_timestamps: table)


OTHER_ORDER = [*NAMES[1:], NAMES[0]]
VALUES = np.ones((1, small.WINDOW, len(NAMES)), "float32")


@pytest.mark.parametrize(
    "window",
    [
        packed(VALUES, OTHER_ORDER)[0],
        packed(VALUES)[0][HEADER:],
        packed(VALUES[:, 1:, 1:], NAMES[1:])[0],
        b"",
    ],
    ids=["another_order", "no_header", "fewer_features", "nothing"],
)
def test_windows_of_another_schema_are_refused_and_the_symbols_named(run, window):
    predictor = Predictor(run.champion, AlteredStore(run.store, {"S003": window}))
    with pytest.raises(WindowSchemaError, match=r"windows of S003 are not of .*dvc repro publish"):
        predictor.forecast(["S000", "S003"])
    assert predictor.forecast(["S000"]).symbols == ["S000"]


def test_a_model_reads_the_order_that_the_store_names_and_not_this_versions(run):
    values = np.arange(VALUES.size, dtype="float32").reshape(VALUES.shape)
    store = AlteredStore(run.store, {"S000": packed(values, OTHER_ORDER)[0]})
    store.get_feature_view = lambda name: SimpleNamespace(tags={"features": ",".join(OTHER_ORDER)})
    forecasts = Predictor(run.champion, store).forecast(["S000"])
    columns = [OTHER_ORDER.index(name) for name in run.champion.features]
    expected = run_onnx(run.champion.session, np.ascontiguousarray(values[:, :, columns]))
    assert forecasts.p_up.tolist() == expected["p_up"].astype(float).tolist()
    assert forecasts.last_close.tolist() == [values[0, -1, OTHER_ORDER.index("close")]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_window_that_is_not_finite_is_an_error_of_its_symbols_alone(run, predictor, value):
    before = predictor.forecast(["S000", "S003", "S005"])
    (stored,) = predictor.windows(["S003"]).values
    unread = next(name for name in NAMES if name not in (*run.champion.features, "close"))
    for feature in (unread, run.champion.features[0]):
        values = stored.copy()
        values[3, NAMES.index(feature)] = value
        altered = Predictor(run.champion, AlteredStore(run.store, {"S003": packed(values[None])[0]}))
        if feature == unread:
            found = altered.forecast(["S000", "S003", "S005"])
            np.testing.assert_array_equal(found.price, before.price)
            continue
        with pytest.raises(NonFiniteWindowError, match="windows of S003 have a NaN") as raised:
            altered.forecast(["S000", "S003", "S005"])
        assert raised.value.symbols == ["S003"]
        assert altered.forecast(["S000", "S005"]).symbols == ["S000", "S005"]


def test_an_infinite_last_close_is_refused_though_the_model_may_not_read_it(run, predictor):
    (values,) = predictor.windows(["S003"]).values.copy()
    values[-1, NAMES.index("close")] = np.inf
    altered = AlteredStore(run.store, {"S003": packed(values[None])[0]})
    scale_free = replace(run.champion, features=("rsi_14",) * len(run.champion.features))
    with pytest.raises(NonFiniteWindowError):
        Predictor(scale_free, altered).forecast(["S003"])


@pytest.mark.parametrize(
    "broken", [{"scale": np.nan}, {"scale": np.inf}, {"p_up_offset": np.nan}, {"scale": 1e6}]
)
def test_a_forecast_that_is_not_finite_names_its_version_and_symbols(run, tmp_path, broken):
    onnx.save(onnx_model(**broken), tmp_path / "model.onnx")
    by_hand = replace(
        run.champion,
        version="17",
        features=FEATURES,
        window=small.WINDOW,
        session=open_onnx(tmp_path / "model.onnx"),
    )
    with pytest.raises(NonFiniteForecastError, match=r"version 17 .* for S000, S005") as raised:
        Predictor(by_hand, run.store).forecast(["S000", "S005"])
    assert raised.value.symbols == ["S000", "S005"]


def test_published_symbols_without_a_window_are_a_store_that_lost_its_data(run):
    published = [f"S00{i}" for i in (0, 1, 3, 4, 5, 6)]
    altered = AlteredStore(run.store, dict.fromkeys(published))
    predictor = Predictor(run.champion, altered, published)
    with pytest.raises(EmptyStoreError, match=r"of S000, S001, S003, S004, S005 and 1 more, ") as raised:
        predictor.forecast([*published, "NOSUCH"])
    assert raised.value.symbols == published
    assert predictor.forecast(["NOSUCH", "S002"]).missing == ["NOSUCH", "S002"]
    assert Predictor(run.champion, altered).forecast(published).missing == published


def test_errors_keep_their_symbols_from_one_process_to_another():
    error = pickle.loads(pickle.dumps(NonFiniteWindowError("a NaN", ["A", "B"])))
    assert (type(error), str(error), error.symbols) == (NonFiniteWindowError, "a NaN", ["A", "B"])


def test_a_feature_the_store_does_not_serve_is_named(run):
    wants_more = replace(run.champion, features=(*small.FEATURES, "moon_phase"))
    with pytest.raises(StoreError, match=r"wants moon_phase, .*'windows'"):
        Predictor(wants_more, run.store)


def test_a_store_without_the_windows_says_what_to_run(run, tmp_path):
    empty = small.new_workspace(tmp_path)
    empty.published.parent.mkdir(parents=True)
    with pytest.raises(StoreError, match=r"no view 'windows'.*publish"):
        Predictor(run.champion, open_store(empty))


def test_a_registry_without_a_champion_says_so(run):
    with pytest.raises(StoreError, match=r"'nobody' has no version with the alias 'champion'"):
        load_champion(run.workspace, REGISTRY.model_copy(update={"model": "nobody"}))


def test_a_champion_without_a_contract_is_refused(run, tmp_path):
    model = onnx.load(run.workspace.root / "model.onnx")
    version = register(Workspace(tmp_path), model, None, name="foreign")
    make_champion(Workspace(tmp_path), version, name="foreign")
    with pytest.raises(StoreError, match=r"foreign version 1 does not name its features"):
        load_champion(Workspace(tmp_path), REGISTRY.model_copy(update={"model": "foreign"}))


def test_every_symbol_that_ends_a_window_in_the_dataset_has_one_in_the_store():
    """These features need 14 sessions, the store's others 21: a late listing must not fall between."""
    bars = small.market(4, 150, seed=12)
    late = (bars["symbol"] == "S003") & (bars["date"] < bars["date"].iloc[125])
    bars = bars[~late].reset_index(drop=True)
    rows = small.dataset_rows(bars)
    rows[CREATED] = rows["event_timestamp"]
    since = rows["event_timestamp"].drop_duplicates().nlargest(5).min()
    windows, _ = window_table(pa.Table.from_pandas(rows), small.WINDOW, since)
    assert set(rows.loc[rows["ends_window"], "symbol"]) <= set(windows["symbol"].to_pylist())


def test_a_forecast_needs_neither_torch_nor_training(stage):
    assert stage.loaded == ""


def test_the_stage_writes_a_forecast_for_each_symbol_that_trades(stage, predictor):
    latest = read_parquet(stage.workspace.latest_predictions)
    trading = ["S000", "S003", "S004", "S005", "S006"]
    assert sorted(latest["symbol"]) == trading
    assert latest["as_of"].nunique() == 1
    last_session = latest["as_of"].iloc[0].tz_convert(None).normalize()
    assert {pd.Timestamp(day) for day in latest["for_session"]} == {next_session(last_session)}
    ours = predictor.forecast(latest["symbol"].tolist())
    np.testing.assert_allclose(latest["p_up"], ours.p_up, atol=1e-6)
    np.testing.assert_allclose(latest["price"], ours.price, rtol=1e-6)
    assert latest["window_hash"].tolist() == ours.window_hash


def test_the_forecast_of_a_suspect_symbol_is_marked_or_withheld(run, tmp_path, capsys):
    workspace = Workspace(shutil.copytree(run.workspace.root, tmp_path / "workspace"))
    publish.main(workspace)  # Feast's registry knows absolute paths
    marks = Marks({}, {"S004": "split"})
    marked = latest_forecasts(workspace, run.champion, marks).set_index("symbol")
    assert marked["suspect"].dropna().to_dict() == {"S004": "split"}
    assert marked["unusual"].isna().all()
    small.change_params(workspace, predict={"suspect": "withhold"})
    withheld = latest_forecasts(workspace, run.champion, marks)
    assert withheld["symbol"].tolist() == ["S000", "S003", "S005", "S006"]
    assert "(0 new in the log, 1 withheld, 1 symbols no longer trade)" in capsys.readouterr().out
    kept = read_parquet(workspace.latest_predictions)
    assert kept["symbol"].tolist() == withheld["symbol"].tolist()


def test_the_stage_logs_each_forecast_once_however_often_it_runs(stage):
    latest = read_parquet(stage.workspace.latest_predictions)
    with create_engine(
        f"sqlite:///{stage.workspace.root}/data/predictions/log.db"
    ).connect() as connection:
        rows = connection.execute(text("select symbol, log_return from predictions")).all()
    assert dict(tuple(row) for row in rows) == dict(latest[["symbol", "log_return"]].to_numpy())
    assert len(rows) == len(latest)


def test_a_loaded_champion_returns_what_its_file_returns(run, last_windows):
    _, offline, _ = last_windows
    exported = open_onnx(run.workspace.root / "model.onnx")
    expected = run_onnx(exported, offline)
    assert (run_onnx(run.champion.session, offline)["p_up"] == expected["p_up"]).all()
