"""What every request passes: its ids, its host, its key, its limits, its line in the log."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from starlette.testclient import TestClient
from support.fake_service import BAR, fake_app, fake_service
from support.problems import problem

from serving.http import json_route
from serving.http.asked import trace_id
from serving.http.auth import SCOPES, add_key, revoke_key
from serving.http.middleware import host_name, is_this_machine, needed_scope

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


def lines(caplog) -> list[dict]:
    """The lines of the access log."""
    return [json.loads(r.getMessage()) for r in caplog.records if r.name == "pitwise.access"]


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


def test_an_expired_key_is_refused_and_told_why(locked):
    client, key, path = locked
    document = json.loads(path.read_text())
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
    document["desk"]["expires"] = yesterday
    path.write_text(json.dumps(document))
    refused = problem(client.get("/v1/model", headers={"X-API-Key": key}), 401, "no-key")
    assert f"has expired: {yesterday}" in refused["detail"]


REQUESTS = {
    "predict": [
        ("POST", "/v1/predict", {"symbols": ["AAPL"]}),
        ("GET", "/v1/forecasts", None),
        ("GET", "/v1/forecasts/AAPL/history", None),
        ("HEAD", "/v1/forecasts/stream", None),
        ("GET", "/v1/features/AAPL", None),
        ("GET", "/v1/signals", None),
        ("POST", "/v1/risk", {"weights": {"AAPL": 1}}),
    ],
    "bars": [("POST", "/v1/bars", {"bars": [BAR]}), ("DELETE", "/v1/bars/AAPL/2013-11-04", None)],
    "model": [("GET", "/v1/model", None)],
}
WITHOUT_DATA = {"/v1/signals": 409, "/v1/risk": 503}
"""What the fake service has no files for; a key opens it all the same."""


@pytest.mark.parametrize("scope", SCOPES)
def test_a_key_opens_what_it_is_for_and_nothing_else(tmp_path, scope):
    service = fake_service()
    headers = {"X-API-Key": add_key(tmp_path / "keys.json", "desk", [scope])}
    with TestClient(fake_app(tmp_path, service)) as client:
        for needed, requests in REQUESTS.items():
            for method, path, body in requests:
                response = client.request(method, path, json=body, headers=headers)
                if needed == scope:
                    assert response.status_code == WITHOUT_DATA.get(path, 200)
                elif method == "HEAD":
                    assert response.status_code == 403
                else:
                    refused = problem(response, 403, "wrong-scope")
                    assert f"the scope '{needed}'" in refused["detail"]
        for open_to_all in ("/metrics", "/docs", "/openapi.json"):
            assert client.get(open_to_all, headers=headers).status_code == 200
    if scope != "bars":
        assert not service.bars.taken
        assert not service.bars.withdrawn


def test_every_address_of_the_api_needs_a_scope(client):
    paths = client.get("/openapi.json").json()["paths"]
    needed = {path: needed_scope(path) for path in paths}
    assert {path for path, scope in needed.items() if scope is None} == {
        "/healthz",
        "/readyz",
        "/metrics",
    }
    tested = {path for requests in REQUESTS.values() for _, path, _ in requests}
    assert len(tested) == len(paths) - 3
    assert needed_scope("/v1/barsX") is None


def test_a_key_has_its_own_limits(tmp_path):
    path = tmp_path / "keys.json"
    keys = {
        "slow": add_key(path, "slow", SCOPES, per_minute=2),
        "few": add_key(path, "few", SCOPES, per_day=3),
    }
    with TestClient(fake_app(tmp_path)) as client:
        for name, most in (("slow", 2), ("few", 3)):
            headers = {"X-API-Key": keys[name]}
            got = [client.get("/v1/model", headers=headers).status_code for _ in range(most + 1)]
            assert got == [200] * most + [429]
        response = client.get("/v1/model", headers={"X-API-Key": keys["few"]})
        assert "More than 3 requests in a day" in problem(response, 429, "too-many-requests")["detail"]
        assert int(response.headers["retry-after"]) > 86_000


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8600", "127.0.0.1.evil.example", "", "[::2]"]
)
def test_without_keys_a_page_of_another_site_is_refused_by_its_host(tmp_path, host):
    with TestClient(fake_app(tmp_path, hosts=None)) as client:
        for method, path in (
            ("GET", "/v1/model"),
            ("DELETE", "/v1/bars/AAPL/2013-11-04"),
            ("GET", "/docs"),
        ):
            problem(client.request(method, path, headers={"Host": host}), 421, "wrong-host")
        assert client.get("/healthz", headers={"Host": host}).status_code == 200
        assert client.get("/readyz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "LOCALHOST:8600", "127.0.0.2:1", "[::1]", "[::1]:8600"])
def test_without_keys_this_machine_is_let_in(tmp_path, host):
    with TestClient(fake_app(tmp_path, hosts=None)) as client:
        assert client.get("/v1/model", headers={"Host": host}).status_code == 200


def test_with_keys_any_host_will_do_unless_some_are_named(locked, tmp_path):
    _, key, _ = locked
    for hosts, expected in ((None, 200), (["desk.example"], 421), (["Evil.example"], 200)):
        with TestClient(fake_app(tmp_path, hosts=hosts)) as client:
            headers = {"Host": "evil.example:80", "X-API-Key": key}
            assert client.get("/v1/model", headers=headers).status_code == expected


@pytest.mark.parametrize(
    ("header", "name"),
    [(b"A.b", "a.b"), (b"a.b:80", "a.b"), (b"[::1]:80", "::1"), (b"[::1]", "::1"), (b"\xff", "ÿ")],
)
def test_a_host_is_read_without_its_port(header, name):
    assert host_name(header) == name


def test_only_loopback_names_are_this_machine():
    assert [is_this_machine(n) for n in ("localhost", "::1", "127.9.9.9")] == [True] * 3
    assert [is_this_machine(n) for n in ("", "10.0.0.1", "localhost.evil", "0.0.0.0")] == [False] * 4


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
    assert entry["route"] == "/v1/features/{symbol}"


def test_the_line_says_how_much_was_answered_from_which_state(client, service, caplog):
    caplog.set_level("INFO", "pitwise.access")
    client.post("/v1/predict", json={"symbols": ["AAPL", "MSFT", "NOPE"]})
    client.get("/v1/forecasts", params={"top": 3})
    client.post("/v1/bars", json={"bars": [BAR, BAR | {"symbol": "MSFT"}]})
    client.get("/healthz")
    assert [(e["route"], e["symbols"], e["state"]) for e in lines(caplog)] == [
        ("/v1/predict", 2, 50),
        ("/v1/forecasts", 3, 50),
        ("/v1/bars", 2, None),
        ("/healthz", 0, None),
    ]


def test_a_requests_id_goes_from_end_to_end(client, service, caplog):
    caplog.set_level("INFO", "pitwise.access")
    headers = {"X-Request-ID": "desk-4711.a:b", "traceparent": f"00-{'a1' * 16}-{'b2' * 8}-01"}
    response = client.post("/v1/predict", json={"symbols": ["AAPL"]}, headers=headers)
    assert response.headers["x-request-id"] == "desk-4711.a:b"
    assert service.served.recorded[0].request_id == "desk-4711.a:b"
    assert (lines(caplog)[0]["request_id"], lines(caplog)[0]["trace_id"]) == ("desk-4711.a:b", "a1" * 16)
    document = client.post("/v1/predict", json={"symbols": ["X"]}, headers=headers).json()
    assert document["request_id"] == "desk-4711.a:b"


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\tb", 'a"b', "ä", "<b>"])
def test_an_id_that_could_do_harm_is_replaced(client, given):
    headers = {"X-Request-ID": given.encode("latin-1")}
    made = client.get("/healthz", headers=headers).headers["x-request-id"]
    assert len(made) == 16
    int(made, 16)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (f"00-{'a1' * 16}-{'b2' * 8}-01", "a1" * 16),
        (f"cc-{'a1' * 16}-{'b2' * 8}-01-what-the-future-brings", "a1" * 16),
        (f"00-{'a1' * 16}-{'b2' * 8}-01-more", None),
        (f"ff-{'a1' * 16}-{'b2' * 8}-01", None),
        (f"00-{'00' * 16}-{'b2' * 8}-01", None),
        (f"00-{'a1' * 16}-{'00' * 8}-01", None),
        (f"00-{'A1' * 16}-{'b2' * 8}-01", None),
        (f"00-{'a1' * 15}-{'b2' * 8}-01", None),
        (f"00-{'a1' * 16}-{'b2' * 8}-01\n", None),
        ("", None),
    ],
)
def test_a_trace_is_followed_where_its_header_is_valid(header, found):
    assert trace_id(header.encode()) == found


def test_a_caller_has_so_many_requests_a_minute_and_no_other_pays_for_it(tmp_path):
    names = ("a", "b")
    keys = {name: add_key(tmp_path / "keys.json", name, SCOPES) for name in names}
    headers = {name: {"X-API-Key": keys[name]} for name in names}
    with TestClient(fake_app(tmp_path, requests_per_minute=3)) as client:
        assert [client.get("/v1/model", headers=headers["a"]).status_code for _ in range(3)] == [200] * 3
        response = client.get("/v1/model", headers=headers["a"])
        problem(response, 429, "too-many-requests")
        assert 1 <= int(response.headers["retry-after"]) <= 60
        assert client.get("/v1/model", headers=headers["b"]).status_code == 200
        assert [client.get("/v1/model").status_code for _ in range(4)] == [401] * 3 + [429]
        assert client.get("/healthz").status_code == 200


def test_two_processes_of_one_service_share_a_callers_limit(tmp_path):
    headers = {"X-API-Key": add_key(tmp_path / "keys.json", "a", SCOPES)}
    apps = [fake_app(tmp_path, requests_per_minute=4) for _ in range(2)]
    with TestClient(apps[0]) as one, TestClient(apps[1]) as other:
        got = [
            client.get("/v1/model", headers=headers).status_code
            for client in (one, other)
            for _ in "123"
        ]
    assert got == [200] * 4 + [429] * 2


def test_readiness_is_under_a_limit_that_nothing_else_uses_up(tmp_path):
    with TestClient(fake_app(tmp_path, requests_per_minute=3)) as client:
        assert [client.get("/v1/model").status_code for _ in range(4)] == [200] * 3 + [429]
        assert [client.get("/readyz").status_code for _ in range(4)] == [200] * 3 + [429]
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
    service.states.state = None
    response = client.get("/v1/model")
    document = problem(response, 500, "internal-error")
    assert "NoneType" not in response.text
    assert "AttributeError" in caplog.text
    assert f"request {document['request_id']} failed" in caplog.text


def sent_to(app, receive) -> list[dict]:
    """What the app sends to a client of /v1/predict whose body comes by `receive`."""
    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/predict", "headers": headers}
    scope |= {"query_string": b"", "root_path": "", "scheme": "http", "client": ("127.0.0.1", 1)}
    sent = []

    async def send(message):
        sent.append(message)

    async def talk():
        async with app.router.lifespan_context(app):
            await app(scope, receive, send)

    asyncio.run(talk())
    return sent


def test_a_body_that_does_not_come_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(json_route, "BODY_SECONDS", 0.05)
    parts = [{"type": "http.request", "body": b'{"symbols"', "more_body": True}]

    async def receive():
        if parts:
            return parts.pop()
        return await asyncio.sleep(3600)

    start, body = sent_to(fake_app(tmp_path), receive)
    assert start["status"] == 408
    assert (b"connection", b"close") in start["headers"]
    assert json.loads(body["body"])["type"] == "/problems/slow-body"


def test_a_client_that_leaves_is_no_fault_of_ours(tmp_path, caplog):
    caplog.set_level("INFO")

    async def receive():
        return {"type": "http.disconnect"}

    assert sent_to(fake_app(tmp_path), receive) == []
    assert [entry["status"] for entry in lines(caplog)] == [499]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
