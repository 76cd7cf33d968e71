"""What the API answers, over a market whose answers can be worked out by hand."""

import json
import math
import threading

import numpy as np
import pytest
import schemathesis
from fake_service import FRIDAY, fake_service
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from starlette.testclient import TestClient

from serving.api import create_app
from serving.freshness import newest_closed, sessions_at
from serving.keys import add_key, revoke_key

BAR = {
    "symbol": "AAPL",
    "date": "2013-11-04",
    "open": 10,
    "high": 12,
    "low": 9,
    "close": 11.5,
    "volume": 100,
}
PROBLEM = "application/problem+json"
BOUNDED = settings(
    max_examples=40, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture
def service(tmp_path):
    return fake_service(tmp_path)


@pytest.fixture
def client(service):
    return TestClient(create_app(service), raise_server_exceptions=False)


def problem(response, status: int, kind: str) -> dict:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM
    document = response.json()
    assert (document["type"], document["status"]) == (f"/problems/{kind}", status)
    assert document["title"]
    assert document["detail"]
    assert document["request_id"] == response.headers["x-request-id"]
    return document


def fields(document: dict) -> list[str]:
    return [error["field"] for error in document["errors"]]


def sample(client, name: str) -> float:
    """Value of a line of /metrics."""
    lines = client.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[-1])


# Forecasts.


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
            },
        ],
    }
    assert [recorded.symbols for recorded in service.served.recorded] == [["MSFT", "AAPL"]]


def test_symbols_without_a_forecast_are_named_beside_those_that_have_one(client, service):
    response = client.post("/v1/predict", json={"symbols": ["NOPE", "AAPL", "OLD", "LAGS"]})
    assert response.status_code == 200
    answer = response.json()
    ages = {f["symbol"]: f["feature_age_sessions"] for f in answer["forecasts"]}
    assert ages == {"AAPL": 0, "LAGS": 5}
    told = [(e["type"], e["symbol"], e["field"]) for e in answer["errors"]]
    assert told == [
        ("/problems/unknown-symbol", "NOPE", "symbols[0]"),
        ("/problems/stale-features", "OLD", "symbols[2]"),
    ]
    assert "2013-10-24, 6 sessions ago" in answer["errors"][1]["detail"]
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
    client = TestClient(create_app(fake_service(tmp_path, clock="wall")))
    problem(client.post("/v1/predict", json={"symbols": ["AAPL"]}), 409, "stale-features")


@pytest.mark.parametrize(
    ("now", "close"),
    [
        ("2013-11-01T19:59:59", "2013-10-31T20:00"),  # a second before Friday's close
        ("2013-11-01T20:00:00", "2013-11-01T20:00"),
        ("2013-11-04T20:59:59", "2013-11-01T20:00"),  # Monday: the clocks have gone back
        ("2013-11-04T21:00:00", "2013-11-04T21:00"),
        ("2013-11-29T18:00:00", "2013-11-29T18:00"),  # the half day after Thanksgiving
        ("2013-11-30T12:00:00", "2013-11-29T18:00"),  # a Saturday
        ("2013-11-05T02:00:00", "2013-11-04T21:00"),  # still Monday in New York
    ],
)
def test_the_newest_closed_session_of_an_instant(now, close):
    from datetime import UTC, datetime

    (expected,) = sessions_at(np.array([close], "datetime64[us]"))
    assert newest_closed(datetime.fromisoformat(now).replace(tzinfo=UTC)) == expected.number


def test_the_strongest_come_first_and_the_stale_not_at_all(client):
    answer = client.get("/v1/forecasts", params={"top": 2, "by": "log_return"}).json()
    assert [f["symbol"] for f in answer["forecasts"]] == ["LAGS", "MSFT"]
    assert len(client.get("/v1/forecasts").json()["forecasts"]) == 3


def test_features_come_by_name_and_what_is_not_a_number_as_null(client):
    assert client.get("/v1/features/OLD").json() == {
        "symbol": "OLD",
        "as_of": "2013-10-24T20:00:00Z",
        "feature_age_sessions": 6,
        "features": {"close": 100.0, "rsi_14": None},
    }
    document = problem(client.get("/v1/features/NOPE"), 404, "unknown-symbol")
    assert fields(document) == ["symbol"]


def test_the_model_in_office_is_described(client):
    answer = client.get("/v1/model").json()
    assert (answer["version"], answer["kind"], answer["window"]) == ("7", "lstm", 30)
    assert answer["refused"] == {"8": "p_up is not finite"}
    assert answer["since"].startswith("2013-11-01")
    assert answer["metadata"] == {"kind": "lstm", "seed": 7}


