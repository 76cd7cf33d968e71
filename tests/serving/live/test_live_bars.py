"""Live bars through a real Feast store: what is acknowledged is online, offline and kept."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import markets
from support import small_runs as small
from support.markets import raw_market
from support.once import once

from feature_repo import publish
from feature_repo.store import open_store
from pitwise import quality_flags
from pitwise.bars import __main__ as bar_stage
from pitwise.bars.calendar import session_close
from pitwise.bars.landing import Landing, first_to_last, land, landing_files, landings
from pitwise.bars.schema import COLUMNS, NUMBERS
from pitwise.bars.versions import bar_versions
from pitwise.cleaning import __main__ as cleaning
from pitwise.cleaning.clean import CleanParams, clean
from pitwise.cleaning.events import event_table
from pitwise.errors import DataError, StoreError
from pitwise.features import __main__ as features
from pitwise.features.daily import daily_features
from pitwise.features.history import CREATED, known
from pitwise.features.indicators import NAMES
from pitwise.features.windows import LastWindow, last_windows, unpacked
from pitwise.stage import load_params
from pitwise.workspace import Workspace, pushed_folder, read_parquet, write_parquet
from serving.live import journal as journal_module
from serving.live.journal import Journal, drain
from serving.live.live_bars import LiveBars
from training import dataset

WINDOW, LIVE = 30, 8
PARAMS = load_params(Workspace(small.PROJECT), "clean", CleanParams)
POST_FOR_EVER = """
import sys
import pandas as pd
from feature_repo.store import open_store
from pitwise.workspace import Workspace
from serving.live.live_bars import LiveBars

workspace = Workspace(sys.argv[1])
live = LiveBars(workspace, open_store(workspace), 10)
rest = pd.read_parquet(workspace.root / "live.parquet")
print("ready", flush=True)
for i in range(len(rest)):
    (outcome,) = live.take(rest.iloc[[i]])
    print(f"{i} {outcome.outcome}", flush=True)
"""


@pytest.fixture(scope="module")
def raw() -> pd.DataFrame:
    return raw_market(5, symbols=5, sessions=160)


@pytest.fixture(scope="module")
def before(raw, tmp_path_factory) -> Path:
    """A workspace that the pipeline has left up to the last sessions but `LIVE`."""

    def build(folder: Path) -> None:
        pipeline(small.new_workspace(folder), raw[raw["date"] < days(raw)[0]])

    return once(tmp_path_factory, "before_live_bars", build)


@pytest.fixture
def workspace(before, tmp_path) -> Workspace:
    """A copy to write to."""
    return Workspace(shutil.copytree(before, tmp_path / "workspace"))


def days(raw: pd.DataFrame) -> np.ndarray:
    return np.sort(raw["date"].unique())[-LIVE:]


def pipeline(workspace: Workspace, raw: pd.DataFrame, covers: dict | None = None) -> None:
    """A load of a file, and the pipeline's run on all that has landed."""
    history = "observed" if landing_files(workspace) else "assumed"
    covers = first_to_last(raw) if covers is None else covers
    land(workspace, Landing(raw, "csv", pd.Timestamp.now("UTC"), history=history, covers=covers))
    run(workspace)


def run(workspace: Workspace) -> None:
    for stage in (bar_stage, cleaning, features, publish):
        stage.main(workspace)


def live_bars(workspace: Workspace, seconds: float = 60) -> LiveBars:
    return LiveBars(workspace, open_store(workspace), 10, seconds)


def expected(raw: pd.DataFrame) -> dict[str, LastWindow]:
    """Every symbol's last window by the batch path on all bars, had they come at once."""
    versions = bar_versions([Landing(raw, "csv", pd.Timestamp.now("UTC"))], 0.95)
    dates = raw["date"][~raw["date"].isin(versions.seals["date"])].unique()
    bars = clean(raw, PARAMS, unsealed=list(dates)).bars
    return last_windows(daily_features(bars), NAMES, WINDOW)


