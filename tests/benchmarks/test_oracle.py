"""The soak's oracle says what the batch path says, and finds whatever is wrong."""

from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest
import sqlalchemy as sa
from support.markets import raw_market
from support.models_by_hand import FEATURES, WINDOW, onnx_model
from support.workspaces import ROOT

from benchmarks.serving.answers import (
    Answers,
    Features,
    Forecast,
    Past,
    Stale,
    unexplained,
)
from benchmarks.serving.kept import unlogged_forecasts, unlogged_requests
from benchmarks.serving.memory import Sample, growing
from benchmarks.serving.oracle import Market, Oracle
from benchmarks.serving.posts import script
from benchmarks.serving.soak import same_market
from pitwise.bars.landing import Landing, first_to_last, newest_close
from pitwise.cleaning.clean import CleanParams
from pitwise.registry.prediction_log import open_log
from pitwise.stage import load_params
from pitwise.workspace import Workspace

pytestmark = pytest.mark.component

LIVE_SESSIONS = 4
COVERAGE = 0.7
TTL = 5


def model(scale: float) -> SimpleNamespace:
    """What the oracle needs of a registered model."""
    session = ort.InferenceSession(onnx_model(scale).SerializeToString())
    return SimpleNamespace(window=WINDOW, features=FEATURES, session=session)


@pytest.fixture(scope="module")
def made():
    """An oracle of 50 posts to eight symbols, and its market after each."""
    raw = raw_market(5, symbols=9, sessions=160)
    days = np.sort(raw["date"].unique())[-LIVE_SESSIONS:]
    before = raw[raw["date"] < days[0]].reset_index(drop=True)
    covers = first_to_last(before)
    received = newest_close(raw)
    landing = Landing(before, "csv", received, history="assumed", covers=covers)
    live = raw[raw["date"].isin(days)].sort_values(["date", "symbol"], ignore_index=True)
    posts = list(script(live, np.random.default_rng(3)))
    for post in posts:
        post.outcomes = ["refused" if may_be == {"refused"} else "new" for may_be in post.may_be]
    params = load_params(Workspace(ROOT), "clean", CleanParams)
    models = {"1": model(0.01), "2": model(0.02)}

    oracle = Oracle([landing], [post.rows for post in posts], COVERAGE, params, models)
    return oracle, [oracle.market(number) for number in range(len(posts) + 1)]


def test_it_says_in_every_state_what_the_batch_path_says_of_all_deliveries_so_far(made):
    oracle, markets = made
    for number in range(0, len(markets), 9):
        assert same_market(markets[number], oracle.whole(number)), number
    assert len({market.sealed for market in markets}) == LIVE_SESSIONS + 1
    # A price ten times as high is doubted until later bars have settled it.
    assert any(market.suspects for market in markets)
    assert len(markets[-1].truths) > 5


def answers_of(market: Market, version: str = "1") -> dict[str, Forecast]:
    """What a service without a fault answers."""
    return {
        symbol: Forecast(
            symbol,
            version,
            truth.window.as_of,
            float(f"{truth.window.close:.7g}"),
            *truth.window.forecasts[version],
            market.age(symbol),
            truth.window.as_of > market.sealed,
            market.suspects.get(symbol),
        )
        for symbol, truth in market.truths.items()
        if truth.window
    }


STATE = 20


@pytest.fixture(scope="module")
def right(made):
    """The right forecasts of one state."""
    return answers_of(made[1][STATE])


@pytest.fixture
def found(made):
    """What is wrong with an answer of these items, in words."""
    _, markets = made
    oracle = SimpleNamespace(market=markets.__getitem__)

    def found(oldest: int, newest: int, items, top_by: str = "") -> list[str]:
        answers = Answers()
        answers.add("an answer", oldest, newest, list(items), top_by)
        return list(unexplained(answers, oracle, len(markets) - 1, TTL))

    return found


def test_the_answers_of_a_state_are_right_between_the_posts_around_it(right, found):
    forecasts = right.values()
    assert found(STATE, STATE, forecasts) == []
    assert found(STATE - 3, STATE + 3, forecasts) == []


