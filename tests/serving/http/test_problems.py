"""Bodies that are no JSON, addresses that are not there: each is a problem document."""

import pytest
from support.problems import problem

pytestmark = pytest.mark.unit


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
def test_a_body_that_is_not_declared_as_json_is_415(client, kind):
    headers = {"Content-Type": kind} if kind else {}
    response = client.post("/v1/predict", content=b'{"symbols": ["AAPL"]}', headers=headers)
    problem(response, 415, "not-json")


def test_a_route_that_is_not_there_and_a_method_that_is_not_taken_are_problems(client):
    problem(client.get("/v2/predict"), 404, "not-found")
    response = client.get("/v1/predict")
    problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "POST"


def test_thousands_of_faults_are_not_all_recited(client):
    response = client.post("/v1/predict", json={"symbols": [0] * 1000})
    document = problem(response, 422, "invalid-request")
    assert len(document["errors"]) == 100
    assert "95 or more" in document["detail"]


def test_a_made_up_name_is_not_repeated_at_length(client):
    response = client.post("/v1/predict", json={"symbols": ["AAPL"], "x" * 50_000: 1})
    document = problem(response, 422, "invalid-request")
    assert document["errors"][0]["field"] == "x" * 80
