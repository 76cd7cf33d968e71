"""Live bars: what is taken, and what is refused with its field."""

import json
import math
import threading

import numpy as np
import pandas as pd
import pytest
from support.fake_service import BAR
from support.problems import fields, problem

pytestmark = pytest.mark.unit


def test_each_bar_has_its_outcome_in_order_and_the_good_ones_are_taken(client, service):
    bars = [BAR, BAR | {"close": 5000, "date": "2013-11-05"}, BAR | {"symbol": "MSFT"}]
    answer = client.post("/v1/bars", json={"bars": bars}).json()
    assert answer["counts"] == {"new": 2, "quarantined": 1}
    assert [tuple(outcome.values()) for outcome in answer["outcomes"]] == [
        ("AAPL", "2013-11-04", "new", "", True),
        ("AAPL", "2013-11-05", "quarantined", "bad_print", False),
        ("MSFT", "2013-11-04", "new", "", True),
    ]
    (frame,) = service.live.taken
    assert list(frame) == ["symbol", "date", "open", "high", "low", "close", "volume"]
    assert frame["date"].tolist()[1].isoformat() == "2013-11-05T00:00:00"
    assert set(frame.dtypes.iloc[2:].astype(str)) == {"float64"}
    assert service.live.threads != {threading.get_ident()}


def test_an_adjusted_close_that_some_bars_have_is_passed_on(client, service):
    client.post("/v1/bars", json={"bars": [BAR, BAR | {"symbol": "MSFT", "adj_close": 3.5}]})
    (frame,) = service.live.taken
    assert np.array_equal(frame["adj_close"], [np.nan, 3.5], equal_nan=True)


def test_a_bar_is_withdrawn_by_its_symbol_and_date(client, service):
    answer = client.delete("/v1/bars/AAPL/2013-11-04").json()
    assert answer["counts"] == {"withdrawn": 1}
    assert answer["outcomes"] == [
        {
            "symbol": "AAPL",
            "date": "2013-11-04",
            "outcome": "withdrawn",
            "reason": "",
            "provisional": False,
        }
    ]
    assert service.live.withdrawn == [("AAPL", pd.Timestamp("2013-11-04"))]
    refused = client.delete("/v1/bars/NOSUCH/2013-11-04").json()
    assert [(o["outcome"], o["reason"]) for o in refused["outcomes"]] == [("refused", "unknown_symbol")]


@pytest.mark.parametrize("day", ["2013-13-04", "yesterday", "0001-01-01"])
def test_a_bar_of_no_day_cannot_be_withdrawn(client, service, day):
    assert fields(problem(client.delete(f"/v1/bars/AAPL/{day}"), 422, "invalid-request")) == ["date"]
    assert not service.live.withdrawn


def test_a_withdrawal_that_the_store_does_not_take_is_unavailable(client, service):
    service.live.fault = ConnectionError("gone")
    problem(client.delete("/v1/bars/AAPL/2013-11-04"), 503, "unavailable")


def test_the_documents_example_bar_is_of_the_session_after_the_default_runs_last(client):
    bar = client.get("/openapi.json").json()["components"]["schemas"]["Bar"]["properties"]
    assert bar["date"]["examples"] == ["2013-03-04"]


@pytest.mark.parametrize(("n", "kind"), [(0, "empty-batch"), (4, "batch-too-large")])
def test_a_batch_of_bars_has_its_bounds(client, service, n, kind):
    assert fields(problem(client.post("/v1/bars", json={"bars": [BAR] * n}), 422, kind)) == ["bars"]
    assert not service.live.taken


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("close", math.nan),
        ("close", math.inf),
        ("open", -math.inf),
        ("open", 0),
        ("low", -1),
        ("high", 1.1e9),
        ("high", 10**400),
        ("high", "12"),
        ("high", True),
        ("volume", -1),
        ("volume", 1.1e13),
        ("date", "2013-13-04"),
        ("date", "04.11.2013"),
        ("date", "2013-11-04T00:00:00"),
        ("date", 1383523200),
        ("date", "٢٠١٣-11-04"),
        ("date", "0001-01-01"),
        ("symbol", None),
        ("adj_close", math.nan),
    ],
)
def test_an_absurd_value_of_a_bar_is_named(client, service, key, value):
    body = json.dumps({"bars": [BAR, BAR | {key: value}]})
    response = client.post("/v1/bars", content=body, headers={"Content-Type": "application/json"})
    assert fields(problem(response, 422, "invalid-request")) == [f"bars[1].{key}"]
    assert not service.live.taken
