"""The service's process: where it binds, what it says, and how it ends."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
import yaml
from fake_service import PARAMS

from feature_repo.errors import ParamsError
from feature_repo.stage import load_params
from serving.keys import Keys, add_key, revoke_key
from serving.serve import ServeParams, bound, run

ROOT = Path(__file__).resolve().parent.parent
READY = re.compile(r"(http://127\.0\.0\.1:\d+) serves version 7 for 4 symbols, ready in \d+\.\d s\n")


class Server:
    """`pitwise serve` over the fakes."""

    def __init__(self, folder: Path, seconds: float = 0, **params):
        self.folder = folder
        section = PARAMS | {"keys": "keys.json"} | params
        (folder / "params.yaml").write_text(yaml.safe_dump({"serve": section}))
        self.process = subprocess.Popen(
            [sys.executable, ROOT / "tests/fake_service.py", str(seconds)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
            stdout=subprocess.PIPE,
            stderr=(folder / "stderr").open("w"),
            text=True,
        )
        assert self.process.stdout
        line = self.process.stdout.readline()
        found = READY.fullmatch(line)
        assert found, line + (folder / "stderr").read_text()
        self.url = found[1]

    def end(self, by: int = signal.SIGTERM) -> tuple[int, str]:
        """Exit code, and what it printed after it was ready."""
        self.process.send_signal(by)
        told, _ = self.process.communicate(timeout=30)
        return self.process.returncode, told

    def log(self) -> str:
        return (self.folder / "stderr").read_text()


@pytest.fixture
def start(tmp_path):
    servers = []

    def started(*args, **params) -> Server:
        servers.append(Server(tmp_path, *args, **params))
        return servers[-1]

    yield started
    for server in servers:
        server.process.kill()
        server.process.wait()


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_request_in_flight_is_answered_before_the_end(start, by):
    server = start(1.5)
    answers = []

    def ask():
        answers.append(httpx.post(f"{server.url}/v1/predict", json={"symbols": ["AAPL"]}, timeout=20))

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.5)
    code, told = server.end(by)
    asking.join()
    assert answers[0].status_code == 200
    assert answers[0].json()["forecasts"][0]["symbol"] == "AAPL"
    assert (code, told) == (0, "closed\n")
    assert "Traceback" not in server.log()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/healthz")


def test_bytes_that_come_without_a_length_are_counted_on_the_wire(start):
    server = start(max_body_bytes=1000)
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
            + b"".join(b"190\r\n" + b" " * 400 + b"\r\n" for _ in range(3))
        )
        answer = b""
        while part := connection.recv(65536):  # ends: the server closes, though the body has not
            answer += part
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"/problems/body-too-large" in answer
    assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_a_length_that_is_too_large_is_refused_before_the_body(start):
    server = start(max_body_bytes=1000)
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 99999999999999999999999999\r\n\r\n"
        )
        answer = connection.recv(65536)
    assert answer.startswith((b"HTTP/1.1 413 ", b"HTTP/1.1 400 "))
    assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_keys_hold_on_the_wire_and_the_log_has_none(start, tmp_path):
    key = add_key(tmp_path / "keys.json", "desk")
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


def test_many_callers_at_once_each_get_their_own_answer(start):
    server = start()
    symbols = ["AAPL", "MSFT", "LAGS"]
    wrong = []

    def ask(which: int):
        with httpx.Client(base_url=server.url) as client:
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


def test_a_port_in_use_is_said_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"serve": PARAMS | {"keys": "keys.json"}}))
    before = signal.getsignal(signal.SIGTERM)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            ParamsError, match=rf"serve\.port: 127\.0\.0\.1:{port} cannot be had .*in use"
        ):
            run(None, port)
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_rules_of_binding_are_kept_before_heavy_imports():
    code = (
        "import sys, serving.serve as s; "
        "heavy = {'feast', 'mlflow', 'fastapi', 'sqlalchemy', 'uvicorn', 'torch'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_the_projects_own_section_is_accepted():
    assert load_params("serve", ServeParams, ROOT / "params.yaml").host == "127.0.0.1"
