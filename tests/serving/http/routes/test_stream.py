"""Forecasts as they change: what a stream sends, how it is resumed, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import httpx
import pytest
import uvicorn
from support.fake_service import NEWEST, fake_app, fake_service
from support.problems import problem
from support.workspaces import ENVIRONMENT, ROOT

from pitwise.errors import StoreError
from serving.http.auth import add_key, revoke_key
from serving.http.routes import stream

STREAM = "/v1/forecasts/stream"
pytestmark = pytest.mark.component


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(stream, "LOOK_SECONDS", 0.01)


@contextmanager
def serving(app):
    """A client of the app behind a real server: the test client waits for the end of an answer."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False) as client:
            yield client
    finally:
        app.state.ending.set()
        server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive()


@pytest.fixture
def client(service, tmp_path):
    with serving(fake_app(tmp_path, service)) as client:
        yield client


class Events:
    """The events of an open stream, one at a time."""

    def __init__(self, response: httpx.Response):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        self.response = response
        self._lines = response.iter_lines()

    def next(self) -> tuple[str, str, dict]:
        """Kind, id and document; a comment has the kind "comment"."""
        kind = number = data = ""
        for line in self._lines:
            name, _, value = line.partition(": ")
            if line.startswith(":"):
                return "comment", "", {}
            if not line:
                if data:
                    return kind, number, json.loads(data)
                continue
            kind = value if name == "event" else kind
            number = value if name == "id" else number
            data += value if name == "data" else ""
        raise EOFError


@contextmanager
def opened(client, headers=None, **params):
    with client.stream("GET", STREAM, params=params, headers=headers) as response:
        if response.status_code != 200:
            response.read()
        yield response


def symbols(document: dict) -> list[str]:
    return [forecast["symbol"] for forecast in document["forecasts"]]


def test_a_stream_begins_with_the_market_and_goes_on_with_what_changes(client, service):
    with opened(client) as response:
        events = Events(response)
        kind, number, document = events.next()
        assert (kind, number) == ("forecasts", "50")
        assert symbols(document) == ["AAPL", "MSFT", "LAGS"]
        assert [(e["type"], e["symbol"]) for e in document["errors"]] == [
            ("/problems/stale-features", "OLD")
        ]
        assert document["forecasts"][0] == client.get("/v1/forecasts?top=3").json()["forecasts"][2]
        service.states.change("MSFT", p_up=0.75)
        kind, number, document = events.next()
        assert (kind, number, symbols(document)) == ("forecasts", "51", ["MSFT"])
        assert document["forecasts"][0]["p_up"] == 0.75
    # Each was logged before it was sent, as any answer.
    streamed = [a for a in service.served.recorded if a.route == STREAM]
    assert [(a.state, [f.symbol for f in a.forecasts]) for a in streamed] == [
        (50, ["AAPL", "MSFT", "LAGS"]),
        (51, ["MSFT"]),
    ]
    assert streamed[0].request_id == streamed[1].request_id == response.headers["x-request-id"]
    # The log tells answers to one request apart by their instants.
    assert streamed[0].received_at < streamed[1].received_at


def test_a_stream_of_some_symbols_is_silent_about_others(client, service):
    with opened(client, symbols=["MSFT", "NOPE"]) as response:
        events = Events(response)
        _, _, document = events.next()
        assert symbols(document) == ["MSFT"]
        assert [(e["symbol"], e["field"]) for e in document["errors"]] == [("NOPE", "symbols")]
        service.states.change("AAPL", p_up=0.75)
        service.states.change("MSFT", p_up=0.25)
        _, number, document = events.next()
        assert (number, symbols(document), document["errors"]) == ("52", ["MSFT"], [])


def test_a_stream_resumes_after_the_last_event_and_misses_nothing(client, service):
    service.states.change("AAPL", p_up=0.6)  # 51
    service.states.change("MSFT", p_up=0.7)  # 52
    for last, expected in ((50, ["AAPL", "MSFT"]), (51, ["MSFT"])):
        with opened(client, headers={"Last-Event-ID": str(last)}) as response:
            _, number, document = Events(response).next()
            assert (number, symbols(document)) == ("52", expected)
    with opened(client, headers={"Last-Event-ID": "52"}) as response:
        events = Events(response)
        service.states.change("LAGS", p_up=0.8)
        _, number, document = events.next()
        assert (number, symbols(document)) == ("53", ["LAGS"])


def test_a_number_of_another_service_brings_the_market_anew(client):
    with opened(client, headers={"Last-Event-ID": "999999"}) as response:
        _, number, document = Events(response).next()
        assert (number, len(document["forecasts"])) == ("50", 3)


