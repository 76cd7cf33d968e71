"""Bars from a reader to the writer: each wait is bounded, and every failure has its own error."""

import socket
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from pitwise.errors import StoreError
from serving.http.service import BarOutcome
from serving.processes import remote
from serving.processes.remote import BarsServer, RemoteBars
from serving.state.errors import AwayError, BusyError

BARS = [
    {"symbol": "AAPL", "date": "2013-11-04", "close": 11.5},
    {"symbol": "MSFT", "date": "2013-11-04"},
]


class Taker:
    """Notes what it takes; `go` lets it return, `began` says that it is at it."""

    def __init__(self):
        self.taken, self.go, self.began = [], threading.Event(), threading.Event()
        self.at_once = 0
        self.most_at_once = 0
        self.fault: Exception | None = None

    def take(self, bars):
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.began.set()
        assert self.go.wait(20)
        self.at_once -= 1
        if self.fault:
            raise self.fault
        self.taken.append([bar["symbol"] for bar in bars])
        return [
            SimpleNamespace(
                symbol=bar["symbol"],
                date=bar["date"],
                outcome="new",
                reason="",
                provisional=True,
            )
            for bar in bars
        ]

    def withdraw(self, symbol, date):
        return SimpleNamespace(
            symbol=symbol, date=date, outcome="refused", reason="no_such_bar", provisional=False
        )


@contextmanager
def serving(folder, taker, max_waiting=3, seconds=10.0):
    server = BarsServer(folder / "bars", taker.take, taker.withdraw, max_waiting, seconds)
    server.start()
    try:
        yield server
    finally:
        taker.go.set()
        server.stop(10)


class Posts:
    """Posts from threads of their own, with what became of each."""

    def __init__(self, bars: RemoteBars):
        self.bars, self.answers, self.threads = bars, [], []

    def post(self, symbol: str) -> None:
        def run():
            try:
                answer = self.bars.take([{"symbol": symbol, "date": "2013-11-04"}])
                self.answers.append((symbol, answer[0].outcome))
            except Exception as error:
                self.answers.append((symbol, type(error)))

        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()

    def join(self):
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive()


def until(holds) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def taker():
    taker = Taker()
    taker.go.set()
    return taker


def test_outcomes_come_back_in_order(tmp_path, taker):
    with serving(tmp_path, taker):
        bars = RemoteBars(tmp_path / "bars", 3, 10)
        assert bars.take(BARS) == [
            BarOutcome("AAPL", "2013-11-04", "new", "", True),
            BarOutcome("MSFT", "2013-11-04", "new", "", True),
        ]
        refused = BarOutcome("AAPL", "2013-11-04", "refused", "no_such_bar", False)
        assert bars.withdraw("AAPL", "2013-11-04") == refused
        many = [{"symbol": f"S{i}", "date": "2013-11-04", "note": "x" * 100} for i in range(20_000)]
        assert [outcome.symbol for outcome in bars.take(many)] == [bar["symbol"] for bar in many]


def test_one_post_at_a_time(tmp_path, taker):
    taker.go.clear()
    with serving(tmp_path, taker) as server:
        posts = Posts(RemoteBars(tmp_path / "bars", 3, 10))
        for symbol in ("A", "B", "C"):
            posts.post(symbol)
        until(lambda: server.status.figures["waiting"] == 2)
        taker.go.set()
        posts.join()
        assert taker.most_at_once == 1
        assert sorted(posts.answers) == [("A", "new"), ("B", "new"), ("C", "new")]
        until(lambda: server.status.figures["waiting"] == 0)
        assert server.status.figures["posts"] == 3


def test_one_too_many_is_told_at_once_and_nothing_of_it_is_taken(tmp_path, taker):
    taker.go.clear()
    with serving(tmp_path, taker, max_waiting=2) as server:
        posts = Posts(RemoteBars(tmp_path / "bars", 100, 10))
        for symbol in ("A", "B", "C"):
            posts.post(symbol)
        until(lambda: server.status.figures["waiting"] == 2)
        with pytest.raises(BusyError, match=r"2 posts of bars wait already \(serve\.max_waiting\)"):
            RemoteBars(tmp_path / "bars", 100, 10).take([{"symbol": "D", "date": "2013-11-04"}])
        # A reader has its own bound, and then asks nobody.
        small = RemoteBars(tmp_path / "nobody", 0, 10)
        assert small._places.acquire(blocking=False)
        with pytest.raises(BusyError, match="0 posts of bars wait already"):
            small.take(BARS)
        taker.go.set()
        posts.join()
        assert sorted(symbol for bars in taker.taken for symbol in bars) == ["A", "B", "C"]
        assert server.status.figures["refused"] == 1


