"""Forecasts of symbols and of the market, and requests that are refused."""

import errno
import math
from dataclasses import replace

import pytest
from starlette.testclient import TestClient
from support.fake_service import NEWEST, fake_app, fake_service
from support.problems import fields, problem

from pitwise.errors import StoreError
from serving.http.auth import add_key

pytestmark = pytest.mark.unit


def predicted(client, *symbols) -> dict:
    return client.post("/v1/predict", json={"symbols": symbols}).json()


def test_a_forecast_has_its_figures_and_is_logged_before_it_is_answered(client, service):
    answer = predicted(client, "MSFT", "AAPL")
    assert answer == {
        "model_version": "7",
        "errors": [],
        "forecasts": [
            {
                "symbol": "MSFT",
                "as_of": "2013-11-01T20:00:00Z",
                "for_session": "2013-11-04",
                "horizon": 1,
                "last_close": 101.0,
                "price": pytest.approx(101 * math.exp(0.01)),
                "score": -1.0,
                "log_return": 0.01,
                "p_up": 0.501,
                "scale": 0.02,
                "feature_age_sessions": 0,
                "provisional": False,
                "unusual": None,
                "suspect": None,
            },
            {
                "symbol": "AAPL",
                "as_of": "2013-11-01T20:00:00Z",
                "for_session": "2013-11-04",
                "horizon": 1,
                "last_close": 100.0,
                "price": 100.0,
                "score": 0.0,
                "log_return": 0.0,
                "p_up": 0.5,
                "scale": 0.02,
                "feature_age_sessions": 0,
                "provisional": False,
                "unusual": None,
                "suspect": None,
            },
        ],
    }
    (answered,) = service.served.recorded
    assert [f.symbol for f in answered.forecasts] == ["MSFT", "AAPL"]
    assert (answered.route, answered.model_version, answered.state) == ("/v1/predict", "7", 50)
    assert answered.caller == ""
    assert answered.received_at.tzinfo is not None
    assert 0 < answered.latency_ms < 60_000


def test_a_hole_in_the_window_is_age_and_a_session_that_is_not_sealed_provisional(client, service):
    service.states.change("AAPL", provisional=True)
    service.states.change("MSFT", missing=2)
    service.states.change("LAGS", missing=1)
    answer = predicted(client, "AAPL", "MSFT", "LAGS")
    found = [(f["feature_age_sessions"], f["provisional"]) for f in answer["forecasts"]]
    assert found == [(0, True), (2, False)]
    assert [error["symbol"] for error in answer["errors"]] == ["LAGS"]


def test_an_age_is_never_below_zero(client, service):
    service.states.state = replace(service.states.state, newest=NEWEST - 2)
    assert [f["feature_age_sessions"] for f in predicted(client, "AAPL", "LAGS")["forecasts"]] == [0, 3]
    assert client.get("/v1/features/AAPL").json()["feature_age_sessions"] == 0


def test_a_change_is_seen_by_the_next_request(client, service):
    before = [predicted(client, "AAPL", "MSFT") for _ in range(2)]
    service.states.change("AAPL", log_return=0.5)
    after = predicted(client, "AAPL", "MSFT")
    assert before[0] == before[1]
    assert after["forecasts"][0] == before[0]["forecasts"][0] | {"log_return": 0.5}
    assert after["forecasts"][1] == before[0]["forecasts"][1]
    service.states.state = replace(service.states.state, newest=NEWEST + 1)
    assert [f["feature_age_sessions"] for f in predicted(client, "AAPL", "MSFT")["forecasts"]] == [1, 1]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("figure", ["price", "log_return", "p_up", "last_close"])
def test_a_forecast_that_is_no_number_is_said_to_be_none(client, service, figure, value):
    service.states.change("AAPL", **{figure: value})
    answer = predicted(client, "AAPL", "MSFT")
    assert [f["symbol"] for f in answer["forecasts"]] == ["MSFT"]
    (error,) = answer["errors"]
    assert (error["type"], error["symbol"]) == ("/problems/no-forecast", "AAPL")
    assert "no finite number" in error["detail"]
    response = client.post("/v1/predict", json={"symbols": ["AAPL"]})
    problem(response, 500, "no-forecast")
    assert "retry-after" not in response.headers  # it would be the same again
    strongest = client.get("/v1/forecasts").json()["forecasts"]
    assert "AAPL" not in [f["symbol"] for f in strongest]
    assert not any("AAPL" in symbols for symbols in service.served.symbols)


