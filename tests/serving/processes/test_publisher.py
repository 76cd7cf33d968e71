"""From live bars, champion and store to a state: what a change touches is computed anew."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pitwise.errors import StoreError
from pitwise.features.errors import (
    EmptyStoreError,
    NonFiniteForecastError,
    NonFiniteWindowError,
    UnreachableStoreError,
)
from pitwise.features.history import CREATED
from serving.inference.marks import Marks
from serving.inference.predictor import Forecasts
from serving.processes.canary import Canary
from serving.processes.publisher import DailyRows, Publisher
from serving.state.database import StateReader, StateWriter
from serving.state.market import ModelInfo

THURSDAY = np.datetime64("2013-10-31T20:00:00", "us")
FRIDAY = np.datetime64("2013-11-01T20:00:00", "us")
MONDAY = np.datetime64("2013-11-04T21:00:00", "us")
"""Closes of three sessions in a row; the clocks change in between."""


class Market:
    """A store, live bars and a model in one: `rows` has each symbol's close and newest session."""

    def __init__(self):
        self.rows = {"A": (10.0, FRIDAY), "B": (20.0, FRIDAY), "C": (30.0, THURSDAY)}
        self.symbols = ["A", "B", "C"]
        self.newest = self.sealed = FRIDAY
        self.missing_sessions = {"C": 2}
        self.marks = Marks({"A": (FRIDAY, True), "B": (THURSDAY, True)}, {"B": "split"})
        self.asked: list[list[str]] = []
        self.looked_up: list[list[str]] = []
        self.horizon = 1
        self.faults: dict[str, Exception] = {}
        self.store_fault: Exception | None = None
        self.daily_fault: Exception | None = None

    def get_feature_view(self, name):
        assert name == "daily"
        return SimpleNamespace(features=[SimpleNamespace(name="close"), SimpleNamespace(name="rsi_14")])

    def get_online_features(self, features, entity_rows):
        assert features == ["daily:close", "daily:rsi_14"]
        if self.store_fault or self.daily_fault:
            raise self.store_fault or self.daily_fault
        self.looked_up.append(list(entity_rows["symbol"]))
        rows = [self.rows.get(symbol) for symbol in entity_rows["symbol"]]
        answer = {
            "close": [row and row[0] for row in rows],
            "rsi_14": [row and float("nan") for row in rows],
            "close__ts": [
                int(row[1].astype("datetime64[s]").astype("int64")) if row else 0 for row in rows
            ],
        }
        return SimpleNamespace(to_dict=lambda include_event_timestamps: answer)

    def write_to_online_store(self, view, rows):
        if self.store_fault:
            raise self.store_fault

    def write_to_offline_store(self, view, rows):
        raise AssertionError

    def forecast(self, symbols, version="1"):
        self.asked.append(list(symbols))
        if self.store_fault:
            raise UnreachableStoreError("the online store does not answer")
        for symbol in symbols:
            if symbol in self.faults:
                raise self.faults[symbol]
        found = [symbol for symbol in symbols if symbol in self.rows]
        close = np.array([self.rows[symbol][0] for symbol in found])
        return Forecasts(
            version,
            self.horizon,
            found,
            np.array([self.rows[symbol][1] for symbol in found], "datetime64[us]"),
            close,
            -close,
            close / 1000,
            close * np.exp(close / 1000),
            0.5 + close / 1000,
            np.where(close > 10, np.nan, 0.02),
            [f"{symbol}{close}" for symbol, close in zip(found, close, strict=True)],
            [symbol for symbol in symbols if symbol not in self.rows],
        )


def predictor_of(market, version="1"):
    return SimpleNamespace(
        model=SimpleNamespace(version=version),
        forecast=lambda symbols: market.forecast(symbols, version),
    )


def info(predictor) -> ModelInfo:
    version = predictor.model.version
    return ModelInfo(version, version * 64, "lstm", ["close"], 30, "2013-11-01", 0, {}, {})


@pytest.fixture
def market():
    return Market()


@pytest.fixture
def database(tmp_path):
    database = StateWriter(tmp_path / "state.db")
    yield database
    database.close()


@pytest.fixture
def written(market):
    return DailyRows(market)


@pytest.fixture
def publisher(market, written, database):
    return Publisher(market, market, written, database, info)