def test_a_post_waits_only_so_long_and_is_not_taken_later(tmp_path, taker):
    taker.go.clear()
    with serving(tmp_path, taker, seconds=0.3) as server:
        posts = Posts(RemoteBars(tmp_path / "bars", 3, 20))
        posts.post("A")
        assert taker.began.wait(10)
        with pytest.raises(BusyError, match=r"took longer than 0\.3 s .* nothing was taken"):
            RemoteBars(tmp_path / "bars", 3, 20).take([{"symbol": "B", "date": "2013-11-04"}])
        taker.go.set()
        posts.join()
        until(lambda: server.status.figures["waiting"] == 0)
        assert taker.taken == [["A"]]


def test_a_post_under_way_too_long_says_that_it_may_be_taken(tmp_path, taker):
    taker.go.clear()
    with serving(tmp_path, taker):
        with pytest.raises(BusyError, match="those that were are `repeated`"):
            RemoteBars(tmp_path / "bars", 3, 0.2).take(BARS)
        taker.go.set()
        until(lambda: taker.taken)
        assert len(RemoteBars(tmp_path / "bars", 3, 10).take(BARS)) == 2


def test_what_fails_has_its_own_error(tmp_path, taker):
    with serving(tmp_path, taker) as server:
        bars = RemoteBars(tmp_path / "bars", 3, 10)
        taker.fault = StoreError("the store does not take rows. The bars are kept.")
        with pytest.raises(StoreError, match="The bars are kept") as caught:
            bars.take(BARS)
        assert type(caught.value) is StoreError
        taker.fault = BusyError("one post has been under way for 40 s")
        with pytest.raises(BusyError, match="for 40 s"):
            bars.take(BARS)
        taker.fault = KeyError("close")
        with pytest.raises(RuntimeError, match="KeyError: 'close'"):
            bars.take(BARS)
        taker.fault = None
        assert bars.take(BARS)[0].outcome == "new"
        assert server.status.figures["failed"] == 3
        assert server.status.ok


@pytest.mark.parametrize("there", [False, True], ids=["never there", "left by one that was killed"])
def test_a_writer_that_is_away(tmp_path, there, taker):
    if there:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(tmp_path / "bars"))
    with pytest.raises(AwayError, match="nothing was taken"):
        RemoteBars(tmp_path / "bars", 3, 10).take(BARS)
    with serving(tmp_path, taker):
        assert RemoteBars(tmp_path / "bars", 3, 10).take(BARS)[0].outcome == "new"


def test_a_writer_that_ends_over_a_post(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "bars"))
        listener.listen()
        posts = Posts(RemoteBars(tmp_path / "bars", 3, 10))
        posts.post("A")
        connection, _ = listener.accept()
        connection.recv(100)
        connection.close()
        posts.join()
    assert posts.answers == [("A", AwayError)]


def test_a_writer_that_hangs(tmp_path):
    """It accepts nothing: what is sent fills the socket."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "bars"))
        listener.listen()
        big = [{"symbol": "A", "date": "2013-11-04", "note": "x" * 10_000_000}]
        began = time.monotonic()
        with pytest.raises(BusyError, match=r"within 0\.3 s"):
            RemoteBars(tmp_path / "bars", 3, 0.3).take(big)
        assert time.monotonic() - began < 5


def test_a_reader_that_hangs_keeps_no_other_from_the_writer(tmp_path, taker, monkeypatch):
    monkeypatch.setattr(remote, "READ_SECONDS", 0.5)
    with serving(tmp_path, taker, max_waiting=1) as server:
        with socket.socket(socket.AF_UNIX) as half:
            half.connect(str(tmp_path / "bars"))
            half.sendall(b"\0\0\1\0 half a post")
            assert RemoteBars(tmp_path / "bars", 3, 10).take(BARS)[0].outcome == "new"
            until(lambda: server._here == 0)
        with socket.socket(socket.AF_UNIX) as foreign:
            foreign.connect(str(tmp_path / "bars"))
            foreign.sendall(b"\0\0\0\4what")
            assert foreign.recv(10) == b""
        assert RemoteBars(tmp_path / "bars", 3, 10).take(BARS)[0].outcome == "new"


def test_the_end_waits_for_posts_under_way_but_not_for_ever(tmp_path, taker):
    taker.go.clear()
    with serving(tmp_path, taker) as server:
        posts = Posts(RemoteBars(tmp_path / "bars", 3, 20))
        posts.post("A")
        assert taker.began.wait(10)
        began = time.monotonic()
        server.stop(0.7)
        assert time.monotonic() - began < 5
        with pytest.raises(AwayError):
            RemoteBars(tmp_path / "bars", 3, 10).take(BARS)
        taker.go.set()
        posts.join()
    assert posts.answers == [("A", "new")]
