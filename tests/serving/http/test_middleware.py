"""What every request passes: its key, its limits, its line in the log, and faults of ours."""

import json

import pytest
from starlette.testclient import TestClient
from support.fake_service import fake_app
from support.problems import problem

from serving.http.auth import add_key, revoke_key

ADDRESSES = [
    "/v1/model",
    "/metrics",
    "/docs",
    "/redoc",
    "/openapi.json",
    "/static-offline-docs/favicon.png",
    "/x",
]
pytestmark = pytest.mark.unit


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
    entry = json.loads(line)
    assert (entry["caller"], entry["path"], entry["status"]) == ("desk", "/v1/features/A\nB", 404)


def test_a_caller_has_so_many_requests_a_minute_and_no_other_pays_for_it(tmp_path):
    names = ("a", "b")
    keys = {name: add_key(tmp_path / "keys.json", name) for name in names}
    headers = {name: {"X-API-Key": keys[name]} for name in names}
    with TestClient(fake_app(tmp_path, requests_per_minute=3)) as client:
        assert [client.get("/v1/model", headers=headers["a"]).status_code for _ in range(3)] == [200] * 3
        response = client.get("/v1/model", headers=headers["a"])
        problem(response, 429, "too-many-requests")
        assert 1 <= int(response.headers["retry-after"]) <= 60
        assert client.get("/v1/model", headers=headers["b"]).status_code == 200
        assert [client.get("/v1/model").status_code for _ in range(4)] == [401] * 3 + [429]
        assert client.get("/healthz").status_code == 200


def test_a_body_has_its_bound_with_and_without_a_length(tmp_path):
    body = b'{"symbols": ["AAPL"]}'
    fits = body + b" " * (1000 - len(body))

    def parts(content):
        yield content[:500]
        yield content[500:]

    headers = {"Content-Type": "application/json"}
    with TestClient(fake_app(tmp_path, max_body_bytes=1000)) as client:
        for content in (fits, parts(fits)):
            assert client.post("/v1/predict", content=content, headers=headers).status_code == 200
        for content in (fits + b" ", parts(fits + b" ")):
            response = client.post("/v1/predict", content=content, headers=headers)
            problem(response, 413, "body-too-large")
            assert response.headers["connection"] == "close"


def test_a_fault_of_ours_is_a_500_whose_id_is_in_the_log(client, service, caplog):
    del service.champion.since
    response = client.get("/v1/model")
    document = problem(response, 500, "internal-error")
    assert "since" not in response.text
    assert "AttributeError" in caplog.text
    assert f"request {document['request_id']} failed" in caplog.text