def test_a_market_without_any_forecast_has_no_strongest_one(client, service):
    state = service.states.state
    service.states.state = replace(state, forecasts={}, faults=dict.fromkeys(state.forecasts, "NaN"))
    problem(client.get("/v1/forecasts"), 500, "no-forecast")


def test_a_symbol_that_the_champion_fails_on_is_said_so(client, service):
    state = service.states.state
    left = {s: f for s, f in state.forecasts.items() if s != "AAPL"}
    service.states.state = replace(state, forecasts=left, faults={"AAPL": "p_up is 1.2"})
    (error,) = predicted(client, "AAPL", "MSFT")["errors"]
    assert (error["type"], error["detail"]) == (
        "/problems/no-forecast",
        "The champion gives none: p_up is 1.2.",
    )


def test_a_bar_that_stands_out_or_is_in_doubt_is_marked(client, service):
    service.states.change("AAPL", unusual=True)
    service.states.change("MSFT", unusual=False, suspect="bad_print")
    answer = predicted(client, "AAPL", "MSFT", "LAGS")
    found = {f["symbol"]: (f["unusual"], f["suspect"]) for f in answer["forecasts"]}
    assert found == {"AAPL": (True, None), "MSFT": (False, "bad_print"), "LAGS": (None, None)}
    strongest = client.get("/v1/forecasts", params={"top": 3}).json()["forecasts"]
    assert {f["symbol"]: f["suspect"] for f in strongest}["MSFT"] == "bad_print"


def test_a_forecast_in_doubt_is_withheld_by_the_param(tmp_path):
    service = fake_service(suspect="withhold")
    service.states.change("MSFT", suspect="split")
    service.states.change("OLD", suspect="split")
    with TestClient(fake_app(tmp_path, service)) as client:
        answer = client.post("/v1/predict", json={"symbols": ["MSFT", "AAPL", "OLD"]}).json()
        assert [f["symbol"] for f in answer["forecasts"]] == ["AAPL"]
        errors = [(e["type"], e["symbol"], e["field"]) for e in answer["errors"]]
        assert errors == [
            ("/problems/suspect-bar", "MSFT", "symbols[0]"),
            ("/problems/stale-features", "OLD", "symbols[2]"),
        ]
        assert "may be a split" in answer["errors"][0]["detail"]
        strongest = client.get("/v1/forecasts").json()["forecasts"]
        assert [f["symbol"] for f in strongest] == ["LAGS", "AAPL"]
        alone = client.post("/v1/predict", json={"symbols": ["NOPE", "MSFT"]})
        assert fields(problem(alone, 409, "suspect-bar")) == ["symbols[0]", "symbols[1]"]
        for symbol in service.states.state.forecasts:
            service.states.change(symbol, suspect="split")
        problem(client.get("/v1/forecasts"), 409, "suspect-bar")
    assert service.served.symbols == [["AAPL"], ["LAGS", "AAPL"]]


def test_symbols_without_a_forecast_are_named_beside_those_that_have_one(client, service):
    response = client.post("/v1/predict", json={"symbols": ["NOPE", "AAPL", "OLD", "LAGS"]})
    assert response.status_code == 200
    answer = response.json()
    ages = {f["symbol"]: f["feature_age_sessions"] for f in answer["forecasts"]}
    assert ages == {"AAPL": 0, "LAGS": 5}
    errors = [(e["type"], e["symbol"], e["field"]) for e in answer["errors"]]
    assert errors == [
        ("/problems/unknown-symbol", "NOPE", "symbols[0]"),
        ("/problems/stale-features", "OLD", "symbols[2]"),
    ]
    assert "2013-10-24; 6 sessions" in answer["errors"][1]["detail"]
    assert service.served.symbols == [["AAPL", "LAGS"]]


def test_a_batch_of_unknown_symbols_is_404_and_one_of_stale_ones_409(client, service):
    document = problem(client.post("/v1/predict", json={"symbols": ["X", "Y"]}), 404, "unknown-symbol")
    assert fields(document) == ["symbols[0]", "symbols[1]"]
    document = problem(client.post("/v1/predict", json={"symbols": ["X", "OLD"]}), 409, "stale-features")
    assert fields(document) == ["symbols[0]", "symbols[1]"]
    assert not service.served.recorded


