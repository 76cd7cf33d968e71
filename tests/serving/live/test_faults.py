"""Live bars when something goes wrong: one bar, the disk, another process, the pipeline's files."""

import shutil
import sqlite3
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from support import markets
from support import small_runs as small
from support.once import once

from feature_repo import publish
from feature_repo.store import open_store
from pitwise.bars import __main__ as bar_stage
from pitwise.bars.landing import Landing, first_to_last, land, landings
from pitwise.bars.schema import COLUMNS
from pitwise.cleaning import __main__ as cleaning
from pitwise.cleaning.cross_section import CrossSection
from pitwise.errors import StoreError
from pitwise.features import __main__ as features
from pitwise.features import incremental
from pitwise.workspace import Workspace
from serving.live.journal import Journal, drain
from serving.live.live_bars import LiveBars
from serving.state.errors import BusyError

NEXT = "2014-07-02"
"""The first session that is not published; 2014-07-03 and 2014-07-07 follow."""


@pytest.fixture(scope="module")
def calm() -> pd.DataFrame:
    """Four symbols, S000 to S003, of 130 sessions from 2014-01-02 to 2014-07-09; nothing happens."""
    return markets.bars(4, 130, seed=3)[COLUMNS]


@pytest.fixture(scope="module")
def published(calm, tmp_path_factory) -> Path:
    """A workspace that the pipeline has left up to 2014-07-01."""

    def build(folder: Path) -> None:
        workspace = small.new_workspace(folder)
        raw = calm[calm["date"] < NEXT]
        now = pd.Timestamp.now("UTC")
        land(workspace, Landing(raw, "csv", now, history="assumed", covers=first_to_last(raw)))
        for stage in (bar_stage, cleaning, features, publish):
            stage.main(workspace)

    return once(tmp_path_factory, "before_faults", build)


@pytest.fixture
def workspace(published, tmp_path) -> Workspace:
    return Workspace(shutil.copytree(published, tmp_path / "workspace"))


@pytest.fixture
def started(workspace):
    """Starts live bars of the workspace; each is closed in the end."""
    begun: list[LiveBars] = []

    def start(**options) -> LiveBars:
        begun.append(
            LiveBars(workspace, open_store(workspace), 10, **({"refresh_seconds": 60} | options))
        )
        return begun[-1]

    yield start
    for live in begun:
        if live._service.is_locked:
            live.close()


def session(calm: pd.DataFrame, date: str = NEXT, **changed) -> pd.DataFrame:
    return calm[calm["date"] == date].assign(**changed).reset_index(drop=True)


def closes(workspace: Workspace) -> dict[str, float]:
    """The newest close of each symbol online."""
    names = ["S000", "S001", "S002", "S003"]
    found = open_store(workspace).get_online_features(["daily:close"], {"symbol": names}).to_dict()
    return dict(zip(names, found["close"], strict=True))


def of(calm: pd.DataFrame, date: str) -> dict[str, float]:
    its = session(calm, date)
    return dict(zip(its["symbol"], its["close"], strict=True))


def failing_for(monkeypatch, *names: str) -> None:
    """The computation of these symbols' features fails, together with others and alone."""
    function = incremental.recent_features

    def recent_features(bars, wanted):
        if set(names) & set(bars["symbol"]):
            raise ZeroDivisionError("a bar nobody foresaw")
        return function(bars, wanted)

    monkeypatch.setattr(incremental, "recent_features", recent_features)


def eventually(condition) -> bool:
    for _ in range(100):
        if condition():
            return True
        time.sleep(0.1)
    return False


def test_a_bar_that_cannot_be_computed_is_a_dead_letter_and_holds_up_no_other(
    workspace, calm, started, monkeypatch
):
    live = started()
    with monkeypatch.context() as patch:
        failing_for(patch, "S001")
        outcomes = {o.symbol: (o.outcome, o.reason) for o in live.take(session(calm))}
        reason = "ZeroDivisionError: a bar nobody foresaw"
        assert outcomes.pop("S001") == ("failed", reason)
        assert set(outcomes.values()) == {("new", "")}
        assert {o.symbol: o.outcome for o in live.take(session(calm, "2014-07-03"))} == {
            "S000": "new",
            "S001": "failed",
            "S002": "new",
            "S003": "new",
        }
    wanted = of(calm, "2014-07-03")
    assert closes(workspace) == wanted | {"S001": of(calm, "2014-07-01")["S001"]}
    assert live.failed == {"S001": reason}
    assert live.figures["dead_letters"] == 2
    letters = live._journal.dead_letters()
    assert letters[["symbol", "date", "error"]].to_numpy().tolist() == [
        ["S001", "2014-07-02", reason],
        ["S001", "2014-07-03", reason],
    ]
    # The cause is mended: sent again they are taken, the older one too.
    again = pd.concat([session(calm), session(calm, "2014-07-03")], ignore_index=True)
    again = again[again["symbol"] == "S001"]
    assert {o.outcome for o in live.take(again)} <= {"new", "late"}
    assert closes(workspace) == wanted
    assert live.failed == {}
    assert live._journal.dead_letters().empty
    assert live.figures["dead_letters"] == 0
    live.close()
    landed = pd.concat([part.rows for part in landings(workspace) if part.source == "live"])
    assert sorted(landed["symbol"]) == sorted(2 * list(wanted))  # each once, none of the dead ones


