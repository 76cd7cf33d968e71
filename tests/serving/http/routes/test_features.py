"""The newest features of a symbol."""

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
