"""Live bars through a real Feast store: what is acknowledged is online, offline and kept."""

import os
import signal
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from feature_repo.artifacts import DAILY_FEATURES, RAW_BARS, WINDOW_FEATURES, write_parquet
from feature_repo.clean import CleanParams, clean
from feature_repo.errors import DataError, StoreError
from feature_repo.features import daily_features
from feature_repo.indicators import NAMES
from feature_repo.revisions import CREATED, known
from feature_repo.stage import load_params
from feature_repo.windows import unpacked
from serving.live import LiveBars
from serving.predictor import open_store
from serving.replay import last_windows
from tests import models_for_tests as small
from tests.markets import raw_market

WINDOW, LIVE = 30, 8
PIPELINE = (
    "from feature_repo import clean, features, publish\nclean.main(); features.main(); publish.main()"
)
POST_FOR_EVER = """
import sys
import pandas as pd
from pathlib import Path
from serving.live import LiveBars
from serving.predictor import open_store

live = LiveBars(open_store(Path("feature_repo")), 10)
rest = pd.read_parquet("live.parquet")
print("ready", flush=True)
for i in range(len(rest)):
    (outcome,) = live.take(rest.iloc[[i]])
    print(f"{i} {outcome.outcome}", flush=True)
"""


@pytest.fixture(scope="module")
def raw() -> pd.DataFrame:
    return raw_market(5, symbols=5, sessions=160)


@pytest.fixture(scope="module")
def published(raw, tmp_path_factory) -> Path:
    """A workspace that the pipeline has left up to the last sessions but `LIVE`."""
    folder = tmp_path_factory.mktemp("live") / "published"
    folder.mkdir()
    small.copy_rooms(folder)
    (folder / "params.yaml").write_text((small.PROJECT / "params.yaml").read_text())
    pipeline(folder, raw[raw["date"] < days(raw)[0]])
    return folder


@pytest.fixture
def workspace(published, tmp_path):
    """A copy to write to, as working directory; in its place, for Feast knows files by their paths."""
    published.rename(tmp_path / "kept")
    subprocess.run(["cp", "-r", tmp_path / "kept", published], check=True)
    with chdir(published):
        yield published
    subprocess.run(["rm", "-rf", published], check=True)
    (tmp_path / "kept").rename(published)


def days(raw: pd.DataFrame) -> np.ndarray:
    return np.sort(raw["date"].unique())[-LIVE:]


def pipeline(folder: Path, raw: pd.DataFrame) -> None:
    write_parquet(raw, folder / RAW_BARS)
    small.run_python(folder, PIPELINE)


def live_bars(seconds: float = 60) -> LiveBars:
    return LiveBars(open_store(Path("feature_repo")), 10, seconds)


def expected(raw: pd.DataFrame) -> dict[str, tuple[pd.Timestamp, np.ndarray]]:
    """Every symbol's last window by the batch path on all bars."""
    bars, _, _ = clean(raw, load_params("clean", CleanParams))
    return last_windows(daily_features(bars), WINDOW)


def online(symbols: list[str]) -> dict[str, tuple[pd.Timestamp, np.ndarray]]:
    answer = (
        open_store(Path("feature_repo"))
        .get_online_features(["windows:window", "daily:close"], {"symbol": symbols})
        .to_dict(include_event_timestamps=True)
    )
    found = {}
    for i, symbol in enumerate(symbols):
        window = unpacked([answer["window"][i]], len(NAMES))[0]
        # After a spin-off there are daily values, but no whole window yet.
        assert answer["close__ts"][i] >= answer["window__ts"][i]
        if answer["close__ts"][i] == answer["window__ts"][i]:
            assert np.float32(answer["close"][i]) == window[-1, NAMES.index("close")]
        found[symbol] = pd.Timestamp(answer["window__ts"][i], unit="s", tz="UTC"), window
    return found


def assert_same(seen, wanted) -> None:
    assert seen.keys() == wanted.keys()
    for symbol, (instant, window) in wanted.items():
        assert seen[symbol][0] == instant
        np.testing.assert_allclose(seen[symbol][1], window, rtol=1e-6, atol=1e-4, err_msg=symbol)


def outcomes(live: LiveBars, bars: pd.DataFrame) -> list[str]:
    return [o.outcome for o in live.take(bars)]


