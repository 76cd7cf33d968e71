"""What was forecast of a symbol, and what came of it."""

import threading
from datetime import date

import pytest
from support.fake_service import past_forecast
from support.problems import fields, problem

from pitwise.errors import StoreError
from serving.http.routes import history

pytestmark = pytest.mark.unit
ADDRESS = "/v1/forecasts/AAPL/history"


def test_forecasts_come_by_session_with_their_outcomes(client, service):
    answer = client.get(ADDRESS).json()
    assert (answer["symbol"], answer["more"]) == ("AAPL", False)
    assert [(f["for_session"], f["matured"], f["realised"]) for f in answer["forecasts"]] == [
        ("2013-11-01", True, -0.02),
        ("2013-11-04", False, None),
    ]
    assert service.history.asked == [("of", "AAPL", None, None, 2001)]


def test_a_span_of_sessions_is_passed_on(client, service):
    answer = client.get(ADDRESS, params={"from": "2013-11-02", "to": "2013-11-04"}).json()
    assert [f["for_session"] for f in answer["forecasts"]] == ["2013-11-04"]
    assert service.history.asked[0][2:4] == (date(2013, 11, 2), date(2013, 11, 4))
    none = client.get(ADDRESS, params={"from": "2013-11-04", "to": "2013-11-02"}).json()
    assert none["forecasts"] == []


def test_a_long_history_is_cut_and_says_so(client, service, monkeypatch):
    monkeypatch.setattr(history, "MOST", 2)
    service.history.past.append(past_forecast("AAPL", "2013-11-05", 0.0, None))
    answer = client.get(ADDRESS).json()
    assert [f["for_session"] for f in answer["forecasts"]] == ["2013-11-01", "2013-11-04"]
    assert answer["more"] is True
    assert client.get(ADDRESS, params={"from": "2013-11-04"}).json()["more"] is False


def test_a_symbol_without_a_past_is_empty_and_one_that_is_none_unknown(client):
    answer = client.get("/v1/forecasts/MSFT/history").json()
    assert (answer["forecasts"], answer["more"]) == ([], False)
    document = problem(client.get("/v1/forecasts/NOPE/history"), 404, "unknown-symbol")
    assert fields(document) == ["symbol"]


@pytest.mark.parametrize("name", ["from", "to"])
def test_a_day_that_is_none_is_named(client, service, name):
    response = client.get(ADDRESS, params={name: "soon"})
    assert fields(problem(response, 422, "invalid-request")) == [name]
    assert not service.history.asked


ASKING = [ADDRESS, "/v1/forecasts?as_of=2013-11-01", "/v1/features/AAPL?as_of=2013-11-01"]


@pytest.mark.parametrize("address", ASKING)
def test_a_database_that_is_away_is_unavailable_and_forecasts_go_on(client, service, address):
    service.history.fault = StoreError("postgresql://secret")
    response = client.get(address)
    document = problem(response, 503, "unavailable")
    assert "The history does not answer" in document["detail"]
    assert "secret" not in response.text
    assert client.get("/v1/forecasts").status_code == 200


@pytest.mark.parametrize("address", ASKING)
def test_a_database_that_hangs_is_waited_for_so_long(client, service, monkeypatch, address):
    monkeypatch.setattr(history, "SECONDS", 0.05)
    go_on = threading.Event()
    for question in ("of", "market", "features"):
        monkeypatch.setattr(service.history, question, lambda *_: go_on.wait())
    try:
        response = client.get(address)
        assert "did not answer within" in problem(response, 503, "busy")["detail"]
    finally:
        go_on.set()