def online(workspace: Workspace, symbols: list[str]) -> dict[str, LastWindow]:
    answer = (
        open_store(workspace)
        .get_online_features(["windows:window", "daily:close"], {"symbol": symbols})
        .to_dict(include_event_timestamps=True)
    )
    found = {}
    for i, symbol in enumerate(symbols):
        window = unpacked([answer["window"][i]], NAMES)[0]
        # After a spin-off there are daily values, but no whole window yet.
        assert answer["close__ts"][i] >= answer["window__ts"][i]
        if answer["close__ts"][i] == answer["window__ts"][i]:
            # To the last bit of a float32, on the basis of whose first session the windows are kept.
            assert window[-1, NAMES.index("close")] == pytest.approx(answer["close"][i], rel=2e-7)
        found[symbol] = LastWindow(pd.Timestamp(answer["window__ts"][i], unit="s", tz="UTC"), window)
    return found


def assert_same(seen, wanted) -> None:
    assert seen.keys() == wanted.keys()
    for symbol, (as_of, window) in wanted.items():
        assert seen[symbol].as_of == as_of
        np.testing.assert_allclose(seen[symbol].values, window, rtol=1e-6, atol=1e-4, err_msg=symbol)


def outcomes(live: LiveBars, bars: pd.DataFrame) -> list[str]:
    return [o.outcome for o in live.take(bars)]


def test_a_sessions_bars_are_online_and_offline_when_they_are_acknowledged(workspace, raw):
    live = live_bars(workspace)
    files = workspace.daily_features, workspace.window_features
    before = [path.read_bytes() for path in files]
    for day in days(raw)[:3]:
        took = outcomes(live, raw[raw["date"] == day])
        assert set(took) <= {"new", "quarantined"}
        so_far = raw[raw["date"] <= day]
        assert_same(online(workspace, live.symbols), expected(so_far))
    assert live.newest == expected(so_far)[live.symbols[0]].as_of.to_datetime64()
    live.close()
    assert [path.read_bytes() for path in files] == before

    spine = pd.DataFrame({"symbol": live.symbols, "event_timestamp": pd.Timestamp(day, tz="UTC")})
    spine["event_timestamp"] += pd.Timedelta(days=1)
    store = open_store(workspace)
    offline = store.get_historical_features(spine, ["daily:close", "windows:window"]).to_df()
    closes = store.get_online_features(["daily:close"], {"symbol": offline["symbol"].tolist()}).to_dict()
    assert offline["close"].tolist() == closes["close"]
    for row in offline.itertuples():
        window = unpacked([row.window], NAMES)[0]
        np.testing.assert_array_equal(window, online(workspace, [row.symbol])[row.symbol].values)


def test_a_bar_is_scored_when_it_is_taken_by_the_forest_of_the_history(workspace, raw):
    clean_before = read_parquet(workspace.clean_bars)
    forest, _ = quality_flags.fit(clean_before, contamination=0.02, trees=100, sample=256, seed=7)
    live = live_bars(workspace)
    assert live.marks.unusual == {}  # there is no forest yet
    live.close()
    quality_flags.save(forest, workspace.root / quality_flags.FOREST.path)
    live = live_bars(workspace)
    before = live.marks.unusual
    assert set(before) <= set(live.symbols)
    symbol, day = live.symbols[0], days(raw)[0]
    bar = raw[(raw["symbol"] == symbol) & (raw["date"] == day)].iloc[:1]
    live.take(bar.assign(high=bar["high"] * 1.3, volume=bar["volume"] * 50))
    close = session_close(pd.Series([day])).iloc[0].tz_convert(None).to_datetime64()
    assert live.marks.unusual[symbol] == (close, True)
    assert {k: v for k, v in live.marks.unusual.items() if k != symbol} == {
        k: v for k, v in before.items() if k != symbol
    }
    live.take(bar)
    assert live.marks.unusual[symbol] == (close, False)
    live.withdraw(symbol, pd.Timestamp(day))
    assert live.marks.unusual[symbol] == before[symbol]
    live.close()


