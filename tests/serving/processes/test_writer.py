"""The writer on a real registry, Feast store and live bars: what it commits is what the store has."""

import os
import shutil
import sqlite3
import time
from contextlib import closing

import pandas as pd
import pytest
from support.models_by_hand import contract, make_champion, onnx_model, register

from feature_repo.store import open_store
from pitwise.bars.calendar import next_session
from pitwise.errors import StoreError
from pitwise.registry.model import RegistryParams
from pitwise.stage import load_params
from pitwise.workspace import Workspace, read_parquet
from serving.http.service import BarOutcome
from serving.inference.predictor import Predictor, load_champion
from serving.live.live_bars import LiveBars
from serving.lock import HeldError
from serving.processes.places import bars_address, state_file
from serving.processes.remote import RemoteBars
from serving.processes.writer import Writer
from serving.settings import ServeParams
from serving.state.database import StateReader

SYMBOLS = [f"S{i:03d}" for i in range(5)]
REGISTRY = RegistryParams(tracking_uri="sqlite:///mlflow.db", model="pitwise")


@pytest.fixture
def workspace(published, tmp_path) -> Workspace:
    """A published market and two versions of a model, the first of them champion."""
    workspace = Workspace(shutil.copytree(published.root, tmp_path / "workspace"))
    register(workspace, onnx_model(0.01), contract())
    register(workspace, onnx_model(0.02), contract())
    make_champion(workspace, "1")
    return workspace


def params_of(workspace: Workspace) -> ServeParams:
    params = load_params(workspace, "serve", ServeParams)
    return params.model_copy(update={"champion_seconds": 0.2})


@pytest.fixture
def writer(workspace, tmp_path):
    with closing(Writer(workspace, params_of(workspace), tmp_path, first=True)) as writer:
        yield writer


@pytest.fixture
def states(workspace, writer):
    with closing(StateReader(state_file(workspace))) as states:
        yield states


def next_bar(workspace: Workspace, symbol: str, factor: float = 1.01) -> dict:
    """The bar of the session after the newest one, at a price moved by a factor."""
    bars = read_parquet(workspace.clean_bars)
    last = bars[bars["symbol"] == symbol].iloc[-1]
    prices = {name: float(last[name]) * factor for name in ("open", "high", "low", "close")}
    date = next_session(last["date"])
    return {"symbol": symbol, "date": f"{date:%Y-%m-%d}", **prices, "volume": 1e6}