def test_a_sessions_bars_are_online_and_offline_when_they_are_acknowledged(workspace, raw):
    live = live_bars()
    before = DAILY_FEATURES.read_bytes(), WINDOW_FEATURES.read_bytes()
    for day in days(raw)[:3]:
        took = outcomes(live, raw[raw["date"] == day])
        assert set(took) <= {"new", "quarantined"}
        so_far = raw[raw["date"] <= day]
        assert_same(online(live.symbols), expected(so_far))
    assert live.newest == expected(so_far)[live.symbols[0]][0].to_datetime64()
    live.close()
    assert (DAILY_FEATURES.read_bytes(), WINDOW_FEATURES.read_bytes()) == before

    spine = pd.DataFrame({"symbol": live.symbols, "event_timestamp": pd.Timestamp(day, tz="UTC")})
    spine["event_timestamp"] += pd.Timedelta(days=1)
    store = open_store(Path("feature_repo"))
    offline = store.get_historical_features(spine, ["daily:close", "windows:window"]).to_df()
    closes = store.get_online_features(["daily:close"], {"symbol": offline["symbol"].tolist()}).to_dict()
    assert offline["close"].tolist() == closes["close"]
    for row in offline.itertuples():
        window = unpacked([row.window], len(NAMES))[0]
        np.testing.assert_array_equal(window, online([row.symbol])[row.symbol][1])


def test_late_repeated_corrected_and_unordered_bars_end_in_the_same_windows(workspace, raw):
    live = live_bars()
    rest = raw[raw["date"] >= days(raw)[0]]
    first, *others = [rest[rest["date"] == day] for day in days(raw)[:4]]
    wrong = others[1].assign(volume=others[1]["volume"] * 2)
    assert outcomes(live, others[0]) == ["new"] * len(others[0])
    # One of the symbols has no bar in the second session.
    assert sorted(outcomes(live, first)) == ["late"] * (len(first) - 1) + ["new"]
    assert outcomes(live, first) == ["repeated"] * len(first)
    assert set(outcomes(live, wrong)) <= {"new", "quarantined"}
    assert set(outcomes(live, pd.concat([others[2], others[1]]))) <= {"new", "corrected", "quarantined"}
    assert_same(online(live.symbols), expected(raw[raw["date"] <= days(raw)[3]]))
    live.close()


def test_an_older_bar_never_overwrites_a_newer_window(workspace, raw):
    live = live_bars()
    later = raw[raw["date"] == days(raw)[1]]
    live.take(later)
    instants = {symbol: instant for symbol, (instant, _) in online(live.symbols).items()}
    live.take(raw[raw["date"] == days(raw)[0]])
    assert {symbol: instant for symbol, (instant, _) in online(live.symbols).items()} == instants
    live.close()