def test_a_whole_market(market, publisher, tmp_path):
    committed = publisher.publish(predictor_of(market), None)
    reader = StateReader(tmp_path / "state.db")
    state = reader.current()
    reader.close()
    assert state == committed
    assert state.newest_close == "2013-11-01T20:00:00Z"
    a, b, c = (state.forecasts[symbol] for symbol in "ABC")
    assert (a.as_of, a.for_session) == ("2013-11-01T20:00:00Z", "2013-11-04")
    assert (c.as_of, c.for_session) == ("2013-10-31T20:00:00Z", "2013-11-01")
    assert (a.session, c.session) == (state.newest, state.newest - 1)
    assert (a.last_close, a.log_return, a.p_up, a.window_hash) == (10.0, 0.01, 0.51, "A10.0")
    assert (a.horizon, a.score, a.scale, b.scale) == (1, -10.0, 0.02, None)
    market.horizon = 5
    ahead = publisher.publish(predictor_of(market), None).forecasts
    assert (ahead["A"].horizon, ahead["A"].for_session) == (5, "2013-11-08")
    assert (ahead["C"].horizon, ahead["C"].for_session) == (5, "2013-11-07")
    assert a.price == pytest.approx(10 * np.exp(0.01))
    assert [f.missing for f in (a, b, c)] == [0, 0, 2]
    assert [f.unusual for f in (a, b, c)] == [True, None, None]
    assert [f.suspect for f in (a, b, c)] == [None, "split", None]
    assert not any(f.provisional for f in (a, b, c))
    features = state.features["C"]
    assert (features.as_of, features.session) == (c.as_of, c.session)
    assert features.values == {"close": 30.0, "rsi_14": None}


def test_a_bar_asks_the_store_and_the_model_for_its_symbol_alone(market, publisher):
    first = publisher.publish(predictor_of(market), None)
    market.rows["A"] = (11.0, MONDAY)
    market.newest = MONDAY
    market.asked.clear()
    state = publisher.publish(predictor_of(market), ["A"])
    assert market.asked == [["A"]]
    assert state.newest == first.newest + 1
    assert state.forecasts["A"].last_close == 11.0
    assert state.features["A"].values["close"] == 11.0
    assert state.forecasts["A"].provisional
    assert state.features["A"].provisional
    assert state.forecasts["B"] == first.forecasts["B"]
    assert state.changed == {"A": state.number, "B": first.number, "C": first.number}


def test_a_state_is_of_one_model_alone(market, publisher):
    publisher.publish(predictor_of(market, "2"), None)
    market.asked.clear()
    state = publisher.publish(predictor_of(market, "1"), ["A"])
    assert market.asked == [["A", "B", "C"]]
    assert state.model.version == "1"


def daily(symbol: str, close: float, instant) -> pd.DataFrame:
    """A row that live bars write."""
    known = pd.Timestamp("2013-11-05", tz="UTC")
    row = {"symbol": symbol, "event_timestamp": pd.Timestamp(instant, tz="UTC"), CREATED: known}
    return pd.DataFrame([row | {"close": close, "rsi_14": float("nan")}])


def test_features_that_the_store_has_just_taken_are_not_read_back(market, publisher, written):
    publisher.publish(predictor_of(market), None)
    market.rows |= {"A": (11.0, MONDAY), "B": (21.0, MONDAY)}
    market.newest = MONDAY
    written.write_to_online_store("windows", daily("B", 0.0, MONDAY))
    written.write_to_online_store("daily", daily("A", 11.0, MONDAY))
    market.looked_up.clear()
    state = publisher.publish(predictor_of(market), ["A", "B"])
    assert market.looked_up == [["B"]]
    # As the store itself would say it.
    market.looked_up.clear()
    publisher._due = None
    assert publisher.publish(predictor_of(market), ()) is state
    assert market.looked_up == [["A", "B", "C"]]
    assert state.features["A"].as_of == "2013-11-04T21:00:00Z"


def test_features_that_the_store_did_not_take_are_none(market, publisher, written):
    publisher.publish(predictor_of(market), None)
    market.store_fault = ConnectionError("refused")
    with pytest.raises(ConnectionError):
        written.write_to_online_store("daily", daily("A", 11.0, MONDAY))
    market.store_fault = None
    assert publisher.publish(predictor_of(market), ["A"]).features["A"].values["close"] == 10.0