def test_ages_count_from_now_where_the_clock_is_the_walls(tmp_path):
    with TestClient(fake_app(tmp_path, clock="wall")) as client:
        problem(client.post("/v1/predict", json={"symbols": ["AAPL"]}), 409, "stale-features")


def test_the_strongest_come_first_and_the_stale_not_at_all(client):
    answer = client.get("/v1/forecasts", params={"top": 2, "by": "log_return"}).json()
    assert [f["symbol"] for f in answer["forecasts"]] == ["LAGS", "MSFT"]
    assert len(client.get("/v1/forecasts").json()["forecasts"]) == 3


@pytest.mark.parametrize(
    ("symbols", "kind", "named"),
    [
        ([], "empty-batch", ["symbols"]),
        (["A"] * 1001, "batch-too-large", ["symbols"]),
        (["A", "B", "A", "A"], "duplicate-symbol", ["symbols[2]", "symbols[3]"]),
        (["A", 3, None], "invalid-request", ["symbols[1]", "symbols[2]"]),
        (["A", ""], "invalid-request", ["symbols[1]"]),
        (["A" * 65], "invalid-request", ["symbols[0]"]),
        ("AAPL", "invalid-request", ["symbols"]),
    ],
)
def test_an_impossible_batch_is_refused_with_its_field(client, service, symbols, kind, named):
    document = problem(client.post("/v1/predict", json={"symbols": symbols}), 422, kind)
    assert fields(document) == named
    assert not service.served.recorded


def test_an_unknown_field_is_named(client):
    document = problem(
        client.post("/v1/predict", json={"symbols": ["A"], "tpo": 1}), 422, "invalid-request"
    )
    assert fields(document) == ["tpo"]


@pytest.mark.parametrize(
    "query", ["top=0", "top=1001", "top=-1", "top=x", "top=" + "9" * 5000, "by=price"]
)
def test_an_impossible_query_is_named(client, query):
    document = problem(client.get(f"/v1/forecasts?{query}"), 422, "invalid-request")
    assert fields(document) == [query.partition("=")[0]]


@pytest.mark.parametrize(("part", "named"), [("states", "market's state"), ("served", "prediction log")])
@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, "No space left on device"), (0, "see our log")]
)
def test_a_part_that_does_not_answer_is_named_with_the_cause_and_nothing_of_the_inside(
    client, service, caplog, part, named, number, said
):
    fault = StoreError("/var/secret/log cannot be written")
    fault.__cause__ = OSError(number, "secret", "/var/secret/log") if number else ValueError("secret")
    getattr(service, part).fault = fault
    response = client.post("/v1/predict", json={"symbols": ["AAPL"]})
    document = problem(response, 503, "unavailable")
    assert f"The {named} does not answer ({said})." in document["detail"]
    assert response.headers["retry-after"] == "1"
    assert "secret" not in response.text
    assert "secret" in caplog.text


def test_the_strongest_of_a_past_session_are_those_that_were_served(client, service):
    answer = client.get("/v1/forecasts", params={"as_of": "2013-11-01", "top": 1}).json()
    assert (answer["day"], answer["by"]) == ("2013-11-01", "p_up")
    assert [(f["symbol"], f["log_return"]) for f in answer["forecasts"]] == [("MSFT", 0.01)]
    ((_, day, most),) = service.history.asked
    assert day.isoformat() == "2013-11-01"
    assert most >= 10_000
    (told,) = service.served.recorded
    assert not told.forecasts  # they are in the log as they were served


def test_an_answer_has_its_callers_name_in_the_audit_trail(tmp_path, service):
    headers = {"X-API-Key": add_key(tmp_path / "keys.json", "desk")}
    with TestClient(fake_app(tmp_path, service)) as client:
        client.post("/v1/predict", json={"symbols": ["AAPL"]}, headers=headers)
        client.get("/v1/forecasts", headers=headers)
    assert [(a.caller, a.route) for a in service.served.recorded] == [
        ("desk", "/v1/predict"),
        ("desk", "/v1/forecasts"),
    ]


def test_a_refused_request_is_in_no_log_of_forecasts(client, service):
    client.post("/v1/predict", json={"symbols": ["NOPE"]})
    client.post("/v1/predict", json={"symbols": []})
    assert not service.served.recorded