def test_a_silent_stream_has_a_heart_beat(client, monkeypatch):
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.05)
    with opened(client) as response:
        events = Events(response)
        assert [events.next()[0] for _ in range(3)] == ["forecasts", "comment", "comment"]


@pytest.mark.parametrize(
    ("params", "headers", "status", "kind"),
    [
        ({"symbols": ["NOPE"]}, {}, 404, "unknown-symbol"),
        ({"symbols": ["AAPL", "AAPL"]}, {}, 422, "duplicate-symbol"),
        ({"symbols": ["A" * 65]}, {}, 422, "invalid-request"),
        ({"symbols": [f"S{i}" for i in range(1001)]}, {}, 422, "invalid-request"),
        ({}, {"Last-Event-ID": "x"}, 422, "invalid-request"),
        ({}, {"Last-Event-ID": "-1"}, 422, "invalid-request"),
        ({}, {"Last-Event-ID": "9" * 30}, 422, "invalid-request"),
    ],
)
def test_a_stream_that_cannot_be_is_refused(client, params, headers, status, kind):
    with opened(client, headers, **params) as response:
        problem(response, status, kind)


def test_streams_are_so_many(client, monkeypatch):
    monkeypatch.setattr(stream, "MOST", 1)
    with opened(client) as first:
        events = Events(first)
        events.next()
        with opened(client) as second:
            problem(second, 503, "busy")
        assert "pitwise_streams 1.0" in client.get("/metrics").text
    deadline = time.monotonic() + 20
    while "pitwise_streams 0.0" not in client.get("/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with opened(client) as again:
        Events(again).next()


def test_a_forecast_that_cannot_be_logged_is_not_sent_and_ends_the_stream(client, service):
    with opened(client) as response:
        events = Events(response)
        events.next()
        service.served.fault = StoreError("secret")
        service.states.change("MSFT", p_up=0.75)
        kind, number, document = events.next()
        assert (kind, number, document["type"]) == ("problem", "", "/problems/unavailable")
        assert document["request_id"] == response.headers["x-request-id"]
        with pytest.raises(EOFError):
            events.next()
    service.served.fault = None
    with opened(client, headers={"Last-Event-ID": "50"}) as response:
        assert symbols(Events(response).next()[2]) == ["MSFT"]


def test_a_stream_ends_with_its_key(service, tmp_path):
    path = tmp_path / "keys.json"
    headers = {"X-API-Key": add_key(path, "desk")}
    add_key(path, "other")
    with serving(fake_app(tmp_path, service)) as client, opened(client, headers) as response:
        events = Events(response)
        events.next()
        revoke_key(path, "desk")
        kind, _, document = events.next()
        assert (kind, document["type"]) == ("problem", "/problems/no-key")
        with pytest.raises(EOFError):
            events.next()


def test_a_stream_that_was_opened_without_a_key_ends_when_keys_are_needed(client, tmp_path):
    with opened(client) as response:
        events = Events(response)
        events.next()
        add_key(tmp_path / "keys.json", "desk")
        assert events.next()[2]["type"] == "/problems/no-key"


def test_ages_in_a_stream_are_those_of_its_state(client, service):
    service.states.state = replace(service.states.state, newest=NEWEST + 1)
    with opened(client, symbols=["AAPL"]) as response:
        (forecast,) = Events(response).next()[2]["forecasts"]
        assert forecast["feature_age_sessions"] == 1


ONE_SERVICE = """
import sys
from pathlib import Path
import uvicorn
from support.fake_service import fake_app

uvicorn.run(fake_app(Path(sys.argv[1])), port=int(sys.argv[2]), timeout_graceful_shutdown=30)
"""


def test_an_open_stream_does_not_hold_up_the_end_of_the_service(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = ENVIRONMENT | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    command = [sys.executable, "-c", ONE_SERVICE, str(tmp_path), str(port)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False) as client:
            deadline = time.monotonic() + 60
            while True:
                try:
                    client.get("/healthz")
                    break
                except httpx.ConnectError:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            with opened(client) as response:
                events = Events(response)
                events.next()
                process.send_signal(signal.SIGTERM)
                with pytest.raises(EOFError):  # it ends as it should; nothing is cut off
                    events.next()
                process.wait(timeout=15)  # of the 30 that requests in flight may take
    finally:
        process.kill()
        process.wait()


def test_the_fake_market_is_what_these_tests_say():
    assert list(fake_service().states.state.changed.values()) == [50] * 4
