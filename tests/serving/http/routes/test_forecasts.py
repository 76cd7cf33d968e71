"""Forecasts of symbols and of the market, and requests that are refused."""

import math

import numpy as np
import pytest
from starlette.testclient import TestClient
from support.fake_service import FRIDAY, fake_app, fake_service
from support.problems import fields, problem

from serving.inference.marks import Marks

pytestmark = pytest.mark.unit


def test_a_forecast_has_its_figures_and_is_logged_before_it_is_answered(client, service):
    answer = client.post("/v1/predict", json={"symbols": ["MSFT", "AAPL"]}).json()
    assert answer == {
        "model_version": "7",
        "errors": [],
        "forecasts": [
            {
                "symbol": "MSFT",
                "as_of": "2013-11-01T20:00:00Z",
                "for_session": "2013-11-04",
                "last_close": 101.0,
                "price": pytest.approx(101 * math.exp(0.01)),
                "log_return": 0.01,
                "p_up": 0.501,
                "feature_age_sessions": 0,
                "provisional": False,
                "unusual": None,
                "suspect": None,
            },
            {
                "symbol": "AAPL",
                "as_of": "2013-11-01T20:00:00Z",
                "for_session": "2013-11-04",
                "last_close": 100.0,
                "price": 100.0,
                "log_return": 0.0,
                "p_up": 0.5,
                "feature_age_sessions": 0,
                "provisional": False,
                "unusual": None,
                "suspect": None,
            },
        ],
    }
    assert [recorded.symbols for recorded in service.served.recorded] == [["MSFT", "AAPL"]]


def test_a_hole_in_the_window_is_age_and_a_session_that_is_not_sealed_provisional(client, service):
    service.live.missing_sessions = {"MSFT": 2, "LAGS": 1}
    service.live.sealed = np.datetime64("2013-10-31T20:00:00", "us")
    answer = client.post("/v1/predict", json={"symbols": ["AAPL", "MSFT", "LAGS"]}).json()
    found = [(f["feature_age_sessions"], f["provisional"]) for f in answer["forecasts"]]
    assert found == [(0, True), (2, True)]
    assert [error["symbol"] for error in answer["errors"]] == ["LAGS"]
    features = client.get("/v1/features/AAPL").json()
    assert features["provisional"] is True


def test_a_bar_that_stands_out_or_is_in_doubt_is_marked(client, service):
    marks = {"AAPL": (FRIDAY, True), "MSFT": (FRIDAY, False), "LAGS": (FRIDAY, True)}
    service.live.marks = Marks(marks, {"MSFT": "bad_print"})
    answer = client.post("/v1/predict", json={"symbols": ["AAPL", "MSFT", "LAGS"]}).json()
    found = {f["symbol"]: (f["unusual"], f["suspect"]) for f in answer["forecasts"]}
    # What is known of LAGS is of another bar than the one that its forecast stands on.
    assert found == {"AAPL": (True, None), "MSFT": (False, "bad_print"), "LAGS": (None, None)}
    strongest = client.get("/v1/forecasts", params={"top": 3}).json()["forecasts"]
    assert {f["symbol"]: f["suspect"] for f in strongest}["MSFT"] == "bad_print"


def test_a_forecast_in_doubt_is_withheld_by_the_param(tmp_path):
    service = fake_service(suspect="withhold")
    service.live.marks = Marks({}, {"MSFT": "split", "OLD": "split"})
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
        service.live.marks = Marks({}, dict.fromkeys(service.live.symbols, "split"))
        problem(client.get("/v1/forecasts"), 409, "suspect-bar")
    assert [r.symbols for r in service.served.recorded] == [["AAPL"], ["LAGS", "AAPL"]]


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
    (recorded,) = service.served.recorded
    assert recorded.symbols == ["AAPL", "LAGS"]
    assert recorded.log_return.tolist() == [0.0, 0.02]


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


@pytest.mark.parametrize("part", ["store", "log"])
def test_a_part_that_does_not_answer_is_503_and_shows_nothing_of_the_inside(
    client, service, caplog, part
):
    fault = ConnectionError("/var/secret/online.db is locked")
    if part == "store":
        service.champion.predictor.fault = fault
    else:
        service.served.fault = fault
    response = client.post("/v1/predict", json={"symbols": ["AAPL"]})
    problem(response, 503, "unavailable")
    assert response.headers["retry-after"] == "1"
    assert "secret" not in response.text
    assert "secret" in caplog.text