def test_what_the_pipeline_suspects_is_suspect_in_the_service_too(workspace):
    last = read_parquet(workspace.clean_bars).groupby("symbol")["date"].max()
    event = event_table(symbol=last.index[:1], date=last.iloc[:1].to_numpy(), kind=["split"])
    write_parquet(event, workspace.events)
    live = live_bars(workspace)
    assert live.marks.suspects == {last.index[0]: "split"}
    live.close()


def test_late_repeated_corrected_and_unordered_bars_end_in_the_same_windows(workspace, raw):
    live = live_bars(workspace)
    rest = raw[raw["date"] >= days(raw)[0]]
    first, *others = [rest[rest["date"] == day] for day in days(raw)[:4]]
    wrong = others[1].assign(volume=others[1]["volume"] * 2)
    assert outcomes(live, first.iloc[:1]) == ["new"]
    assert outcomes(live, others[0]) == ["new"] * len(others[0])
    assert set(outcomes(live, first.iloc[1:])) <= {"new", "late"}
    assert outcomes(live, first) == ["repeated"] * len(first)
    assert set(outcomes(live, wrong)) <= {"new", "quarantined"}
    assert set(outcomes(live, pd.concat([others[2], others[1]]))) <= {"new", "corrected", "quarantined"}
    assert_same(online(workspace, live.symbols), expected(raw[raw["date"] <= days(raw)[3]]))
    live.close()


def test_an_older_bar_never_overwrites_a_newer_window(workspace, raw):
    live = live_bars(workspace)
    earlier, later = (raw[raw["date"] == day] for day in days(raw)[:2])
    both = set(earlier["symbol"]) & set(later["symbol"])
    earlier = earlier[earlier["symbol"].isin(both)]
    live.take(earlier.iloc[:1])
    live.take(later)
    instants = {symbol: window.as_of for symbol, window in online(workspace, live.symbols).items()}
    assert outcomes(live, earlier.iloc[1:]) != ["refused"] * (len(earlier) - 1)
    assert {
        symbol: window.as_of for symbol, window in online(workspace, live.symbols).items()
    } == instants
    live.close()


