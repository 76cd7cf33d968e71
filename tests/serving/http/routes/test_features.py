"""The newest features of a symbol, and those of before."""

from datetime import UTC, datetime

import pytest
from support.problems import fields, problem

from pitwise.errors import StoreError

pytestmark = pytest.mark.unit


def test_features_come_by_name_and_what_is_not_a_number_as_null(client):
    assert client.get("/v1/features/OLD").json() == {
        "symbol": "OLD",
        "as_of": "2013-10-24T20:00:00Z",
        "feature_age_sessions": 6,
        "provisional": False,
        "features": {"close": 100.0, "rsi_14": None},
    }
    document = problem(client.get("/v1/features/NOPE"), 404, "unknown-symbol")
    assert fields(document) == ["symbol"]


def test_who_is_told_of_features_or_of_the_past_is_in_the_audit_trail(client, service):
    addresses = {
        "/v1/features/OLD": ("/v1/features/{symbol}", [("OLD", "2013-10-24T20:00:00Z", "")]),
        "/v1/features/AAPL?as_of=2013-11-03": (
            "/v1/features/{symbol}",
            [("AAPL", "2013-11-01T20:00:00Z", "")],
        ),
        "/v1/forecasts/AAPL/history?to=2013-11-02": (
            "/v1/forecasts/{symbol}/history",
            [("AAPL", service.history.past[0].as_of, service.history.past[0].window_hash)],
        ),
        "/v1/forecasts?as_of=2013-11-03&top=1": (
            "/v1/forecasts",
            [("MSFT", service.history.past[1].as_of, service.history.past[1].window_hash)],
        ),
    }
    for address, (route, shown) in addresses.items():
        assert client.get(address, headers={"X-Request-ID": "mine"}).status_code == 200
        told = service.served.recorded[-1]
        assert (told.request_id, told.route, told.forecasts) == ("mine", route, [])
        assert list(told.shown) == shown
    assert len(service.served.recorded) == 4
    service.served.fault = StoreError("the disk is full")
    for address in addresses:
        problem(client.get(address), 503, "unavailable")


def test_features_are_asked_for_as_they_were_known_at_a_days_end(client, service):
    answer = client.get("/v1/features/AAPL", params={"as_of": "2013-11-03"}).json()
    assert (answer["as_of"], answer["feature_age_sessions"]) == ("2013-11-01T20:00:00Z", None)
    assert answer["features"] == {"close": 100.0, "rsi_14": None}
    (asked,) = service.history.asked
    assert asked == ("features", "AAPL", datetime(2013, 11, 3, 23, 59, 59, 999999, UTC))


def test_a_symbol_that_nothing_was_known_of_is_unknown(client):
    response = client.get("/v1/features/MSFT", params={"as_of": "2013-11-03"})
    assert fields(problem(response, 404, "unknown-symbol")) == ["symbol"]


@pytest.mark.parametrize("day", ["yesterday", "2013-13-01", "1383523200", ""])
def test_a_day_that_is_none_is_named(client, service, day):
    response = client.get("/v1/features/AAPL", params={"as_of": day})
    assert fields(problem(response, 422, "invalid-request")) == ["as_of"]
    assert not service.history.asked
