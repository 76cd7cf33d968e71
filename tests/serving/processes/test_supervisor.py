"""A service whose processes are killed: the others answer, what died is back, and none is left over."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from support.fake_processes import BAR, SYMBOLS, Running, launch

from serving.processes import supervisor
from serving.processes.supervisor import Child

ASK = {"symbols": ["AAPL"]}


@pytest.fixture
def start(tmp_path):
    servers = []

    def started(*args, **params) -> Running:
        servers.append(Running(tmp_path, *args, **params))
        return servers[-1]

    yield started
    for server in servers:
        server.clear()


def until(holds, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def reader_of(server: Running, client: httpx.Client) -> str:
    """The reader that a client's open connection has, by the log's line of its request."""
    answer = client.get("/v1/model")
    wanted = answer.headers["x-request-id"]
    until(lambda: wanted in server.log())
    (line,) = (line for line in server.log().splitlines() if wanted in line)
    return line.split()[3]


class Post:
    """A bar that is posted from a thread of its own."""

    def __init__(self, server: Running):
        self.answer: httpx.Response | None = None
        self._url = f"{server.url}/v1/bars"
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        until(lambda: server.lines("began.txt"))

    def _run(self) -> None:
        with suppress(httpx.TransportError):
            self.answer = httpx.post(self._url, json={"bars": [BAR]}, timeout=60)

    @property
    def status(self) -> int:
        """Of the answer; 0 where the connection broke."""
        self._thread.join(60)
        return self.answer.status_code if self.answer is not None else 0


@contextmanager
def page_that_hangs(server: Running, folder: Path) -> Iterator[None]:
    """A page is asked for, and reads a file that does not end before the block does."""
    path = folder / "metrics/clean.json"
    path.parent.mkdir()
    os.mkfifo(path)

    def ask() -> None:
        with suppress(httpx.TransportError):
            httpx.get(f"{server.url}/health", timeout=60)

    thread = threading.Thread(target=ask)
    thread.start()
    held: list[int] = []

    def is_read() -> bool:
        with suppress(OSError):
            held.append(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        return bool(held)

    until(is_read)
    yield
    os.close(held[0])
    thread.join()


def take(client: httpx.Client, close: float) -> httpx.Response:
    return client.post("/v1/bars", json={"bars": [BAR | {"close": close}]})


def test_the_processes_are_named_in_a_file_while_it_runs_whatever_else_is_started(start, tmp_path):
    server = start(workers=3)
    pids = server.pids()
    assert list(pids) == ["supervisor", "writer", "reader-0", "reader-1", "reader-2"]
    assert pids["supervisor"] == server.process.pid
    assert all(map(is_alive, pids.values()))
    second = launch(tmp_path, "broken")
    assert second.wait(timeout=60) == 1
    second.communicate()
    assert server.pids() == pids
    assert httpx.post(f"{server.url}/v1/predict", json=ASK, timeout=30).status_code == 200
    assert server.end() == (0, "closed\n")
    assert not any(map(is_alive, pids.values()))
    assert not (tmp_path / "data/serving/processes.json").exists()


def test_a_killed_reader_takes_only_its_own_connections_with_it(start):
    server = start(workers=2)
    clients: dict[str, httpx.Client] = {}
    others = []
    while len(clients) < 2:
        client = httpx.Client(base_url=server.url, timeout=30)
        others.append(client)
        clients.setdefault(reader_of(server, client), client)
        assert len(others) < 200
    pid = server.kill("reader-1")
    until(lambda: not is_alive(pid))
    # The connection that was open goes on, and a new one is answered at once.
    for _ in range(20):
        assert clients["reader-0"].post("/v1/predict", json=ASK).status_code == 200
        assert httpx.post(f"{server.url}/v1/predict", json=ASK, timeout=30).status_code == 200
    until(lambda: server.pids()["reader-1"] != pid)
    seen = set()

    def both() -> bool:
        with httpx.Client(base_url=server.url, timeout=30) as fresh:
            seen.add(reader_of(server, fresh))
        return seen == {"reader-0", "reader-1"}

    until(both, 60)
    for client in others:
        client.close()
    assert server.end()[0] == 0
    assert "reader-1: has ended with exit code -9; it starts again in 1 s" in server.log()


def test_without_the_writer_forecasts_go_on_and_no_acknowledged_bar_is_lost(start):
    server = start(workers=2)
    with httpx.Client(base_url=server.url, timeout=20) as client:
        assert take(client, 11.5).status_code == 200
        pid = server.kill("writer")
        until(lambda: not is_alive(pid))
        refused = take(client, 12.5)
        assert refused.status_code == 503
        assert refused.json()["type"] == "/problems/unavailable"
        assert int(refused.headers["retry-after"]) >= 1
        for symbol in SYMBOLS:
            answer = client.post("/v1/predict", json={"symbols": [symbol]})
            if symbol == "OLD":
                continue
            assert answer.status_code == 200
        assert client.post("/v1/predict", json=ASK).json()["forecasts"][0]["last_close"] == 11.5
        before = server.pids()["writer"]
        until(lambda: server.pids()["writer"] != before)
        until(lambda: take(client, 13.5).status_code == 200)
        assert client.post("/v1/predict", json=ASK).json()["forecasts"][0]["last_close"] == 13.5
    assert server.end()[0] == 0
    assert "AAPL 12.5" not in server.lines("taken.txt")


def test_a_writer_killed_over_a_post_says_that_it_may_be_kept(start):
    server = start(1.0)
    post = Post(server)
    server.kill("writer")
    assert post.status == 503
    assert post.answer
    assert "`repeated`" in post.answer.json()["detail"]


def test_a_bar_is_in_the_forecasts_of_every_reader_once_it_is_acknowledged(start):
    server = start(workers=3)
    for close in range(1, 40):
        with httpx.Client(base_url=server.url, timeout=30) as one:
            assert take(one, float(close)).status_code == 200
        with httpx.Client(base_url=server.url, timeout=30) as another:
            answer = another.post("/v1/predict", json=ASK)
        assert answer.json()["forecasts"][0]["last_close"] == float(close)


def test_when_the_supervisor_is_killed_its_children_end(start):
    server = start(workers=2)
    pids = server.pids()
    server.kill("supervisor")
    until(lambda: not any(map(is_alive, pids.values())))
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_server((host, int(port))):
        pass  # nobody has the address any more


def test_the_end_is_bounded_though_a_request_hangs(start, tmp_path):
    server = start(600.0, ending_seconds=3, drain_seconds=1)
    post = Post(server)
    pids = server.pids()
    with page_that_hangs(server, tmp_path):
        began = time.monotonic()
        code, _ = server.end(seconds=60)
    assert time.monotonic() - began < 1 + 2 * 3 + 10
    assert code == 0
    assert "writer does not end and is killed" in server.log()
    assert "reader-0 does not end" not in server.log()  # though a thread of it makes a page
    assert not any(map(is_alive, pids.values()))
    assert post.status != 200


def test_ctrl_c_of_a_terminal_reaches_all_processes_and_is_one_orderly_end(start):
    """The terminal sends SIGINT to the whole group."""
    server = start(1.0, workers=2)
    post = Post(server)
    for pid in server.pids().values():
        os.kill(pid, signal.SIGINT)
    printed, _ = server.process.communicate(timeout=60)
    assert (post.status, server.process.returncode, printed) == (200, 0, "closed\n")
    assert "Traceback" not in server.log()


def test_a_manager_that_ends_the_whole_group_gets_an_orderly_end(start):
    """As systemd does: SIGTERM to every process."""
    server = start(1.0, workers=2)
    post = Post(server)
    for pid in server.pids().values():
        os.kill(pid, signal.SIGTERM)
    printed, _ = server.process.communicate(timeout=60)
    assert (post.status, server.process.returncode, printed) == (200, 0, "closed\n")


def test_no_answer_is_wrong_while_processes_are_killed(start, tmp_path):
    """Whatever is killed, an answer has the close of a bar that was sent, and never an older one than
    the last acknowledged before it was asked."""
    server = start(workers=2)
    over = threading.Event()
    acknowledged, sent, wrong, answered = [0.0], [0.0], [], [0]

    def post():
        close = 100.0
        with httpx.Client(base_url=server.url, timeout=20) as client:
            while not over.is_set():
                close += 1
                sent[0] = close
                with suppress(httpx.TransportError):
                    if take(client, close).status_code == 200:
                        acknowledged[0] = close
                time.sleep(0.01)

    def ask():
        with httpx.Client(base_url=server.url, timeout=20) as client:
            while not over.is_set():
                least = acknowledged[0]
                with suppress(httpx.TransportError):
                    answer = client.post("/v1/predict", json=ASK)
                    close = answer.json()["forecasts"][0]["last_close"]
                    answered[0] += 1
                    if answer.status_code != 200 or (not least <= close <= sent[0] and close != 100.0):
                        wrong.append((least, close, sent[0]))

    threads = [threading.Thread(target=run) for run in (post, ask, ask)]
    for thread in threads:
        thread.start()
    until(lambda: acknowledged[0] > 100)
    for name in ("writer", "reader-0", "reader-1"):
        pid = server.kill(name)
        until(lambda name=name, pid=pid: server.pids()[name] != pid)
        reached = acknowledged[0]
        until(lambda reached=reached: acknowledged[0] > reached)
    over.set()
    for thread in threads:
        thread.join(30)
    assert not wrong
    assert answered[0] > 20
    assert server.end()[0] == 0
    logged = [line for line in server.log().splitlines() if "pitwise.access" in line]
    assert all(
        json.loads(line.partition("pitwise.access ")[2])["status"] in (200, 503) for line in logged
    )


@pytest.mark.parametrize("name", ["reader-0", "writer"])
def test_a_process_that_hangs_is_killed_and_started_again(start, name):
    server = start(workers=2)
    pid = server.pids()[name]
    os.kill(pid, signal.SIGSTOP)
    until(lambda: server.pids()[name] != pid)
    assert f"{name}: no sign of life for 5 s; it is killed" in server.log()
    with httpx.Client(base_url=server.url, timeout=20) as client:
        until(lambda: take(client, 13.5).status_code == 200)
        assert client.post("/v1/predict", json=ASK).json()["forecasts"][0]["last_close"] == 13.5
    if name == "writer":
        others = server.pids()
        time.sleep(6)
        assert server.pids() == others  # those that work give signs of life
    assert server.end()[0] == 0


def test_a_child_that_dies_of_its_start_rests_longer_each_time(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(supervisor, "monotonic", lambda: now[0])
    child = Child("reader-0", print, ())
    pauses = []

    def lives(seconds: float) -> None:
        child.started = now[0]
        now[0] += seconds
        child.rest()
        pauses.append(child.starts_again - now[0])
        now[0] = child.starts_again

    for _ in range(7):
        lives(2)
    lives(61)
    lives(2)
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 1, 2]