# Refusals.


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


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"symbols": ["\xff\xfe"]}',
        b'{"symbols": ["\\ud800"]}',
        b'{"\\udfff": 1}',
        b"[" * 90_000,
        b'{"symbols": [' + b"9" * 90_000 + b"]}",
        '{"symbols": ["AAPL"]}'.encode("utf-16"),
        b'{"symbols": ["AAPL"]} {}',
    ],
    ids=["cut off", "latin", "surrogate", "surrogate key", "deep", "huge number", "utf-16", "two"],
)
def test_a_body_that_is_no_json_is_400(client, body):
    response = client.post("/v1/predict", content=body, headers={"Content-Type": "application/json"})
    problem(response, 400, "malformed-json")


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp"]
)
def test_a_body_that_does_not_say_it_is_json_is_415(client, kind):
    headers = {"Content-Type": kind} if kind else {}
    response = client.post("/v1/predict", content=b'{"symbols": ["AAPL"]}', headers=headers)
    problem(response, 415, "not-json")


def test_a_route_that_is_not_there_and_a_method_that_is_not_taken_are_problems(client):
    problem(client.get("/v2/predict"), 404, "not-found")
    response = client.get("/v1/predict")
    problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "POST"


def test_thousands_of_faults_are_not_all_recited(client):
    response = client.post("/v1/predict", json={"symbols": [0] * 5000})
    document = problem(response, 422, "invalid-request")
    assert len(document["errors"]) == 100
    assert "4,995 more" in document["detail"]


# Faults of ours.


