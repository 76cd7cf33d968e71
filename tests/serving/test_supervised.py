"""Threads that do not die of an error."""

import threading
import time
from itertools import pairwise

import pytest

from serving import supervised
from serving.supervised import Loop


def until(holds, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(supervised, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(supervised, "LONGEST_PAUSE", 0.08)


def test_whatever_is_raised_is_counted_shown_and_tried_again(caplog):
    faults = [KeyError("a"), KeyError("a"), RuntimeError("b"), None]
    seen = []

    def step():
        seen.append(time.monotonic())
        fault = faults[min(len(seen), len(faults)) - 1]
        if fault:
            raise fault

    loop = Loop("part", 0.01, step).start()
    until(lambda: len(seen) >= 3)
    until(lambda: loop.status.failures == 3 or loop.status.ok)
    until(lambda: loop.status.ok)
    status = loop.status
    assert (status.ok, status.detail, status.failures) == (True, "", 3)
    loop.stop(5)
    # Each error once, though the first came twice; and that it is over.
    assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == [
        "part: KeyError: 'a'",
        "part: RuntimeError: b",
    ]
    pauses = [later - earlier for earlier, later in pairwise(seen)]
    assert pauses[0] >= 0.02
    assert pauses[1] >= 0.04
    assert pauses[2] >= 0.08


def test_a_failing_step_shows_while_it_fails():
    def step():
        raise OSError("the disk is gone")

    loop = Loop("part", 0.01, step).start()
    until(lambda: loop.status.failures)
    assert not loop.status.ok
    assert loop.status.detail == "OSError: the disk is gone"
    loop.stop(5)


def test_the_pause_is_bounded_and_begins_anew_after_a_success(monkeypatch):
    fails = True
    starts = []

    def step():
        starts.append(time.monotonic())
        if fails:
            raise ValueError

    loop = Loop("part", 0.001, step).start()
    until(lambda: len(starts) >= 6)
    assert starts[5] - starts[4] < 5 * supervised.LONGEST_PAUSE
    fails = False
    until(lambda: loop.status.ok)
    fails = True
    until(lambda: not loop.status.ok)
    n = len(starts)
    until(lambda: len(starts) > n)
    assert loop._thread.is_alive()
    loop.stop(5)


def test_a_step_that_hangs_grows_old_and_does_not_hold_up_the_end():
    release, hangs = threading.Event(), threading.Event()

    def step():
        hangs.set()
        release.wait(30)

    loop = Loop("part", 0.001, step).start()
    assert hangs.wait(10)
    at = loop.status.at
    time.sleep(0.05)
    assert loop.status.at == at
    assert not loop.stop(0.05)
    release.set()
    assert loop.stop(10)


def test_between_steps_the_status_is_of_now():
    loop = Loop("part", 1000, lambda: None)
    assert loop.status.ok
    loop.start()
    before = time.time()
    assert loop.status.ok
    assert before <= loop.status.at <= time.time()
    assert loop.stop(10)
    assert (loop.status.ok, loop.status.detail) == (False, "has ended")


def test_it_can_be_woken():
    stepped = threading.Event()
    loop = Loop("part", 1000, stepped.set).start()
    assert not stepped.wait(0.05)
    loop.wake()
    assert stepped.wait(10)
    loop.stop(10)