def until(holds, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def agrees_with_the_store(workspace: Workspace, state) -> bool:
    """Forecasts and features by another predictor, and by Feast itself, on the store as it is now."""
    store = open_store(workspace)
    found = Predictor(load_champion(workspace, REGISTRY), store).forecast(SYMBOLS)
    names = [field.name for field in store.get_feature_view("daily").features]
    daily = store.get_online_features([f"daily:{name}" for name in names], {"symbol": SYMBOLS})
    values = daily.to_dict(include_event_timestamps=True)
    for i, symbol in enumerate(found.symbols):
        held, features = state.forecasts[symbol], state.features[symbol]
        assert held.window_hash == found.window_hash[i]
        assert held.last_close == found.last_close[i]
        assert held.log_return == pytest.approx(found.log_return[i], abs=1e-6)
        assert held.p_up == pytest.approx(found.p_up[i], abs=1e-6)
        assert pd.Timestamp(held.as_of) == pd.Timestamp(str(found.as_of[i]), tz="UTC")
        for name in names:
            stored = values[name][i]
            assert features.values[name] == (None if pd.isna(stored) else stored)
        assert pd.Timestamp(features.as_of) == pd.Timestamp(values["close__ts"][i], unit="s", tz="UTC")
    return set(state.forecasts) == set(found.symbols) == set(SYMBOLS)


def test_it_starts_with_the_forecasts_of_what_the_store_has(workspace, writer, states):
    state = states.current()
    assert agrees_with_the_store(workspace, state)
    assert writer.facts == {"version": "1", "symbols": 5}
    assert (state.model.version, state.model.window) == ("1", 10)
    assert not any(forecast.provisional for forecast in state.forecasts.values())


def test_a_bar_is_in_the_state_before_it_is_acknowledged(workspace, writer, states, tmp_path):
    bars = RemoteBars(bars_address(tmp_path), 4, 30)
    before = states.current()
    bar = next_bar(workspace, "S001")
    assert bars.take([bar]) == [BarOutcome("S001", bar["date"], "new", "", True)]
    state = states.current()
    assert state.newest == before.newest + 1
    assert state.forecasts["S001"].last_close == pytest.approx(bar["close"], rel=1e-6)
    assert state.features["S001"].values["close"] == bar["close"]
    assert state.forecasts["S001"].provisional
    assert state.changed["S001"] == state.number
    assert state.changed["S002"] == before.changed["S002"]
    assert agrees_with_the_store(workspace, state)
    # Withdrawn, the state is as if it had not come, but for its number.
    assert bars.withdraw("S001", bar["date"]).outcome == "withdrawn"
    after = states.current()
    assert after.number > state.number
    assert after.forecasts["S001"] == before.forecasts["S001"]
    assert agrees_with_the_store(workspace, after)


def test_a_sealed_session_is_provisional_for_nobody(workspace, writer, states, tmp_path):
    bars = RemoteBars(bars_address(tmp_path), 4, 30)
    for symbol in SYMBOLS[:4]:
        bars.take([next_bar(workspace, symbol)])
    assert [states.current().forecasts[symbol].provisional for symbol in SYMBOLS] == [True] * 4 + [False]
    (outcome,) = bars.take([next_bar(workspace, "S004")])
    assert outcome.outcome == "new"
    state = states.current()
    assert not any(forecast.provisional for forecast in state.forecasts.values())
    assert not any(features.provisional for features in state.features.values())
    assert agrees_with_the_store(workspace, state)


def test_a_swap_is_a_state_of_the_new_version_alone(workspace, writer, states):
    before = states.current()
    make_champion(workspace, "2")
    until(lambda: states.current().model.version == "2")
    state = states.current()
    assert state.model.swaps == 1
    assert state.model.identity != before.model.identity
    assert agrees_with_the_store(workspace, state)
    for symbol in SYMBOLS:  # by models_by_hand: twice the scale, twice the return
        twice = 2 * before.forecasts[symbol].log_return
        assert state.forecasts[symbol].log_return == pytest.approx(twice, rel=1e-4)


def test_a_refused_version_shows_in_the_state_and_goes(workspace, writer, states):
    broken = register(workspace, onnx_model(p_up_offset=2.0), contract())
    before = states.current()
    make_champion(workspace, broken)
    until(lambda: states.current().model.refused)
    assert "p_up outside 0 to 1" in states.current().model.refused[broken]
    assert states.current().forecasts == before.forecasts
    make_champion(workspace, "1")
    until(lambda: not states.current().model.refused)


def test_a_store_that_loses_its_data_is_filled_again_with_live_bars_too(
    workspace, writer, states, tmp_path
):
    bars = RemoteBars(bars_address(tmp_path), 4, 30)
    bar = next_bar(workspace, "S001")
    bars.take([bar])
    held = states.current()
    until(lambda: states.statuses()["store"].ok)
    with closing(sqlite3.connect(workspace.root / "data/feast/online.db")) as database, database:
        tables = [
            name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        for table in tables:
            database.execute(f'DELETE FROM "{table}"')
    until(lambda: not states.statuses()["store"].ok)
    assert "has lost its data" in states.statuses()["store"].detail
    assert states.current().forecasts == held.forecasts  # they are answered meanwhile
    until(lambda: states.statuses()["store"].ok)
    assert states.statuses()["store"].figures["rebuilt"] >= 1
    assert agrees_with_the_store(workspace, states.current())
    assert states.current().forecasts["S001"].last_close == pytest.approx(bar["close"], rel=1e-6)


def test_every_part_says_how_it_does(writer, states):
    statuses = states.statuses()
    assert set(statuses) == {
        "store",
        "champion",
        "registry",
        "live_bars",
        "log_database",
        "bars",
        "writer",
    }
    assert {part: status.detail for part, status in statuses.items() if not status.ok} == {}
    assert statuses["writer"].figures == {"pid": os.getpid()}
    seen = statuses["writer"].at
    until(lambda: states.statuses()["writer"].at > seen)


def test_there_is_one_writer(workspace, writer, tmp_path):
    with pytest.raises(HeldError, match="another service takes live bars here"):
        Writer(workspace, params_of(workspace), tmp_path, first=False)


def test_it_goes_on_where_the_one_before_ended(workspace, tmp_path):
    params = params_of(workspace)
    with closing(Writer(workspace, params, tmp_path, first=True)):
        RemoteBars(bars_address(tmp_path), 4, 30).take([next_bar(workspace, "S001")])
        with closing(StateReader(state_file(workspace))) as states:
            before = states.current()
    with closing(Writer(workspace, params, tmp_path, first=False)):
        with closing(StateReader(state_file(workspace))) as states:
            state = states.current()
        assert state.number >= before.number
        assert state.forecasts.keys() == before.forecasts.keys()
        assert state.forecasts["S001"].last_close == before.forecasts["S001"].last_close
        assert agrees_with_the_store(workspace, state)


def test_a_store_that_lost_windows_before_the_start_is_filled_again(workspace, tmp_path):
    params = params_of(workspace)
    with closing(Writer(workspace, params, tmp_path, first=True)):
        pass
    with closing(sqlite3.connect(workspace.root / "data/feast/online.db")) as database, database:
        before = database.execute("SELECT COUNT(*) FROM pitwise_windows_rows").fetchone()
        database.execute("DELETE FROM pitwise_windows_rows WHERE rowid % 2")
    with closing(Writer(workspace, params, tmp_path, first=False)) as writer:
        assert writer.facts["symbols"] == 5
    with closing(sqlite3.connect(workspace.root / "data/feast/online.db")) as database:
        assert database.execute("SELECT COUNT(*) FROM pitwise_windows_rows").fetchone() == before


def test_a_part_that_is_missing_lets_go_of_the_others(workspace, tmp_path, monkeypatch):
    """What failed is named, and the next start finds the workspace free."""
    params = params_of(workspace)
    with monkeypatch.context() as patched:
        patched.setattr("serving.processes.writer.LiveChampion", _missing)
        with pytest.raises(StoreError, match="there is no champion"):
            Writer(workspace, params, tmp_path, first=True)
    LiveBars(workspace, open_store(workspace), 10).close()


def _missing(*_):
    raise StoreError("there is no champion")


def test_a_log_that_cannot_be_is_an_error_of_the_start_alone(workspace, tmp_path):
    text = workspace.params.read_text()
    workspace.params.write_text(
        text.replace("data/predictions/log.db", "data/clean/bars.parquet/log.db")
    )
    params = params_of(workspace)
    with pytest.raises(StoreError, match=r"log\.db"):
        Writer(workspace, params, tmp_path, first=True)
    with closing(Writer(workspace, params, tmp_path, first=False)) as writer:
        assert writer.facts["symbols"] == 5