@pytest.mark.parametrize("part", ["store", "log"])
def test_a_part_that_does_not_answer_is_503_and_tells_nothing_of_the_inside(
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


def test_a_fault_of_ours_is_a_500_whose_id_is_in_the_log(client, service, caplog):
    del service.champion.since
    response = client.get("/v1/model")
    document = problem(response, 500, "internal-error")
    assert "since" not in response.text
    assert "AttributeError" in caplog.text
    assert f"request {document['request_id']} failed" in caplog.text


def test_readiness_names_what_is_not_ready_and_health_does_not_care(client, service):
    assert client.get("/readyz").status_code == 200
    service.champion.predictor.fault = OSError("away")
    document = problem(client.get("/readyz"), 503, "not-ready")
    assert fields(document) == ["store"]
    assert client.get("/healthz").json() == {"status": "alive"}


# Bars.


def test_each_bar_has_its_outcome_in_order_and_the_good_ones_are_taken(client, service):
    bars = [BAR, BAR | {"close": 5000, "date": "2013-11-05"}, BAR | {"symbol": "MSFT"}]
    answer = client.post("/v1/bars", json={"bars": bars}).json()
    assert answer["counts"] == {"new": 2, "quarantined": 1}
    assert [(o["symbol"], o["date"], o["outcome"], o["reason"]) for o in answer["outcomes"]] == [
        ("AAPL", "2013-11-04", "new", ""),
        ("AAPL", "2013-11-05", "quarantined", "bad_print"),
        ("MSFT", "2013-11-04", "new", ""),
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


@pytest.mark.parametrize(("n", "kind"), [(0, "empty-batch"), (4, "batch-too-large")])
def test_a_batch_of_bars_has_its_bounds(client, service, n, kind):
    assert fields(problem(client.post("/v1/bars", json={"bars": [BAR] * n}), 422, kind)) == ["bars"]
    assert not service.live.taken


# Metrics.


def test_metrics_count_what_was_answered(client):
    client.post("/v1/predict", json={"symbols": ["AAPL", "MSFT", "NOPE"]})
    client.post("/v1/predict", json={"symbols": ["LAGS"]})
    client.post("/v1/bars", json={"bars": [BAR]})
    assert sample(client, 'pitwise_predictions_total{model_version="7"}') == 3
    assert sample(client, 'pitwise_problems_total{type="unknown-symbol"}') == 1
    assert sample(client, 'pitwise_bars_total{outcome="new"}') == 1
    assert sample(client, "pitwise_served_feature_age_sessions") == 5
    assert sample(client, "pitwise_champion_swaps_total") == 2
    assert sample(client, "pitwise_champion_refused") == 1
    assert sample(client, 'pitwise_champion_info{kind="lstm",model_version="7"}') == 1
    assert sample(client, "pitwise_log_pending_rows") == 3
    assert sample(client, "pitwise_requests_in_flight") == 1  # this one
    age = (np.datetime64("now") - FRIDAY) / np.timedelta64(1, "s")
    assert sample(client, "pitwise_feature_age_seconds") == pytest.approx(age, abs=60)
    for step in ("lookup", "model", "log", "total"):
        assert sample(client, f'pitwise_forecast_step_seconds_count{{step="{step}"}}') == 2
    route = 'method="POST",route="/v1/predict",status="200"'
    assert sample(client, f"pitwise_request_seconds_count{{{route}}}") == 2


def test_what_clients_make_up_becomes_no_time_series(client):
    for i in range(20):
        client.get(f"/made/up/{i}")
        client.request(f"MADEUP{i}", "/v1/predict")
        client.get(f"/v1/features/S{i}")
    lines = client.get("/metrics").text.splitlines()
    assert len([line for line in lines if line.startswith("pitwise_request_seconds_count")]) == 3


# Keys and limits.


@pytest.fixture
def locked(tmp_path):
    key = add_key(tmp_path / "keys.json", "desk")
    return TestClient(create_app(fake_service(tmp_path))), key, tmp_path / "keys.json"


ADDRESSES = [
    "/v1/model",
    "/metrics",
    "/docs",
    "/redoc",
    "/openapi.json",
    "/static-offline-docs/favicon.png",
    "/x",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_everything_but_health_needs_a_key(locked, address):
    client, key, _ = locked
    for headers in (
        {},
        {"X-API-Key": "pw_x"},
        {"Authorization": f"Digest {key}"},
        {"Authorization": "Basic ä"},
    ):
        headers = {name: value.encode("latin-1") for name, value in headers.items()}
        response = client.get(address, headers=headers)
        problem(response, 401, "no-key")
        assert "Bearer" in response.headers["www-authenticate"]
    expected = 404 if address == "/x" else 200
    assert client.get(address, headers={"X-API-Key": key}).status_code == expected
    assert client.get(address, headers={"Authorization": f"bearer {key}"}).status_code == expected
    assert client.get(address, auth=("whoever", key)).status_code == expected


def test_the_document_says_what_needs_a_key(locked):
    closed, key, _ = locked
    document = closed.get("/openapi.json", headers={"X-API-Key": key}).json()
    assert document["security"] == [{"bearer": []}, {"header": []}]
    open_paths = [p for p, o in document["paths"].items() if o.get("get", {}).get("security") == []]
    assert open_paths == ["/healthz", "/readyz"]


def test_health_needs_no_key(locked):
    client, *_ = locked
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200


def test_a_revoked_key_is_refused_at_once(locked):
    client, key, path = locked
    assert client.get("/v1/model", headers={"X-API-Key": key}).status_code == 200
    revoke_key(path, "desk")
    problem(client.get("/v1/model", headers={"X-API-Key": key}), 401, "no-key")


def test_the_log_has_a_line_a_request_and_no_key_in_it(locked, caplog):
    client, key, _ = locked
    caplog.set_level("INFO", "pitwise.access")
    client.get("/v1/features/A%0AB", headers={"X-API-Key": key})
    (record,) = [r for r in caplog.records if r.name == "pitwise.access"]
    line = record.getMessage()
    assert "\n" not in line
    assert key not in line
    told = json.loads(line)
    assert (told["caller"], told["path"], told["status"]) == ("desk", "/v1/features/A\nB", 404)


def test_a_caller_has_so_many_requests_a_minute_and_no_other_pays_for_it(tmp_path):
    names = ("a", "b")
    keys = {name: add_key(tmp_path / "keys.json", name) for name in names}
    client = TestClient(create_app(fake_service(tmp_path, requests_per_minute=3)))
    ask = {name: {"X-API-Key": keys[name]} for name in names}
    assert [client.get("/v1/model", headers=ask["a"]).status_code for _ in range(3)] == [200] * 3
    response = client.get("/v1/model", headers=ask["a"])
    problem(response, 429, "too-many-requests")
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert client.get("/v1/model", headers=ask["b"]).status_code == 200
    assert [client.get("/v1/model").status_code for _ in range(4)] == [401] * 3 + [429]
    assert client.get("/healthz").status_code == 200


def test_a_body_has_its_bound_with_and_without_a_length(tmp_path):
    client = TestClient(create_app(fake_service(tmp_path, max_body_bytes=1000)))
    body = b'{"symbols": ["AAPL"]}'
    fits = body + b" " * (1000 - len(body))

    def parts(content):
        yield content[:500]
        yield content[500:]

    for content in (fits, parts(fits)):
        headers = {"Content-Type": "application/json"}
        assert client.post("/v1/predict", content=content, headers=headers).status_code == 200
    for content in (fits + b" ", parts(fits + b" ")):
        response = client.post("/v1/predict", content=content, headers=headers)
        problem(response, 413, "body-too-large")
        assert response.headers["connection"] == "close"


# The OpenAPI document.


@pytest.fixture(scope="module")
def documented(tmp_path_factory):
    return schemathesis.openapi.from_asgi(
        "/openapi.json", create_app(fake_service(tmp_path_factory.mktemp("schema")))
    )


@pytest.mark.parametrize(
    "operation",
    [
        "POST /v1/predict",
        "GET /v1/forecasts",
        "GET /v1/features/{symbol}",
        "POST /v1/bars",
        "GET /v1/model",
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",
    ],
)
def test_the_api_keeps_to_its_openapi_document(documented, operation):
    operations = {found.ok().label: found.ok() for found in documented.get_all_operations()}
    assert len(operations) == 8
    modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
    for cases in (operations[operation].as_strategy(generation_mode=mode) for mode in modes):

        @settings(
            max_examples=30, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
        )
        @given(case=cases)
        def check(case):
            case.call_and_validate()

        try:
            check()
        except Unsatisfiable:  # nothing of this operation can be made wrong
            assert operation.startswith("GET")


def test_every_error_of_the_document_is_a_problem_with_examples(client):
    document = client.get("/openapi.json").json()
    seen = 0
    for operations in document["paths"].values():
        for operation in operations.values():
            assert operation["summary"]
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert list(response["content"]) == [PROBLEM]
                    assert response["content"][PROBLEM]["examples"]
                    seen += 1
    assert seen > 30
    assert "HTTPValidationError" not in document["components"]["schemas"]