def test_what_was_read_long_ago_is_read_again(market, publisher, written):
    written.write_to_online_store("daily", daily("A", 11.0, FRIDAY))
    publisher.publish(predictor_of(market), ["A"])
    market.rows["A"] = (12.0, FRIDAY)
    assert publisher.publish(predictor_of(market), ["A"]).features["A"].values["close"] == 12.0


def test_a_market_that_lost_windows_is_no_state(market, publisher, database):
    before = publisher.publish(predictor_of(market), None)
    del market.rows["B"]
    market.rows["D"] = (40.0, FRIDAY)
    market.symbols = ["A", "B", "C", "D"]
    with pytest.raises(EmptyStoreError, match="no window of B: it has lost its data") as caught:
        publisher.publish(predictor_of(market), None)
    assert caught.value.symbols == ["B"]
    assert database.state is before
    assert publisher.is_behind


def test_a_seal_and_a_verdict_are_known_of_symbols_that_were_not_computed_anew(market, publisher):
    market.rows |= {"A": (11.0, MONDAY), "B": (21.0, MONDAY)}
    market.newest = MONDAY
    state = publisher.publish(predictor_of(market), None)
    assert state.forecasts["B"].provisional
    market.sealed = MONDAY
    market.marks = Marks({"B": (MONDAY, True)}, {})
    market.missing_sessions = {}
    market.asked.clear()
    state = publisher.publish(predictor_of(market), ["A"])
    assert market.asked == [["A"]]
    b = state.forecasts["B"]
    assert (b.provisional, b.unusual, b.suspect) == (False, True, None)
    assert not state.features["B"].provisional
    assert state.forecasts["C"].missing == 0


@pytest.mark.parametrize("kind", [NonFiniteWindowError, NonFiniteForecastError])
def test_a_symbol_without_a_finite_forecast_keeps_no_other_from_its(market, publisher, kind):
    market.faults["B"] = kind("the windows of B have a NaN", ["B"])
    state = publisher.publish(predictor_of(market), None)
    assert set(state.forecasts) == {"A", "C"}
    assert state.faults == {"B": "the windows of B have a NaN"}
    assert set(state.features) == {"A", "B", "C"}
    # It stays so when another symbol changes, and ends with its own next window.
    market.rows["A"] = (11.0, MONDAY)
    assert publisher.publish(predictor_of(market), ["A"]).faults == state.faults
    market.faults.clear()
    state = publisher.publish(predictor_of(market), ["B"])
    assert not state.faults
    assert set(state.forecasts) == {"A", "B", "C"}


def test_what_a_failure_leaves_behind_comes_with_the_next(market, publisher):
    first = publisher.publish(predictor_of(market), None)
    market.rows |= {"A": (11.0, MONDAY), "B": (21.0, MONDAY)}
    market.store_fault = ConnectionError("refused")
    with pytest.raises(StoreError, match="does not answer"):
        publisher.publish(predictor_of(market), ["A"])
    assert publisher.is_behind
    market.store_fault = None
    state = publisher.publish(predictor_of(market), ["B"])
    assert not publisher.is_behind
    assert (state.forecasts["A"].last_close, state.forecasts["B"].last_close) == (11.0, 21.0)
    assert first.forecasts["A"].last_close == 10.0
    # A whole market that failed is still due after a single symbol.
    market.rows["C"] = (31.0, MONDAY)
    market.store_fault = ConnectionError("refused")
    with pytest.raises(StoreError):
        publisher.publish(predictor_of(market), None)
    market.store_fault = None
    assert publisher.publish(predictor_of(market), ["A"]).forecasts["C"].last_close == 31.0


def test_a_store_that_fails_with_an_error_of_its_own_is_a_store_error(market, publisher):
    market.daily_fault = ConnectionError("refused")
    with pytest.raises(StoreError, match=r"does not answer \(ConnectionError: refused\)"):
        publisher.publish(predictor_of(market), None)


def test_a_swap_is_one_state(market, publisher, database):
    publisher.publish(predictor_of(market), None)
    state = publisher.publish(predictor_of(market, "2"), None)
    assert state.model.version == "2"
    assert database.state is state