def test_what_was_acknowledged_survives_kill_9_in_the_middle_of_a_burst(workspace, raw):
    rest = raw[raw["date"].isin(days(raw)[:6])].sort_values("date", ignore_index=True)
    write_parquet(rest, workspace.root / "live.parquet")
    taken = 0
    for kill_after in (1, 4, 2):
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", POST_FOR_EVER, str(workspace.root)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(small.PROJECT)},
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        lines = [process.stdout.readline() for _ in range(taken + kill_after)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines(keepends=True)
        process.wait()
        printed = [line.split()[1] for line in lines if line.endswith("\n")]
        assert set(printed[:taken]) <= {"repeated"}
        taken = max(taken, len(printed))

        live = live_bars(workspace)
        # The bar under way when the kill came may be in, or not.
        known_now = [
            expected(pd.concat([raw[raw["date"] < days(raw)[0]], rest[: taken + i]])) for i in (0, 1)
        ]
        seen = online(workspace, live.symbols)
        live.close()
        assert any(
            all(
                seen[s].as_of == one[s].as_of and np.allclose(seen[s].values, one[s].values, 1e-6, 1e-4)
                for s in one
            )
            for one in known_now
        )
    assert taken >= 7


def test_a_store_that_is_away_keeps_the_bars_and_takes_them_when_it_is_back(workspace, raw, monkeypatch):
    live = live_bars(workspace, 0.2)
    before = online(workspace, live.symbols)
    write = live._store.write_to_online_store

    def away(*_args, **_kwargs):
        raise ConnectionError("gone")

    monkeypatch.setattr(live._store, "write_to_online_store", away)
    new = raw[raw["date"] == days(raw)[0]]
    with pytest.raises(StoreError, match=r"does not take rows .*gone.* kept"):
        live.take(new)
    assert_same(online(workspace, live.symbols), before)
    later = raw[raw["date"] == days(raw)[1]]
    with pytest.raises(StoreError, match=r"does not take rows .*not taken; send them again"):
        live.take(later)
    waiting = live._journal.waiting()
    assert waiting is None or set(waiting.rows["date"]) == {days(raw)[0]}
    monkeypatch.setattr(live._store, "write_to_online_store", write)
    wanted = expected(raw[raw["date"] <= days(raw)[0]])
    for _ in range(100):
        if not live._market.is_behind:
            break
        time.sleep(0.1)
    assert_same(online(workspace, live.symbols), wanted)
    live.close()


def test_a_new_run_of_the_pipeline_is_taken_up_and_newer_live_bars_stay(workspace, raw):
    live = live_bars(workspace)
    for day in days(raw)[:3]:
        live.take(raw[raw["date"] == day])
    pipeline(workspace, raw[raw["date"] <= days(raw)[0]])
    assert_same(online(workspace, live.symbols), expected(raw[raw["date"] <= days(raw)[2]]))
    live.take(raw[raw["date"] == days(raw)[3]])
    assert_same(online(workspace, live.symbols), expected(raw[raw["date"] <= days(raw)[3]]))
    live.close()


def test_the_pipelines_bar_stands_where_it_came_later_than_the_live_one(workspace, raw):
    live = live_bars(workspace)
    day = days(raw)[0]
    rumour = raw[raw["date"] == day]
    live.take(rumour.assign(volume=rumour["volume"] * 3))
    pipeline(workspace, raw[raw["date"] <= day])
    live.take(rumour.iloc[:1])
    assert_same(online(workspace, live.symbols), expected(raw[raw["date"] <= day]))
    live.close()


def test_a_live_bar_that_the_pipeline_sets_aside_is_withdrawn(workspace, raw):
    live = live_bars(workspace)
    first, second = (raw[raw["date"] == day] for day in days(raw)[:2])
    live.take(first)
    live.take(second)
    # The source sends the first session's bars again, and one of them cannot be.
    bad = first.assign(
        high=first["low"].where(first["symbol"] == first["symbol"].iloc[0], first["high"])
    )
    bad["low"] = bad["low"].where(bad["symbol"] != first["symbol"].iloc[0], first["high"] + 1)
    now_raw = pd.concat([raw[raw["date"] < days(raw)[0]], bad])
    pipeline(workspace, now_raw)
    live.take(second.iloc[:1])
    live.close()
    wanted = expected(pd.concat([now_raw, second]))
    assert_same(online(workspace, live.symbols), wanted)
    rest = pd.concat([now_raw, second.assign(high=0.0)])
    pipeline(workspace, rest)
    live = live_bars(workspace)
    assert_same(online(workspace, live.symbols), expected(rest))
    live.close()


def test_a_training_set_does_not_see_live_rows(workspace, raw):
    dataset.main(workspace)
    rows = workspace.dataset_rows.read_bytes()
    live = live_bars(workspace)
    corrected = raw[raw["date"] == np.sort(raw["date"].unique())[-LIVE - 3]]
    live.take(corrected.assign(volume=corrected["volume"] + 100))
    live.close()
    dataset.main(workspace)
    assert workspace.dataset_rows.read_bytes() == rows


def test_pushed_rows_say_when_they_were_known(workspace, raw):
    live = live_bars(workspace)
    started = pd.Timestamp.now("UTC")
    live.take(raw[raw["date"] == days(raw)[0]])
    live.close()
    (path,) = pushed_folder(workspace.daily_features).glob("*.parquet")
    rows = known(pd.read_parquet(path))
    assert path.stem == f"{pd.Timestamp(days(raw)[0]):%Y-%m-%d}"
    assert (rows[CREATED] >= started).all()


@pytest.fixture(scope="module")
def calm() -> pd.DataFrame:
    """Four symbols, S000 to S003, of 130 sessions from 2014-01-02 to 2014-07-09; nothing happens."""
    return markets.bars(4, 130, seed=3)[COLUMNS]


@pytest.fixture(scope="module")
def calm_before(calm, tmp_path_factory) -> Path:
    """A workspace that the pipeline has left up to 2014-07-01, the last sessions but five."""

    def build(folder: Path) -> None:
        pipeline(small.new_workspace(folder), calm[calm["date"] < "2014-07-02"])

    return once(tmp_path_factory, "before_calm_live_bars", build)


@pytest.fixture
def calmly(calm_before, tmp_path) -> Workspace:
    return Workspace(shutil.copytree(calm_before, tmp_path / "workspace"))


def bar(calm: pd.DataFrame, date: str, symbol: str = "S000", **changed) -> pd.DataFrame:
    its = calm[(calm["symbol"] == symbol) & (calm["date"] == date)]
    return its.assign(**changed).reset_index(drop=True)


def closes(workspace: Workspace, symbol: str = "S000") -> tuple[float, float]:
    """The newest close of a symbol offline, long after, and online."""
    store = open_store(workspace)
    spine = pd.DataFrame({"symbol": [symbol], "event_timestamp": [pd.Timestamp("2020-01-01", tz="UTC")]})
    offline = store.get_historical_features(spine, ["daily:close"]).to_df()["close"].item()
    (online,) = store.get_online_features(["daily:close"], {"symbol": [symbol]}).to_dict()["close"]
    return offline, online


def test_a_bar_far_ahead_is_too_new_and_leaves_the_market_as_fresh_as_it_was(calmly, calm):
    live = live_bars(calmly)
    newest = live.newest
    ahead = bar(calm, "2014-07-02").assign(date=pd.Timestamp("2015-03-02"))
    (outcome,) = live.take(ahead)
    assert (outcome.outcome, outcome.reason) == ("refused", "too_new")
    assert live.newest == newest == np.datetime64("2014-07-01T20:00:00")
    live.close()
    assert drain(calmly) == []


def test_a_bar_is_provisional_until_its_session_is_sealed(calmly, calm):
    live = live_bars(calmly)
    (first,) = live.take(bar(calm, "2014-07-02"))
    assert (first.outcome, first.provisional) == ("new", True)
    assert live.sealed == np.datetime64("2014-07-01T20:00:00")
    assert live.newest == np.datetime64("2014-07-02T20:00:00")
    rest = calm[(calm["date"] == "2014-07-02") & (calm["symbol"] != "S000")]
    assert {(o.outcome, o.provisional) for o in live.take(rest)} == {("new", False)}
    assert live.sealed == np.datetime64("2014-07-02T20:00:00")
    live.close()


def test_a_person_seals_a_session_and_a_bar_after_it_is_late(calmly, calm):
    live = live_bars(calmly)
    live.take(bar(calm, "2014-07-02"))
    live.seal(pd.Timestamp("2014-07-02"))
    assert live.sealed == np.datetime64("2014-07-02T20:00:00")
    (late,) = live.take(bar(calm, "2014-07-02", "S001"))
    assert (late.outcome, late.provisional) == ("late", False)
    with pytest.raises(DataError, match="2014-07-07: has no bars"):
        live.seal(pd.Timestamp("2014-07-07"))
    live.close()
    live = live_bars(calmly)
    assert live.sealed == np.datetime64("2014-07-02T20:00:00")
    live.close()
    run(calmly)
    seals = pd.read_parquet(calmly.seals)
    assert seals["date"].max() == pd.Timestamp("2014-07-02")


def test_what_is_withdrawn_or_sealed_by_command_is_known_to_a_running_service(calmly, calm):
    live = live_bars(calmly)
    bars = bar(calm, "2014-07-02")
    live.take(bars)
    nothing = bars.assign(**dict.fromkeys(NUMBERS, np.nan), withdrawn=True)
    land(calmly, Landing(nothing, "withdrawal", pd.Timestamp.now("UTC")))
    assert [o.outcome for o in live.take(bars)] == ["new"]
    nothing = bars.iloc[:0]
    seal = Landing(nothing, "seal", pd.Timestamp.now("UTC"), seals=(pd.Timestamp("2014-07-02").date(),))
    land(calmly, seal)
    assert [o.outcome for o in live.take(bar(calm, "2014-07-02", "S001"))] == ["late"]
    live.close()


def test_a_withdrawal_means_the_same_offline_and_online_and_stays(calmly, calm):
    """The close of 2014-07-01 comes back; so it is after a restart, and after the pipeline's run."""
    before = bar(calm, "2014-07-01")["close"].item()
    live = live_bars(calmly)
    live.take(bar(calm, "2014-07-02"))
    new = bar(calm, "2014-07-02")["close"].item()
    assert closes(calmly) == (new, new)
    assert live.withdraw("S000", pd.Timestamp("2014-07-02")).outcome == "withdrawn"
    assert closes(calmly) == (before, before)
    assert live.withdraw("S000", pd.Timestamp("2014-07-02")).reason == "no_such_bar"
    live.close()
    live_bars(calmly).close()
    assert closes(calmly) == (before, before)
    run(calmly)
    live = live_bars(calmly)
    assert closes(calmly) == (before, before)
    assert [o.outcome for o in live.take(bar(calm, "2014-07-02"))] == ["new"]
    assert closes(calmly) == (new, new)
    live.close()


def test_a_row_that_the_source_repeats_hides_no_correction_of_it_after_a_restart(calm, tmp_path):
    workspace = small.new_workspace(tmp_path)
    loaded = calm[calm["date"] < "2014-07-02"]
    pipeline(workspace, pd.concat([loaded, bar(calm, "2014-06-30")], ignore_index=True))
    live = live_bars(workspace)
    corrected = bar(calm, "2014-06-30", volume=12_345.0)
    assert outcomes(live, corrected) == ["corrected"]
    live.close()
    for _ in range(2):
        live = live_bars(workspace)
        assert outcomes(live, corrected) == ["repeated"]
        window = online(workspace, ["S000"])["S000"].values
        assert window[-2, NAMES.index("volume")] == 12_345.0
        live.close()
        run(workspace)


def test_two_rows_of_the_source_that_differ_stay_refused_whatever_comes_live(calm, tmp_path):
    workspace = small.new_workspace(tmp_path)
    loaded = calm[calm["date"] < "2014-07-02"]
    other = bar(calm, "2014-06-30", volume=12_345.0)
    pipeline(workspace, pd.concat([loaded, other], ignore_index=True))
    live = live_bars(workspace)
    live.take(calm[calm["date"] == "2014-07-02"])
    volumes = online(workspace, ["S000"])["S000"].values[-3:, NAMES.index("volume")]
    wanted = [bar(calm, day)["volume"].item() for day in ("2014-06-27", "2014-07-01", "2014-07-02")]
    assert volumes.tolist() == np.float32(wanted).tolist()
    live.close()


def test_an_old_file_loaded_again_does_not_undo_a_live_correction(calmly, calm):
    live = live_bars(calmly)
    corrected = bar(calm, "2014-07-01", volume=12_345.0)
    live.take(corrected)
    live.close()
    later = pd.concat([calm[calm["date"] <= "2014-07-02"]], ignore_index=True)
    pipeline(calmly, later)  # with the session after, or it were the very same delivery
    live = live_bars(calmly)
    window = online(calmly, ["S000"])["S000"].values
    assert window[-2, NAMES.index("volume")] == 12_345.0
    assert outcomes(live, corrected) == ["repeated"]
    live.close()


def landed_live(workspace: Workspace) -> list[tuple[str, float]]:
    """Symbol and volume of all rows in landings of live bars."""
    rows = [landing.rows for landing in landings(workspace) if landing.source == "live"]
    return [(s, v) for part in rows for s, v in zip(part["symbol"], part["volume"], strict=True)]


def test_the_journal_is_drained_at_the_start_at_a_seal_and_at_the_end(calmly, calm):
    live = live_bars(calmly)
    live.take(bar(calm, "2014-07-02", volume=1.0))
    assert landed_live(calmly) == []
    live.take(calm[(calm["date"] == "2014-07-02") & (calm["symbol"] != "S000")].assign(volume=2.0))
    at_seal = [("S000", 1.0), ("S001", 2.0), ("S002", 2.0), ("S003", 2.0)]
    until = time.monotonic() + 10  # by the watch, which a seal wakes
    while landed_live(calmly) != at_seal and time.monotonic() < until:
        time.sleep(0.01)
    assert landed_live(calmly) == at_seal
    live.take(bar(calm, "2014-07-03", volume=3.0))
    assert landed_live(calmly) == at_seal
    live.close()
    assert landed_live(calmly) == [*at_seal, ("S000", 3.0)]
    Journal(calmly.live_bars).add(bar(calm, "2014-07-03", "S001", volume=4.0), pd.Timestamp.now("UTC"))
    live = live_bars(calmly)
    assert landed_live(calmly) == [*at_seal, ("S000", 3.0), ("S001", 4.0)]
    assert live._journal.waiting() is None
    live.close()


def test_a_journal_that_cannot_be_moved_is_tried_again_with_the_next_watch(calmly, calm, monkeypatch):
    live = live_bars(calmly)
    tried = []

    def drain(workspace, timeout):
        tried.append(timeout)
        raise StoreError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(live._journal, "drain", drain)
        live.take(calm[calm["date"] == "2014-07-02"])
        time.sleep(0.3)
        assert len(tried) == 1
    assert landed_live(calmly) == []
    live.close()
    assert len(landed_live(calmly)) == 4


@pytest.mark.parametrize("point", ["before the landing", "after it"])
def test_a_drain_that_is_killed_loses_and_doubles_nothing(tmp_path, calm, monkeypatch, point):
    workspace = Workspace(tmp_path)
    journal = Journal(workspace.live_bars)
    start = pd.Timestamp("2014-07-02 21:00", tz="UTC")
    for minute in range(3):  # A, B and A again: three statements about one bar
        said = bar(calm, "2014-07-02", volume=float(minute % 2))
        journal.add(said, start + pd.Timedelta(minutes=minute))
    kept = journal_module.land

    def killed(*args):
        if point == "after it":
            kept(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(journal_module, "land", killed)
    with pytest.raises(KeyboardInterrupt):
        drain(workspace)
    journal.add(bar(calm, "2014-07-02", "S001"), start + pd.Timedelta(minutes=3))
    monkeypatch.setattr(journal_module, "land", kept)
    drain(workspace)
    assert journal.waiting() is None
    rows = landed_live(workspace)
    assert [volume for symbol, volume in rows if symbol == "S000"] == [0.0, 1.0, 0.0]
    assert len(rows) == 4
    versions = bar_versions(landings(workspace), 0.95).bars
    assert versions["known_at"].tolist() == [start + pd.Timedelta(minutes=m) for m in range(4)]
    drain(workspace)
    assert landed_live(workspace) == rows


def test_two_services_in_one_workspace_are_one_too_many(workspace):
    live = live_bars(workspace)
    with pytest.raises(StoreError, match="another service takes live bars here"):
        live_bars(workspace)
    live.close()
    live_bars(workspace).close()


def test_without_a_run_of_the_pipeline_it_says_what_to_run(tmp_path):
    with pytest.raises(DataError, match="Run `dvc repro`"):
        LiveBars(Workspace(tmp_path), None, 10)


def test_more_live_sessions_than_a_check_looks_back_on_are_caught_up_with_at_the_next_start(tmp_path):
    raw = raw_market(8, symbols=3, sessions=260)
    workspace = small.new_workspace(tmp_path)
    sessions = np.sort(raw["date"].unique())[-100:]
    pipeline(workspace, raw[raw["date"] < sessions[0]])
    live = live_bars(workspace)
    for start in range(0, 100, 5):
        live.take(raw[raw["date"].isin(sessions[start : start + 5])])
    live.close()
    assert_same(online(workspace, live.symbols), expected(raw))
    live = live_bars(workspace)
    assert_same(online(workspace, live.symbols), expected(raw))
    live.close()
