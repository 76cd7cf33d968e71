"""The service's process: where it binds, how it starts, and how it ends."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest
import yaml
from support.fake_processes import BAR, Running, launch
from support.fake_service import PARAMS
from support.workspaces import ROOT

from pitwise.errors import ParamsError
from pitwise.stage import load_params
from pitwise.workspace import Workspace
from serving.http.auth import Keys, add_key, revoke_key
from serving.http.server import bound, run
from serving.settings import ServeParams


@pytest.fixture
def start(tmp_path):
    servers = []

    def started(*args, **params) -> Running:
        servers.append(Running(tmp_path, *args, **params))
        return servers[-1]

    yield started
    for server in servers:
        server.clear()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One for the tests that leave it as it is; a body may have 1,000 bytes."""
    server = Running(tmp_path_factory.mktemp("server"), max_body_bytes=1000, workers=2)
    yield server
    assert server.end() == (0, "closed\n")


def test_a_request_in_flight_is_answered_before_the_end(start):
    """A post of bars: the reader needs the writer for it."""
    server = start(1.0)
    answers = []

    def ask():
        answers.append(httpx.post(f"{server.url}/v1/bars", json={"bars": [BAR]}, timeout=20))

    thread = threading.Thread(target=ask)
    thread.start()
    while not server.lines("began.txt"):
        assert not answers
        time.sleep(0.01)
    code, printed = server.end()
    thread.join()
    assert answers[0].status_code == 200
    assert answers[0].json()["counts"] == {"new": 1}
    assert (code, printed) == (0, "closed\n")
    assert "Traceback" not in server.log()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/healthz")


def test_a_start_can_be_broken_off(tmp_path):
    process = launch(tmp_path, "slow")
    assert process.stdout
    assert process.stdout.readline() == "building\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0
    assert process.stdout.read() == ""
    assert "Traceback" not in (tmp_path / "stderr").read_text()


def test_a_part_that_is_missing_at_the_start_is_one_line(tmp_path):
    process = launch(tmp_path, "broken")
    printed, _ = process.communicate(timeout=60)
    assert (process.returncode, printed) == (1, "")
    assert (tmp_path / "stderr").read_text() == "error: the champion is not there.\n"


def test_a_process_that_is_killed_at_the_start_ends_it(tmp_path):
    process = launch(tmp_path, "dies")
    printed, _ = process.communicate(timeout=60)
    assert (process.returncode, printed) == (1, "")
    said = (tmp_path / "stderr").read_text()
    assert said == "error: the service's writer has ended with exit code -9.\n"


def test_bytes_that_come_without_a_length_are_counted_on_the_wire(server):
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
            + b"".join(b"190\r\n" + b" " * 400 + b"\r\n" for _ in range(3))
        )
        answer = b""
        while part := connection.recv(65536):  # ends: the server closes, though the body has not
            answer += part
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"/problems/body-too-large" in answer
    assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_a_length_that_is_too_large_is_refused_before_the_body(server):
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: 99999999999999999999999999\r\n\r\n"
        )
        answer = connection.recv(65536)
    assert answer.startswith((b"HTTP/1.1 413 ", b"HTTP/1.1 400 "))
    assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_keys_hold_on_the_wire_and_the_log_has_none(start, tmp_path):
    key = add_key(tmp_path / "keys.json", "desk", ["model"])
    server = start()
    headers = {"Authorization": f"Bearer {key}"}
    assert httpx.get(f"{server.url}/v1/model").status_code == 401
    assert httpx.get(f"{server.url}/v1/model", headers=headers).status_code == 200
    revoke_key(tmp_path / "keys.json", "desk")
    assert httpx.get(f"{server.url}/v1/model", headers=headers).status_code == 401
    assert httpx.get(f"{server.url}/healthz").status_code == 200
    server.end()
    lines = [
        line.partition("pitwise.access ")[2]
        for line in server.log().splitlines()
        if "pitwise.access" in line
    ]
    assert [(line["caller"], line["status"]) for line in map(json.loads, lines)] == [
        ("", 401),
        ("desk", 200),
        ("", 401),
        ("", 200),
    ]
    assert key not in server.log()


def test_many_callers_at_once_each_get_their_own_answer(server):
    symbols = ["AAPL", "MSFT", "LAGS"]
    wrong = []

    def ask(which: int):
        with httpx.Client(base_url=server.url, timeout=30) as client:
            for i in range(40):
                symbol = symbols[(which + i) % 3]
                answer = client.post("/v1/predict", json={"symbols": [symbol]}).json()
                if answer["forecasts"][0]["last_close"] != 100 + symbols.index(symbol):
                    wrong.append(answer)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    metrics = httpx.get(f"{server.url}/metrics").text
    assert 'pitwise_predictions_total{model_version="7"} 240.0' in metrics


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "localhost.localdomain.invalid"])
def test_without_a_key_no_other_machine_is_let_in(tmp_path, host):
    with pytest.raises(ParamsError, match=r"serve\.host: ") as caught:
        bound(host, 0, Keys(tmp_path / "keys.json")).close()
    if "invalid" not in host:
        assert "pitwise key add" in str(caught.value)


def test_with_a_key_any_address_may_be_bound(tmp_path):
    add_key(tmp_path / "keys.json", "desk")
    with bound("0.0.0.0", 0, Keys(tmp_path / "keys.json")) as listener:
        assert listener.getsockname()[0] == "0.0.0.0"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_no_key(tmp_path, host):
    bound(host, 0, Keys(tmp_path / "keys.json")).close()


def test_a_port_in_use_is_an_error_before_anything_is_loaded(tmp_path):
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"serve": PARAMS}))
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            ParamsError, match=rf"serve\.port: 127\.0\.0\.1:{port} cannot be had .*in use"
        ):
            run(Workspace(tmp_path), None, port)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_the_rules_of_binding_are_kept_before_heavy_imports():
    code = (
        "import sys, serving.http.server as s; "
        "heavy = {'feast', 'mlflow', 'fastapi', 'sqlalchemy', 'uvicorn', 'torch'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_projects_own_section_is_accepted():
    assert load_params(Workspace(ROOT), "serve", ServeParams).host == "127.0.0.1"