def test_a_service_starts_with_a_bar_that_cannot_be_computed(workspace, calm, started, monkeypatch):
    journal = Journal(workspace.live_bars)
    journal.add(session(calm), pd.Timestamp.now("UTC"))
    journal.close()
    before = closes(workspace)
    failing_for(monkeypatch, "S002")
    for _ in range(2):
        live = started()
        assert closes(workspace) == of(calm, NEXT) | {"S002": before["S002"]}
        assert list(live.failed) == ["S002"]
        assert live._journal.dead_letters()["symbol"].tolist() == ["S002"]
        live.close()


def test_a_withdrawal_that_cannot_be_computed_fails_and_the_bar_stands(
    workspace, calm, started, monkeypatch
):
    live = started()
    live.take(session(calm))
    failing_for(monkeypatch, "S003")
    outcome = live.withdraw("S003", pd.Timestamp(NEXT))
    assert (outcome.outcome, outcome.reason[:17]) == ("failed", "ZeroDivisionError")
    assert live._journal.dead_letters()["withdrawn"].tolist() == [1]
    assert live.withdraw("S003", pd.Timestamp(NEXT)).outcome == "failed"
    assert closes(workspace) == of(calm, NEXT)


def test_a_number_that_no_model_can_be_given_fails_by_its_name(workspace, calm, started):
    live = started()
    bars = session(calm)
    (outcome,) = live.take(bars.iloc[:1].assign(volume=1e39))  # more than a float32 holds
    assert outcome.outcome == "failed"
    assert outcome.reason == "NotFiniteError: S000: volume is 1e+39 at 2014-07-02"
    assert {o.outcome for o in live.take(bars)} == {"new"}
    assert closes(workspace) == of(calm, NEXT)


def test_a_session_whose_seal_fails_stays_open_and_is_sealed_with_the_next_bar(
    workspace, calm, started, monkeypatch
):
    live = started()
    bars = session(calm)
    with monkeypatch.context() as patch:
        patch.setattr(CrossSection, "extended", lambda *_: 1 / 0)
        outcomes = live.take(bars)
    assert {(o.outcome, o.provisional) for o in outcomes} == {("new", True)}
    assert (live.status.ok, "ZeroDivisionError" in live.status.detail) == (False, True)
    assert live.sealed == np.datetime64("2014-07-01T20:00:00")
    corrected = bars.iloc[:1].assign(volume=bars["volume"] + 1)
    assert [(o.outcome, o.provisional) for o in live.take(corrected)] == [("corrected", False)]
    assert live.sealed == np.datetime64("2014-07-02T20:00:00")
    assert live.status.ok


def test_what_fails_between_the_journal_and_the_answer_is_said_to_be_kept_and_follows(
    workspace, calm, started, monkeypatch
):
    live = started(refresh_seconds=0.1)
    with monkeypatch.context() as patch:
        patch.setattr(live._market, "seal", lambda *_: None)
        patch.setattr(live._market, "accept", lambda *_: {}["no such key"])
        with pytest.raises(StoreError, match=r"KeyError.*The bars are kept, and follow"):
            live.take(session(calm))
    assert eventually(lambda: live.sealed == np.datetime64("2014-07-02T20:00:00"))
    assert closes(workspace) == of(calm, NEXT)
    assert {o.outcome for o in live.take(session(calm))} == {"repeated"}


def test_a_bar_that_the_market_cannot_take_in_fails_alone(workspace, calm, started, monkeypatch):
    function = incremental.known_bars

    def known_bars(versions, *args):
        if "S001" in set(versions.bars["symbol"]):
            raise OverflowError("no such factor")
        return function(versions, *args)

    live = started()
    with monkeypatch.context() as patch:
        patch.setattr(incremental, "known_bars", known_bars)
        outcomes = {o.symbol: o.outcome for o in live.take(session(calm))}
    assert outcomes == {"S000": "new", "S001": "failed", "S002": "new", "S003": "new"}
    assert closes(workspace) == of(calm, NEXT) | {"S001": of(calm, "2014-07-01")["S001"]}
    assert list(live.failed) == ["S001"]
    again = session(calm)
    assert {o.outcome for o in live.take(again[again["symbol"] == "S001"])} == {"new"}
    assert closes(workspace) == of(calm, NEXT)