def test_what_was_acknowledged_survives_kill_9_in_the_middle_of_a_burst(workspace, raw):
    rest = raw[raw["date"].isin(days(raw)[:6])].sort_values("date", ignore_index=True)
    write_parquet(rest, Path("live.parquet"))
    taken = 0
    for kill_after in (1, 4, 2):
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", POST_FOR_EVER],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(workspace)},
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        lines = [process.stdout.readline() for _ in range(taken + kill_after)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines(keepends=True)
        process.wait()
        said = [line.split()[1] for line in lines if line.endswith("\n")]
        assert set(said[:taken]) <= {"repeated"}
        taken = max(taken, len(said))

        live = live_bars()
        # The bar under way when the kill came may be in, or not.
        known_now = [
            expected(pd.concat([raw[raw["date"] < days(raw)[0]], rest[: taken + i]])) for i in (0, 1)
        ]
        seen = online(live.symbols)
        live.close()
        assert any(
            all(seen[s][0] == one[s][0] and np.allclose(seen[s][1], one[s][1], 1e-6, 1e-4) for s in one)
            for one in known_now
        )
    assert taken >= 7


def test_a_store_that_is_away_keeps_the_bars_and_takes_them_when_it_is_back(workspace, raw, monkeypatch):
    live = live_bars(0.2)
    before = online(live.symbols)
    push = live._store.push

    def away(*_args, **_kwargs):
        raise ConnectionError("gone")

    monkeypatch.setattr(live._store, "push", away)
    new = raw[raw["date"] == days(raw)[0]]
    with pytest.raises(StoreError, match=r"does not take rows .*gone.* kept"):
        live.take(new)
    assert_same(online(live.symbols), before)
    with pytest.raises(StoreError, match="does not take rows"):
        live.take(new)
    monkeypatch.setattr(live._store, "push", push)
    wanted = expected(raw[raw["date"] <= days(raw)[0]])
    for _ in range(100):
        if not live._behind:
            break
        live._stop.wait(0.1)
    assert_same(online(live.symbols), wanted)
    live.close()


def test_a_new_run_of_the_pipeline_is_taken_up_and_newer_live_bars_stay(workspace, raw):
    live = live_bars()
    for day in days(raw)[:3]:
        live.take(raw[raw["date"] == day])
    pipeline(workspace, raw[raw["date"] <= days(raw)[0]])
    assert_same(online(live.symbols), expected(raw[raw["date"] <= days(raw)[2]]))
    live.take(raw[raw["date"] == days(raw)[3]])
    assert_same(online(live.symbols), expected(raw[raw["date"] <= days(raw)[3]]))
    live.close()


def test_the_pipelines_bar_stands_where_it_came_later_than_the_live_one(workspace, raw):
    live = live_bars()
    day = days(raw)[0]
    rumour = raw[raw["date"] == day]
    live.take(rumour.assign(volume=rumour["volume"] * 3))
    pipeline(workspace, raw[raw["date"] <= day])
    live.take(rumour.iloc[:1])
    assert_same(online(live.symbols), expected(raw[raw["date"] <= day]))
    live.close()


def test_a_live_bar_that_the_pipeline_sets_aside_is_withdrawn(workspace, raw):
    live = live_bars()
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
    assert_same(online(live.symbols), wanted)
    rest = pd.concat([now_raw, second.assign(high=0.0)])
    pipeline(workspace, rest)
    live = live_bars()
    assert_same(online(live.symbols), expected(rest))
    live.close()


def test_a_training_set_does_not_see_live_rows(workspace, raw):
    small.run_python(workspace, "from training import dataset\ndataset.main()")
    rows = Path("data/dataset/rows.parquet").read_bytes()
    live = live_bars()
    corrected = raw[raw["date"] == np.sort(raw["date"].unique())[-LIVE - 3]]
    live.take(corrected.assign(volume=corrected["volume"] + 100))
    live.close()
    small.run_python(workspace, "from training import dataset\ndataset.main()")
    assert Path("data/dataset/rows.parquet").read_bytes() == rows


def test_pushed_rows_say_when_they_were_known(workspace, raw):
    live = live_bars()
    started = pd.Timestamp.now("UTC")
    live.take(raw[raw["date"] == days(raw)[0]])
    live.close()
    (path,) = DAILY_FEATURES.with_suffix(".pushed").glob("*.parquet")
    rows = known(pd.read_parquet(path))
    assert path.stem == f"{pd.Timestamp(days(raw)[0]):%Y-%m-%d}"
    assert (rows[CREATED] >= started).all()


def test_two_services_in_one_workspace_are_one_too_many(workspace):
    live = live_bars()
    with pytest.raises(StoreError, match="another service takes live bars here"):
        live_bars()
    live.close()
    live_bars().close()


def test_without_a_run_of_the_pipeline_it_says_what_to_run(tmp_path):
    with chdir(tmp_path), pytest.raises(DataError, match="Run `dvc repro`"):
        LiveBars(None, 10)


def test_more_live_sessions_than_a_check_looks_back_on_are_caught_up_with_at_the_next_start(
    tmp_path_factory,
):
    raw = raw_market(8, symbols=3, sessions=260)
    folder = tmp_path_factory.mktemp("months") / "workspace"
    folder.mkdir()
    small.copy_rooms(folder)
    params = yaml.safe_load((small.PROJECT / "params.yaml").read_text())
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    sessions = np.sort(raw["date"].unique())[-100:]
    pipeline(folder, raw[raw["date"] < sessions[0]])
    with chdir(folder):
        live = live_bars()
        for start in range(0, 100, 5):
            live.take(raw[raw["date"].isin(sessions[start : start + 5])])
        live.close()
        assert_same(online(live.symbols), expected(raw))
        live = live_bars()
        assert_same(online(live.symbols), expected(raw))
        live.close()
