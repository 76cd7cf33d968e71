"""A champion run from a real Feast store, in this process and as the stage in one of its own."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import create_engine, text

from feature_repo.artifacts import read_parquet
from feature_repo.errors import StoreError
from feature_repo.indicators import NAMES
from feature_repo.model import RegisteredModel, open_onnx, run_onnx
from feature_repo.publish import window_table
from feature_repo.revisions import CREATED
from feature_repo.sessions import next_session
from feature_repo.windows import gather
from serving.predict import PredictParams, history
from serving.predictor import Predictor, load_champion, open_store
from tests import models_for_tests as small

STAGES = """
from feature_repo import publish
from training import dataset
publish.main()
dataset.main()
"""
PREDICT_TWICE = """
import sys
import serving.predict, serving.prediction_log, serving.predictor
serving.predict.main()
serving.predict.main()
loaded = {name.partition(".")[0] for name in sys.modules}
assert {"feast", "mlflow", "onnxruntime"} <= loaded
print(*sorted(loaded & {"torch", "pytorch_lightning", "training", "monitoring"}))
"""


@dataclass
class Workspace:
    folder: Path
    store: object
    rows: pd.DataFrame
    champion: RegisteredModel

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder}/mlflow.db"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    """Seven stocks: S001 delisted, S002 listed too late for a window, S003 often halted."""
    from feast import FeatureStore

    folder = tmp_path_factory.mktemp("serving")
    bars = small.market(7, 150, seed=11)
    days = pd.Series(bars["date"].unique())
    rng = np.random.default_rng(11)
    kept = ~(
        (bars["symbol"] == "S001") & (bars["date"] >= days[130])
        | (bars["symbol"] == "S002") & (bars["date"] < days[135])
        | (bars["symbol"] == "S003") & (rng.random(len(bars)) < 0.1) & (bars["date"] < days[149])
    )
    small.make_workspace(folder, bars[kept].reset_index(drop=True), predict={"reference_windows": 50})
    small.copy_rooms(folder)
    small.run_python(folder, STAGES)
    rows = read_parquet(folder / "data/dataset/rows.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        small.register_champion(folder, rows)
        champion = load_champion(f"sqlite:///{folder}/mlflow.db", "pitwise")
        yield Workspace(folder, FeatureStore(str(folder / "feature_repo")), rows, champion)


@pytest.fixture(scope="module")
def predictor(workspace) -> Predictor:
    return Predictor(workspace.champion, workspace.store)


@pytest.fixture(scope="module")
def last_windows(workspace) -> tuple[list[str], np.ndarray, pd.Series]:
    """Every symbol that has a window, its last one from the offline store, and its instant."""
    rows = workspace.rows
    last = rows[rows["ends_window"]].groupby("symbol").tail(1)
    values = rows[list(small.FEATURES)].to_numpy("float32")
    windows = gather(values, last.index.to_numpy(), small.WINDOW)
    return last["symbol"].tolist(), windows, last["event_timestamp"].reset_index(drop=True)


@dataclass
class Stage:
    folder: Path
    loaded: str
    """Of torch and the other rooms, what the process had loaded by its end."""


@pytest.fixture(scope="module")
def stage(workspace) -> Stage:
    """Stage `predict`, run twice in a process of its own."""
    loaded = small.run_python(workspace.folder, PREDICT_TWICE).splitlines()[-1]
    return Stage(workspace.folder, loaded)


def test_rows_through_feast_are_the_rows_of_the_bars(workspace):
    expected = small.dataset_rows(read_parquet(workspace.folder / "data/clean/bars.parquet"))
    pd.testing.assert_frame_equal(
        workspace.rows[expected.columns], expected, check_exact=True, check_dtype=False
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


def test_a_windows_hash_is_that_of_its_rows_and_of_all_their_features(workspace, predictor):
    own = workspace.rows[workspace.rows["symbol"] == "S005"]
    stored = own[NAMES].tail(small.WINDOW).to_numpy("<f4").tobytes()
    (told,) = predictor.forecast(["S005"]).window_hash
    assert told == hashlib.blake2b(stored, digest_size=8).hexdigest()
    assert len(told) == 16


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


def test_forecasts_as_a_frame_say_the_same(predictor, last_windows):
    symbols, _, instants = last_windows
    forecasts = predictor.forecast([*symbols, "NOSUCH"])
    frame = forecasts.frame()
    columns = ["symbol", "as_of", "log_return", "price", "p_up", "model_version", "window_hash"]
    assert list(frame) == columns
    assert (frame["as_of"] == instants).all()
    assert str(frame["as_of"].dt.tz) == "UTC"
    assert (frame["model_version"] == "1").all()
    for name in ("log_return", "price", "p_up", "window_hash"):
        assert frame[name].tolist() == list(getattr(forecasts, name))


def test_the_price_is_the_last_close_moved_by_the_return(workspace, predictor, last_windows):
    symbols, _, _ = last_windows
    forecasts = predictor.forecast(symbols)
    closes = workspace.rows.groupby("symbol")["close"].last()[symbols].to_numpy()
    shown = [float(f"{np.float32(close):.7g}") for close in closes]
    assert forecasts.last_close.tolist() == shown
    np.testing.assert_allclose(forecasts.price, closes * np.exp(forecasts.log_return), rtol=6e-7)


def test_answers_come_in_the_order_asked(predictor, last_windows):
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
    told = {}
    started = perf_counter()
    predictor.forecast(["S000"], seconds=told.__setitem__)
    assert list(told) == ["lookup", "model"]
    assert min(told.values()) > 0
    assert sum(told.values()) <= perf_counter() - started


def test_a_model_of_another_window_is_refused(workspace):
    other = Predictor(replace(workspace.champion, window=small.WINDOW + 1), workspace.store)
    with pytest.raises(StoreError, match=rf"windows of {small.WINDOW + 1} .* holds {small.WINDOW}\."):
        other.forecast(["S000"])


def test_a_feature_the_store_does_not_serve_is_named(workspace):
    wants_more = replace(workspace.champion, features=(*small.FEATURES, "moon_phase"))
    with pytest.raises(StoreError, match=r"wants moon_phase, .*'windows'"):
        Predictor(wants_more, workspace.store)


def test_a_store_without_the_windows_says_what_to_run(workspace, tmp_path):
    repo = tmp_path / "feature_repo"
    repo.mkdir()
    (tmp_path / "data/feast").mkdir(parents=True)
    (repo / "feature_store.yaml").write_text(
        (small.PROJECT / "feature_repo/feature_store.yaml").read_text()
    )
    with pytest.raises(StoreError, match=r"no view 'windows'.*publish"):
        Predictor(workspace.champion, open_store(repo))


def test_a_registry_without_a_champion_says_so(workspace):
    with pytest.raises(StoreError, match=r"'nobody' has no version with the alias 'champion'"):
        load_champion(workspace.uri, "nobody")


def test_a_champion_that_says_not_what_it_wants_is_refused(workspace):
    import mlflow
    import onnx

    mlflow.set_tracking_uri(workspace.uri)
    with mlflow.start_run():
        mlflow.onnx.log_model(
            onnx.load(workspace.folder / "model.onnx"),
            name="model",
            registered_model_name="foreign",
            pip_requirements=["onnxruntime"],
        )
    mlflow.MlflowClient().set_registered_model_alias("foreign", "champion", "1")
    with pytest.raises(StoreError, match=r"foreign version 1 does not say which features"):
        load_champion(workspace.uri, "foreign")


def test_every_symbol_that_ends_a_window_in_the_dataset_has_one_in_the_store():
    """These features need 14 sessions, the store's others 21: a late listing must not fall between."""
    bars = small.market(4, 150, seed=12)
    late = (bars["symbol"] == "S003") & (bars["date"] < bars["date"].iloc[125])
    bars = bars[~late].reset_index(drop=True)
    rows = small.dataset_rows(bars)
    rows[CREATED] = rows["event_timestamp"]
    served = set(window_table(rows, small.WINDOW, 5)["symbol"].to_pylist())
    assert set(rows.loc[rows["ends_window"], "symbol"]) <= served