def test_another_process_that_holds_the_online_store_is_waited_for_so_long(workspace, calm, started):
    live = started(wait_seconds=0.2)
    with workspace.online_writer():
        began = time.monotonic()
        with pytest.raises(StoreError, match=r"online.lock: another process.* 0.2 s.*bars are kept"):
            live.take(session(calm))
        with pytest.raises(
            StoreError, match=r"online.lock: another process.*not taken; send them again"
        ):
            live.take(session(calm, "2014-07-03"))
        assert time.monotonic() - began < 5
    assert {o.outcome for o in live.take(session(calm, "2014-07-03"))} == {"new"}
    assert closes(workspace) == of(calm, "2014-07-03")


def test_a_post_waits_so_long_for_the_one_before(workspace, calm, started):
    live = started(wait_seconds=0.2)
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with live.locked(1):
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(10)
    with pytest.raises(BusyError, match="not taken; send them again"):
        live.take(session(calm))
    assert live.close(0.2) is False
    leave.set()
    thread.join()
    assert live.close(10) is True
    assert drain(workspace) == []  # nothing of the post was kept


def test_a_move_of_the_journal_that_hangs_is_waited_for_so_long(workspace, calm, started):
    live = started()
    live.take(session(calm).iloc[:1])
    lock = FileLock(workspace.live_bars.with_suffix(".drain"), thread_local=False)
    with lock, pytest.raises(StoreError, match=r"drain: another process has been moving .* 0.1 s"):
        live._journal.drain(workspace, 0.1)
    assert live._journal.waiting() is not None


def breaks_params(workspace: Workspace) -> None:
    workspace.params.write_text(workspace.params.read_text().replace("seal_coverage:", "seal_cover:"))


def breaks_json(workspace: Workspace) -> None:
    workspace.published.write_text("{")


def loses_file(workspace: Workspace) -> None:
    workspace.clean_bars.unlink()


@pytest.mark.parametrize("fault", [breaks_params, breaks_json, loses_file])
def test_the_watch_outlives_what_the_pipeline_left_broken(
    workspace, published, calm, started, fault, monkeypatch
):
    monkeypatch.setattr("serving.supervised.FIRST_PAUSE", 0.1)
    live = started(refresh_seconds=0.1)
    assert eventually(lambda: live.status.ok)
    kept = workspace.published.read_bytes()
    fault(workspace)
    if fault is not breaks_json:
        workspace.published.write_bytes(kept)  # published anew
    assert eventually(lambda: not live.status.ok)
    assert live.status.failures >= 1
    with pytest.raises(StoreError, match=r"live bars wait: .* not taken; send them again"):
        live.take(session(calm))
    for path in (workspace.params, workspace.clean_bars):
        shutil.copy(Path(published) / path.relative_to(workspace.root), path)
    workspace.published.write_bytes(kept)
    assert eventually(lambda: live.status.ok)
    assert {o.outcome for o in live.take(session(calm))} == {"new"}


def test_the_watch_outlives_a_journal_that_fails(workspace, calm, started, monkeypatch):
    monkeypatch.setattr("serving.supervised.FIRST_PAUSE", 0.1)
    live = started(refresh_seconds=0.1)
    live.take(session(calm).iloc[:1])
    with monkeypatch.context() as patch:

        def fails(*_):
            raise sqlite3.DatabaseError("disk image is malformed")

        patch.setattr(live._journal, "_drained", fails)
        workspace.published.write_bytes(workspace.published.read_bytes())
        assert eventually(lambda: "malformed" in live.status.detail)
    assert eventually(lambda: live.status.ok)


def test_who_is_told_of_changes_hears_of_each_symbol_before_the_bars_are_acknowledged(
    workspace, calm, started
):
    heard: list[set[str] | None] = []
    fails = False

    def changed(symbols) -> None:
        if fails:
            raise StoreError("no state can be written")
        heard.append(None if symbols is None else set(symbols))

    live = started(changed=changed, refresh_seconds=0.1)
    assert heard == [None]
    bars = session(calm)
    live.take(bars.iloc[:1])
    assert heard[1:] == [{"S000"}]
    fails = True
    with pytest.raises(StoreError, match=r"forecasts do not follow the bars.*bars are kept"):
        live.take(bars.iloc[1:2])
    assert len(heard) == 2
    fails = False
    assert eventually(lambda: len(heard) == 3)
    assert heard[2] == {"S001"}
    assert live.take(bars.iloc[1:2])[0].outcome == "repeated"
    live.take(bars.iloc[2:])  # and the session is sealed
    assert heard[3] >= {"S002", "S003"}
