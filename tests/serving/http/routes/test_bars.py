"""Live bars: what is taken, and what is refused with its field."""

import errno
import json
import math
import threading
import time

import pytest
from starlette.testclient import TestClient
from support.fake_service import BAR, fake_app
from support.problems import fields, problem

from pitwise.errors import StoreError
from serving.state.errors import AwayError, BusyError

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
    (taken,) = service.bars.taken
    assert taken[:2] == bars[:2]
    assert {type(value) for bar in taken for value in list(bar.values())[2:]} == {float}


def test_an_adjusted_close_that_some_bars_have_is_passed_on(client, service):
    bars = [BAR | {"adj_close": None}, BAR | {"symbol": "MSFT", "adj_close": 3.5}]
    client.post("/v1/bars", json={"bars": bars})
    (taken,) = service.bars.taken
    assert [bar.get("adj_close") for bar in taken] == [None, 3.5]
    assert "adj_close" not in taken[0]


def test_a_bar_that_no_features_can_be_made_of_has_its_reason_and_holds_up_no_other(client):
    answer = client.post("/v1/bars", json={"bars": [BAR | {"close": 0.5}, BAR]}).json()
    assert [(o["outcome"], o["reason"]) for o in answer["outcomes"]] == [
        ("failed", "ValueError: no range"),
        ("new", ""),
    ]


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (AwayError("no process at /var/secret"), "unavailable", "process that takes bars is away"),
        (BusyError("17 wait at /var/secret"), "busy", "Too many posts of bars wait"),
        (StoreError("/var/secret is locked"), "unavailable", "The store does not answer (see our log)"),
        (OSError(errno.ENOSPC, "", "/var/secret"), "unavailable", "(No space left on device)"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_each_reason_why_bars_are_not_taken_is_told(client, service, fault, kind, said, method):
    service.bars.fault = fault
    if method == "POST":
        response = client.post("/v1/bars", json={"bars": [BAR]})
    else:
        response = client.delete("/v1/bars/AAPL/2013-11-04")
    document = problem(response, 503, kind)
    assert said in document["detail"]
    assert "`repeated`" in document["detail"]
    assert "secret" not in response.text
    assert int(response.headers["retry-after"]) >= 1


def test_posts_of_bars_that_wait_are_so_many_and_hold_up_nothing_else(tmp_path, service):
    service.bars.go_on.clear()
    with TestClient(fake_app(tmp_path, service, max_waiting=2)) as client:
        answers = []
        threads = [
            threading.Thread(
                target=lambda: answers.append(client.post("/v1/bars", json={"bars": [BAR]}))
            )
            for _ in range(2)
        ]
        try:
            for thread in threads:
                thread.start()
            deadline = time.monotonic() + 20
            while len(service.bars.threads) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert len(service.bars.threads) == 2
            assert threading.get_ident() not in service.bars.threads
            # Its body is not even looked at.
            response = client.post(
                "/v1/bars", content=b"{", headers={"Content-Type": "application/json"}
            )
            assert "2 posts of bars wait already" in problem(response, 503, "busy")["detail"]
            assert int(response.headers["retry-after"]) >= 1
            problem(client.delete("/v1/bars/AAPL/2013-11-04"), 503, "busy")
            assert client.post("/v1/predict", json={"symbols": ["AAPL"]}).status_code == 200
            assert "pitwise_bars_waiting 2.0" in client.get("/metrics").text
        finally:
            service.bars.go_on.set()
            for thread in threads:
                thread.join()
        assert [answer.status_code for answer in answers] == [200, 200]
        assert client.delete("/v1/bars/AAPL/2013-11-04").status_code == 200
        assert "pitwise_bars_waiting 0.0" in client.get("/metrics").text


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
    assert service.bars.withdrawn == [("AAPL", "2013-11-04")]
    refused = client.delete("/v1/bars/NOSUCH/2013-11-04").json()
    assert [(o["outcome"], o["reason"]) for o in refused["outcomes"]] == [("refused", "unknown_symbol")]


@pytest.mark.parametrize("day", ["2013-13-04", "yesterday", "0001-01-01"])
def test_a_bar_of_no_day_cannot_be_withdrawn(client, service, day):
    assert fields(problem(client.delete(f"/v1/bars/AAPL/{day}"), 422, "invalid-request")) == ["date"]
    assert not service.bars.withdrawn


def test_the_documents_example_bar_is_of_the_session_after_the_default_runs_last(client):
    bar = client.get("/openapi.json").json()["components"]["schemas"]["Bar"]["properties"]
    assert bar["date"]["examples"] == ["2013-03-04"]


@pytest.mark.parametrize(("n", "kind"), [(0, "empty-batch"), (4, "batch-too-large")])
def test_a_batch_of_bars_has_its_bounds(client, service, n, kind):
    assert fields(problem(client.post("/v1/bars", json={"bars": [BAR] * n}), 422, kind)) == ["bars"]
    assert not service.bars.taken


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
    assert not service.bars.taken