@pytest.mark.parametrize(
    "change",
    [
        {"log_return": 0.5},
        {"p_up": np.nan},
        {"last_close": 1.0},
        {"as_of": "2014-01-02T21:00:00Z"},
        {"version": "2"},
        {"version": "3"},
        {"age": 1},
        {"provisional": None},
        {"suspect": "split"},
        {"symbol": "NOSUCH"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_one_wrong_forecast_among_many_is_found_and_named(right, found, change):
    forecasts = list(right.values())
    forecasts[3] = forecasts[3]._replace(**change)
    (said,) = found(STATE - 3, STATE + 3, forecasts)
    assert forecasts[3].symbol in said


def test_an_answer_of_a_time_before_its_request_or_of_two_states_is_wrong(made, found):
    _, markets = made
    states = {number: answers_of(markets[number]) for number in (0, STATE)}
    assert found(1, STATE, states[0].values())
    symbol = next(symbol for symbol, forecast in states[0].items() if forecast != states[STATE][symbol])
    mixed = {**states[STATE], symbol: states[0][symbol]}
    assert found(0, STATE, states[0].values()) == []
    assert found(0, STATE, mixed.values())


@pytest.mark.parametrize("by", ["p_up", "log_return"])
def test_the_strongest_are_all_there_and_in_order(right, found, by):
    order = sorted(right.values(), key=lambda forecast: -getattr(forecast, by))
    order = [forecast for forecast in order if forecast.age <= TTL]
    assert getattr(order[0], by) - getattr(order[-1], by) > 1e-4
    assert found(STATE, STATE, order[:3], by) == []
    assert found(STATE, STATE, order[-3:], by)
    assert found(STATE, STATE, [order[-1], order[0]], by)


def test_stale_symbols_features_and_the_past(made, found):
    _, markets = made
    market, n_posts = markets[STATE], len(markets) - 1
    symbol, truth = next((s, t) for s, t in market.truths.items() if t.window and not market.age(s))
    values = tuple(None if np.isnan(value) else value for value in truth.features.tolist())
    features = Features(symbol, truth.as_of, 0, truth.as_of > market.sealed, values)
    assert found(STATE, STATE, [features]) == []
    wrong = features._replace(values=(values[0] * (1 + 1e-6), *values[1:]))
    assert found(STATE, STATE, [wrong])
    assert found(STATE, STATE, [Stale(symbol, -1)]) == []
    assert found(STATE, STATE, [Stale(symbol, TTL)])

    window = truth.window
    past = Past(symbol, "2", window.as_of, *window.forecasts["2"])
    assert found(0, n_posts, [past]) == []
    assert found(0, n_posts, [past._replace(log_return=past.log_return + 1e-3)])


def test_what_was_answered_and_is_not_in_the_log_is_found(right, tmp_path):
    forecasts = list(right.values())[:2]
    url = f"sqlite:///{tmp_path}/log.db"
    engine = open_log(url)
    row = {
        "symbol": forecasts[0].symbol,
        "as_of": pd.Timestamp(forecasts[0].as_of).to_pydatetime(),
        "model_version": "1",
        "window_hash": "a",
        "for_session": pd.Timestamp("2014-09-01").date(),
        "log_return": 0.0,
        "price": 1.0,
        "p_up": forecasts[0].p_up,
        "served_at": pd.Timestamp("2014-09-01", tz="UTC").to_pydatetime(),
    }
    tables = sa.MetaData()
    tables.reflect(engine)
    request = {"received_at": row["served_at"], "request_id": "one", "n": 1, "as_of": row["as_of"]}
    request |= dict.fromkeys(("caller", "route", "model_version", "windows"), "")
    with engine.begin() as connection:
        connection.execute(tables.tables["predictions"].insert(), row)
        connection.execute(tables.tables["requests"].insert(), request | {"latency_ms": 1.0, "state": 1})
    engine.dispose()
    answers = Answers()
    answers.add("an answer", 0, 0, forecasts)
    (missing,) = unlogged_forecasts(answers, url)
    assert forecasts[1].symbol in missing
    assert unlogged_requests({"one": 1}, url) == []
    assert len(unlogged_requests({"one": 2, "two": 1}, url)) == 2


def test_memory_that_grows_is_found():
    flat = [Sample(at, "reader-0", 7, 150 + at % 3) for at in range(400)]
    leaking = [Sample(at, "writer", 8, 400 + at / 4) for at in range(400)]
    assert growing(flat) == []
    (said,) = growing(sorted(flat + leaking))
    assert said.startswith("writer")