def test_a_forecast_loads_neither_torch_nor_training(stage):
    assert stage.loaded == ""


def test_the_stage_writes_a_forecast_for_each_symbol_that_trades(stage, predictor):
    latest = read_parquet(stage.folder / "data/predictions/latest.parquet")
    trading = ["S000", "S003", "S004", "S005", "S006"]
    assert sorted(latest["symbol"]) == trading
    assert latest["as_of"].nunique() == 1
    last_session = latest["as_of"].iloc[0].tz_convert(None).normalize()
    assert {pd.Timestamp(day) for day in latest["for_session"]} == {next_session(last_session)}
    ours = predictor.forecast(latest["symbol"].tolist())
    np.testing.assert_allclose(latest["p_up"], ours.p_up, atol=1e-6)
    np.testing.assert_allclose(latest["price"], ours.price, rtol=1e-6)
    assert latest["window_hash"].tolist() == ours.window_hash


def test_the_stage_logs_each_forecast_once_however_often_it_runs(stage):
    latest = read_parquet(stage.folder / "data/predictions/latest.parquet")
    with create_engine(f"sqlite:///{stage.folder}/data/predictions/log.db").connect() as connection:
        rows = connection.execute(text("select symbol, log_return from predictions")).all()
    assert dict(tuple(row) for row in rows) == dict(latest[["symbol", "log_return"]].to_numpy())
    assert len(rows) == len(latest)