def test_the_description_of_the_model_alone(market, publisher, database):
    refused: dict[str, str] = {}
    publisher._info = lambda predictor: replace(info(predictor), refused=dict(refused))
    first = publisher.publish(predictor_of(market), None)
    publisher.describe(predictor_of(market))
    assert database.state is first
    refused["3"] = "its p_up is beyond 1"
    publisher.describe(predictor_of(market))
    assert database.state.model.refused == refused
    assert database.state.changed == first.changed
    # Of another model there are no forecasts yet.
    publisher.describe(predictor_of(market, "2"))
    assert database.state.model.version == "1"


@pytest.fixture
def canary(market, publisher, database):
    """Over a published market; `rebuilt` of the market counts its rebuilds."""
    publisher.publish(predictor_of(market), None)
    market.predictor, market.held = predictor_of(market), 0
    whole = dict(market.rows)

    class Locked:
        def __init__(self, seconds):
            assert 0 < seconds <= 10

        def __enter__(self):
            market.held += 1

        def __exit__(self, *_):
            market.held -= 1

    def rebuild():
        assert market.held
        market.rows = dict(whole)

    return Canary(lambda: market.predictor, publisher, database, Locked, rebuild)


def test_the_canary_goes_round_and_says_nothing_where_all_agrees(market, canary, database):
    before = database.state
    market.asked.clear()
    for _ in range(6):
        canary.step()
    assert market.asked == [["A"], ["B"], ["C"]] * 2
    assert database.state is before
    assert (canary.figures, canary.champion_fault) == ({"rebuilt": 0, "mismatches": 0}, "")


def test_a_store_that_lost_its_data_is_filled_again_and_told(market, canary, database):
    before = database.state
    market.rows = {}
    with pytest.raises(EmptyStoreError, match="no window of A: it has lost its data"):
        canary.step()
    assert canary.figures["rebuilt"] == 1
    assert set(market.rows) == set("ABC")
    assert database.state == before
    canary.step()


def test_a_store_that_holds_another_window_is_what_counts(market, canary, database):
    market.rows["A"] = (12.0, FRIDAY)
    canary.step()
    assert canary.figures["mismatches"] == 1
    assert database.state.forecasts["A"].last_close == 12.0


def test_a_bar_under_way_is_no_mismatch(market, canary, database, publisher):
    """Between the push and the commit the store is ahead of the state; with the lock it is not."""
    market.rows["A"] = (12.0, FRIDAY)
    locked = canary._locked

    def committed_meanwhile(seconds):
        publisher.publish(market.predictor, ["A"])
        return locked(seconds)

    canary._locked = committed_meanwhile
    canary.step()
    assert canary.figures["mismatches"] == 0


def test_a_store_that_is_away_is_told(market, canary):
    market.store_fault = ConnectionError("refused")
    with pytest.raises(UnreachableStoreError):
        canary.step()
    assert canary.figures == {"rebuilt": 0, "mismatches": 0}


@pytest.mark.parametrize("effect", [2e-5, float("nan")])
@pytest.mark.parametrize("output", ["log_return", "p_up"])
def test_a_champion_that_forecasts_otherwise_from_the_same_window(market, canary, effect, output):
    good = market.forecast

    def other(symbols, version):
        found = good(symbols, version)
        return replace(found, **{output: getattr(found, output) + effect})

    canary.step()
    market.forecast = other
    canary.step()
    assert "version 1 forecasts B otherwise than before" in canary.champion_fault
    market.forecast = good
    canary.step()
    assert canary.champion_fault == ""


def test_a_champion_that_forecasts_a_nan(market, canary):
    market.faults["A"] = NonFiniteForecastError("version 1 forecasts a NaN for A", ["A"])
    canary.step()
    assert canary.champion_fault == "version 1 forecasts a NaN for A"


def test_what_could_not_be_published_is_published_by_the_canary(market, canary, publisher, database):
    market.rows["A"] = (11.0, MONDAY)
    market.store_fault = ConnectionError("refused")
    with pytest.raises(StoreError):
        publisher.publish(market.predictor, ["A"])
    market.store_fault = None
    canary.step()
    assert database.state.forecasts["A"].last_close == 11.0
