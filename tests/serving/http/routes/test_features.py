"""The newest features of a symbol, and those of before."""

from datetime import UTC, datetime

import pytest
from support.problems import fields, problem

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
