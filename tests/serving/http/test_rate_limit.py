"""Limits: of a minute and a day, over processes that count in one file."""

import logging
import time
from contextlib import suppress

import pytest

from serving.http import rate_limit
from serving.http.problems import Problem
from serving.http.rate_limit import RateLimit

pytestmark = pytest.mark.unit


@pytest.fixture
def clock(monkeypatch):
    """The time, which a test can move."""

    class Clock:
        now = 1_000_000.0

    monkeypatch.setattr(time, "time", lambda: Clock.now)
    return Clock


def taken(limit: RateLimit, caller: str, requests: int, **own) -> int:
    """How many of so many requests are let through."""
    let = 0
    for _ in range(requests):
        with suppress(Problem):
            limit.hit(caller, **own)
            let += 1
    return let


def test_several_processes_together_let_no_more_through_than_one(tmp_path, clock):
    processes = [RateLimit(tmp_path / "limits.db", 10) for _ in range(3)]
    assert sum(taken(process, "a", 6) for process in processes) == 10
    assert taken(processes[0], "b", 10) == 10
    clock.now += 59
    assert taken(processes[2], "a", 1) == 0
    clock.now += 2
    assert taken(processes[2], "a", 20) == 10


@pytest.mark.parametrize("limit", [99, 250, 6000])
def test_a_large_limit_is_taken_in_lots_and_never_exceeded(tmp_path, clock, limit):
    processes = [RateLimit(tmp_path / "limits.db", limit) for _ in range(3)]
    let = 0
    for i in range(limit + 300):  # in turn, which leaves most unused
        let += taken(processes[i % 3], "a", 1)
    assert limit * 0.96 <= let <= limit


def test_a_day_has_its_quota_and_a_restart_does_not_renew_it(tmp_path, clock):
    assert taken(RateLimit(tmp_path / "limits.db", 1000), "a", 3, per_day=5) == 3
    again = RateLimit(tmp_path / "limits.db", 1000)
    assert taken(again, "a", 9, per_day=5) == 2
    with pytest.raises(Problem, match=r"More than 5 requests in a day. Wait 86,400 s") as raised:
        again.hit("a", per_day=5)
    assert raised.value.headers["Retry-After"] == "86400"
    clock.now += 86_401
    assert taken(again, "a", 9, per_day=5) == 5


def test_a_caller_with_a_limit_of_its_own_has_that_one(tmp_path, clock):
    limit = RateLimit(tmp_path / "limits.db", 3)
    assert taken(limit, "a", 20, per_minute=7) == 7
    assert taken(limit, "b", 20) == 3


def test_refused_requests_do_not_write(tmp_path, clock, monkeypatch):
    limit = RateLimit(tmp_path / "limits.db", 2)
    taken(limit, "a", 3)
    monkeypatch.setattr(limit.counts, "incr", None)
    assert taken(limit, "a", 50) == 0


def test_callers_that_come_once_are_forgotten(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(rate_limit, "MOST_CALLERS", 10)
    limit = RateLimit(tmp_path / "limits.db", 2)
    for i in range(100):
        limit.hit(f"address {i}")
    assert len(limit._left) <= 10
    clock.now += 120
    limit.hit("a")
    rows = limit.counts._database.execute("SELECT COUNT(*) FROM counts").fetchone()
    assert rows == (1,)


@pytest.mark.parametrize("content", [b"no database at all" * 100, None])
def test_a_file_that_cannot_be_used_refuses_nobody_and_is_told(tmp_path, caplog, content):
    caplog.set_level(logging.ERROR)
    path = tmp_path / "limits.db"
    if content:
        path.write_bytes(content)
    else:
        path.mkdir()
    limit = RateLimit(path, 3)
    assert not limit.counts.shared
    assert taken(limit, "a", 9) == 3  # it counts by itself
    assert "limits are counted by each process alone" in caplog.text


def test_a_file_that_comes_back_is_used_again(tmp_path, monkeypatch):
    monkeypatch.setattr(rate_limit, "ALONE_SECONDS", 0.0)
    path = tmp_path / "limits.db"
    path.mkdir()
    limit = RateLimit(path, 3)
    taken(limit, "a", 1)
    path.rmdir()
    taken(limit, "b", 1)
    assert limit.counts.shared