def test_the_stage_keeps_what_monitoring_compares(stage, workspace):
    kept = read_parquet(stage.folder / "data/predictions/history.parquet")
    assert (kept["part"] == "reference").sum() == 50
    assert set(kept["part"]) == {"reference", "recent"}
    assert set(kept["model_version"]) == {workspace.champion.version}


def test_history_is_a_sample_of_training_dates_and_all_of_the_last_sessions(workspace):
    rows, model = workspace.rows, workspace.champion
    params = PredictParams(log_url="", reference_windows=40, recent_sessions=3, seed=1)
    table = history(model, rows, params)
    reference, recent = (table[table["part"] == name] for name in ("reference", "recent"))
    assert len(reference) == 40
    assert reference.index.is_unique
    assert (rows.loc[reference.index, "split"] == "train").all()
    days = rows["event_timestamp"].drop_duplicates().nlargest(3)
    of_days = rows.index[rows["ends_window"] & rows["event_timestamp"].isin(days)]
    assert recent.index.tolist() == of_days.tolist()
    assert not {"split", "label", "next_close", "ends_window"} & set(table)
    values = rows[list(small.FEATURES)].to_numpy("float32")
    expected = run_onnx(model.session, gather(values, table.index.to_numpy(), small.WINDOW))
    np.testing.assert_allclose(table["p_up"], expected["p_up"], atol=1e-6)
    np.testing.assert_allclose(table["log_return"], expected["log_return"], atol=1e-6)


def test_history_takes_the_seeds_sample_and_no_more_than_there_is(workspace):
    def sample(seed: int, size: int = 40) -> list[int]:
        params = PredictParams(log_url="", reference_windows=size, recent_sessions=1, seed=seed)
        table = history(workspace.champion, workspace.rows, params)
        return table.index[table["part"] == "reference"].tolist()

    assert sample(1) == sample(1) != sample(2)
    assert sample(1, 10**6) == workspace.rows.index[workspace.rows["split"] == "train"].tolist()


def test_a_loaded_champion_says_what_its_file_said(workspace, last_windows):
    _, offline, _ = last_windows
    exported = open_onnx(workspace.folder / "model.onnx")
    expected = run_onnx(exported, offline)
    assert (run_onnx(workspace.champion.session, offline)["p_up"] == expected["p_up"]).all()
