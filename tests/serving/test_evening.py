"""What a person says of bars, and the states of an evening, on landings written by hand."""

import json
import shutil
import subprocess
import time
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import markets, models_by_hand
from support import small_runs as small
from support.once import once

from feature_repo import publish
from feature_repo.store import open_store
from pitwise import pipeline, quality_flags
from pitwise.bars import __main__ as bars
from pitwise.bars.landing import Landing, first_to_last, land, landings
from pitwise.bars.schema import COLUMNS
from pitwise.bars.versions import known_bars, read_versions
from pitwise.cleaning import __main__ as cleaning
from pitwise.cleaning.events import event_table
from pitwise.errors import DataError, StoreError
from pitwise.features import __main__ as features
from pitwise.features.indicators import NAMES
from pitwise.features.windows import unpacked
from pitwise.workspace import Workspace, read_parquet, sha256, write_json, write_parquet
from serving import evening
from serving.live.live_bars import LiveBars
from serving.upgrade import upgrade

FRIDAY, MONDAY = pd.Timestamp("2024-05-31"), pd.Timestamp("2024-06-03")


def rows(symbols: str, *days: pd.Timestamp) -> pd.DataFrame:
    keys = [(symbol, day) for symbol in symbols for day in days]
    frame = pd.DataFrame(keys, columns=["symbol", "date"]).assign(
        open=10.0, high=11.0, low=9.0, close=10.5, volume=1000.0
    )
    return frame.astype({"symbol": "string", "date": "datetime64[us]"})


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    """Four symbols on Friday, two of them on Monday: Monday is not sealed."""
    workspace = small.new_workspace(tmp_path / "workspace")
    first = pd.concat([rows("ABCD", FRIDAY), rows("AB", MONDAY)], ignore_index=True)
    land(workspace, Landing(first, "csv", pd.Timestamp("2024-06-03T21:00Z"), history="assumed"))
    bars.main(workspace)
    return workspace


def test_a_withdrawn_bar_is_known_until_it_is_withdrawn(workspace):
    evening.withdraw(workspace, "B", MONDAY, pd.Timestamp("2024-06-03T22:00Z"))
    bars.main(workspace)
    versions = read_versions(workspace)
    now = known_bars(versions)
    assert now[now["date"] == MONDAY]["symbol"].tolist() == ["A"]
    before = known_bars(versions, at=pd.Timestamp("2024-06-03T21:59Z"))
    assert before[before["date"] == MONDAY]["symbol"].tolist() == ["A", "B"]


def test_only_a_bar_that_landed_can_be_withdrawn(workspace):
    with pytest.raises(DataError, match="C, 2024-06-03: no such bar has landed"):
        evening.withdraw(workspace, "C", MONDAY, pd.Timestamp("2024-06-03T22:00Z"))


def test_a_session_is_sealed_by_hand(workspace):
    assert read_versions(workspace).seals["date"].max() == FRIDAY
    evening.seal(workspace, MONDAY, pd.Timestamp("2024-06-03T22:00Z"))
    bars.main(workspace)
    last = read_versions(workspace).seals.iloc[-1]
    assert (last["date"], last["sealed_at"]) == (MONDAY, pd.Timestamp("2024-06-03T22:00Z"))


@pytest.mark.parametrize("day", ["2024-06-04", "2024-06-02"])
def test_a_session_that_is_not_over_or_none_is_not_sealed(workspace, day):
    with pytest.raises(DataError, match=f"{day}: is no session that is over"):
        evening.seal(workspace, pd.Timestamp(day), pd.Timestamp("2024-06-04T12:00Z"))


@pytest.mark.parametrize(
    ("source", "now", "state"),
    [
        ("csv", "2024-06-03T22:00Z", "incomplete"),
        ("csv", "2024-06-04T22:00Z", "stale"),
        ("sample", "2024-06-04T22:00Z", "incomplete"),
    ],
)
def test_the_page_of_an_evening(workspace, source, now, state):
    small.change_params(workspace, load={"source": source})
    clean = pd.concat([rows("ABCD", FRIDAY), rows("A", MONDAY)], ignore_index=True)
    clean = clean.assign(price_factor=1.0, share_factor=1.0, segment=0)
    write_parquet(clean, workspace.clean_bars)
    write_parquet(rows("B", MONDAY).assign(reason="scale_error"), workspace.quarantine)
    forecasts = pd.DataFrame(
        {
            "symbol": ["A"],
            "as_of": pd.Timestamp("2024-06-03T20:00Z"),
            "horizon": [1],
            "log_return": [0.001],
            "price": [10.0],
            "p_up": [0.5],
            "model_version": "1",
        }
    )
    found = evening.evening_of(workspace, forecasts, pd.Timestamp(now))
    assert (found.as_of, found.sealed, found.symbols, found.symbols_before) == (MONDAY, FRIDAY, 1, 4)
    assert found.provisional["symbol"].tolist() == ["A", "B"]
    assert found.quarantine["symbol"].tolist() == ["B"]
    assert evening.write_page(workspace, forecasts, pd.Timestamp(now)) == state
    assert "scale error" in (workspace.root / "reports/tonight.html").read_text()


def test_the_page_shows_suspect_and_unusual_bars_of_the_newest_sessions(workspace):
    history = markets.bars(3, 104, seed=8, start="2024-01-02")
    last = history["date"].max()
    history.loc[(history["symbol"] == "S001") & (history["date"] == last), "volume"] = 1e9
    forest, _ = quality_flags.fit(history, contamination=0.003, trees=50, sample=256, seed=7)
    write_parquet(history, workspace.clean_bars)
    write_parquet(rows("B", MONDAY).assign(reason="scale_error"), workspace.quarantine)
    events = event_table(
        symbol=["S000", "S002"],
        date=[last, last - pd.Timedelta(days=30)],
        kind=["split", "bad_print"],
        confidence=[0.8, 0.8],
    )
    write_parquet(events, workspace.events)
    found = evening.evening_of(workspace, pd.DataFrame(), pd.Timestamp("2024-06-03T22:00Z"))
    assert found.unusual is None
    assert found.suspects["symbol"].tolist() == ["S000"]
    assert not found.withholds
    quality_flags.save(forest, workspace.root / quality_flags.FOREST.path)
    small.change_params(workspace, predict={"suspect": "withhold"})
    found = evening.evening_of(workspace, pd.DataFrame(), pd.Timestamp("2024-06-03T22:00Z"))
    assert found.unusual["symbol"].tolist() == ["S001"]
    assert found.withholds


@pytest.mark.parametrize(("day", "shown"), [(MONDAY, True), (FRIDAY, False)])
def test_the_page_has_the_signals_of_the_newest_session_alone(workspace, day, shown):
    signals = {"symbol": ["A"], "as_of": pd.Timestamp("2024-06-03T20:00Z"), "signal": "HOLD"}
    write_parquet(pd.DataFrame(signals), workspace.root / "data/predictions/signals.parquet")
    mood = pd.DataFrame({"date": [FRIDAY, MONDAY], "sentiment": [40.0, 60.0]})
    write_parquet(mood, workspace.root / "data/predictions/sentiment.parquet")
    write_json({"counts": {}}, workspace.root / "metrics/signals.json")
    risk = {"equal_weight": {"as_of": "2024-05-31"}, "holdings": {"why": "NONE is unknown"}}
    write_json(risk, workspace.root / "metrics/risk.json")
    found = evening.decisions_of(workspace, day)
    assert (found is not None) is shown
    if found:
        assert found.sentiment.tolist() == [40.0, 60.0]
        assert found.risk == {"holdings": {"why": "NONE is unknown"}}


def test_an_evening_without_forecasts_decides_nothing(workspace):
    evening.decide(workspace)
    assert not (workspace.root / "metrics/signals.json").exists()


@pytest.mark.parametrize(("newest", "due"), [("2024-06-03", False), ("2024-06-04", True)])
def test_models_are_trained_again_after_their_sessions(workspace, newest, due):
    # 2 May is the 21st session before 3 June, Memorial Day left out; the newest has no label yet.
    document = {"evening": {"retrain_every_sessions": 21}}
    text = workspace.params.read_text()
    if "\nevening:" not in text:
        workspace.params.write_text(text + "\n" + json.dumps(document)[1:-1] + "\n")
    else:
        small.change_params(workspace, **document)
    write_json({"last_session": "2024-05-02"}, workspace.evaluation_report)
    write_json({"last_session": newest}, workspace.clean_report)
    assert evening.is_retraining_due(workspace) is due


@pytest.mark.parametrize("due", [False, True])
def test_an_evening_trains_only_when_it_is_due(workspace, monkeypatch, due):
    did = []
    monkeypatch.setattr(evening, "is_retraining_due", lambda _: due)
    monkeypatch.setattr(evening, "write_page", lambda *_: "incomplete")
    monkeypatch.setattr(pipeline, "run_pipeline", lambda _: did.append("run_pipeline"))
    for step in ("update", "tell_dvc", "mature", "forecast", "decide"):
        monkeypatch.setattr(evening, step, lambda _, step=step: did.append(step))
    assert evening.evening(workspace) == 2
    assert did == ["update", "tell_dvc", "mature"] + ["run_pipeline", "forecast"] * due + ["decide"]


@pytest.fixture(scope="module")
def calm() -> pd.DataFrame:
    """Four symbols, S000 to S003, of 130 sessions from 2014-01-02 to 2014-07-09; nothing happens."""
    return markets.bars(4, 130, seed=3)[COLUMNS]


def deliver(workspace: Workspace, rows: pd.DataFrame, history: str = "observed") -> None:
    now = pd.Timestamp.now("UTC")
    land(workspace, Landing(rows, "csv", now, history=history, covers=first_to_last(rows)))


def run_stages(workspace: Workspace) -> None:
    for stage in (bars, cleaning, features, publish):
        stage.main(workspace)


@pytest.fixture(scope="module")
def up_to_tuesday(calm, tmp_path_factory) -> Path:
    """A workspace that the stages have left up to Tuesday, 2014-07-01."""

    def build(folder: Path) -> None:
        workspace = small.new_workspace(folder)
        deliver(workspace, calm[calm["date"] < "2014-07-02"], "assumed")
        run_stages(workspace)

    return once(tmp_path_factory, "up_to_tuesday", build)


@pytest.fixture
def on_wednesday(up_to_tuesday, tmp_path) -> Workspace:
    return Workspace(shutil.copytree(up_to_tuesday, tmp_path / "on_wednesday"))


def online(workspace: Workspace, symbols: list[str]) -> tuple[list, np.ndarray]:
    """The instants (seconds) and the windows of the online store."""
    store = open_store(workspace)
    found = store.get_online_features(["windows:window"], {"symbol": symbols}).to_dict(True)
    return found["window__ts"], unpacked(found["window"], NAMES)


SYMBOLS = ["S000", "S001", "S002", "S003"]
WEDNESDAY_S_CLOSE = pd.Timestamp("2014-07-02T20:00Z").timestamp()


def test_a_delivery_is_online_before_the_stages_run_and_they_find_the_same(on_wednesday, calm):
    files = [on_wednesday.daily_features, on_wednesday.clean_bars, on_wednesday.published]
    before = [path.read_bytes() for path in files]
    later = calm[calm["date"] < "2014-07-03"].copy()
    later.loc[(later["symbol"] == "S001") & (later["date"] == "2014-06-24"), "volume"] = 12_345.0
    deliver(on_wednesday, later)
    assert evening.caught_up(on_wednesday)
    assert [path.read_bytes() for path in files] == before
    instants, windows = online(on_wednesday, SYMBOLS)
    assert instants == [WEDNESDAY_S_CLOSE] * 4
    volume = windows[1, :, NAMES.index("volume")]
    assert volume[-7] == 12_345.0  # 24 June is the seventh session up to 2 July
    run_stages(on_wednesday)
    after = online(on_wednesday, SYMBOLS)
    assert after[0] == instants
    np.testing.assert_allclose(after[1], windows, rtol=1e-6, atol=1e-4)


def test_what_lies_too_far_back_waits_for_the_stages(on_wednesday, calm):
    later = calm[calm["date"] < "2014-07-03"].copy()
    later.loc[(later["symbol"] == "S001") & (later["date"] == "2014-06-03"), "volume"] = 12_345.0
    deliver(on_wednesday, later)
    assert not evening.caught_up(on_wednesday)
    instants, windows = online(on_wednesday, SYMBOLS)
    assert instants == [WEDNESDAY_S_CLOSE] * 4
    assert 12_345.0 not in windows[1, :, NAMES.index("volume")]
    run_stages(on_wednesday)
    assert 12_345.0 in online(on_wednesday, SYMBOLS)[1][1, :, NAMES.index("volume")]


def test_a_new_symbol_waits_for_the_stages(on_wednesday, calm):
    wednesday = calm[calm["date"] == "2014-07-02"]
    deliver(on_wednesday, pd.concat([wednesday, wednesday[:1].assign(symbol="NEW")]))
    assert not evening.caught_up(on_wednesday)
    assert online(on_wednesday, SYMBOLS)[0] == [WEDNESDAY_S_CLOSE] * 4


def test_a_running_service_puts_a_delivery_online_itself(on_wednesday, calm):
    service = LiveBars(on_wednesday, open_store(on_wednesday), 10, refresh_seconds=0.1)
    wednesday = calm[calm["date"] == "2014-07-02"]
    deliver(on_wednesday, wednesday)
    assert not evening.caught_up(on_wednesday)
    for _ in range(600):
        if service.newest == np.datetime64("2014-07-02T20:00:00"):
            break
        time.sleep(0.1)
    service.close()
    assert online(on_wednesday, SYMBOLS)[0] == [WEDNESDAY_S_CLOSE] * 4


def test_forecasts_are_made_before_the_stages_run_and_once(on_wednesday, calm, capsys):
    model = models_by_hand.onnx_model(window=30)
    version = models_by_hand.register(on_wednesday, model, models_by_hand.contract(window=30))
    models_by_hand.make_champion(on_wednesday, version)
    write_json({"champion_kind": "by_hand"}, on_wednesday.registration_report)
    deliver(on_wednesday, calm[calm["date"] == "2014-07-02"])
    forecasts = evening.update(on_wednesday)
    printed = capsys.readouterr().out
    said = "4 forecasts for 2014-07-03 by version 1 (4 new in the log, 0 symbols no longer trade)"
    assert printed.index(said) < printed.index("bars of 4 symbols")
    assert printed.count("forecasts") == 1
    assert forecasts["symbol"].tolist() == SYMBOLS
    assert forecasts["as_of"].unique().tolist() == [pd.Timestamp("2014-07-02T20:00Z")]
    assert read_parquet(on_wednesday.latest_predictions)["symbol"].tolist() == SYMBOLS


@pytest.fixture
def older(tmp_path) -> Workspace:
    """A workspace of 0.2: raw bars, the list of retrievals, params with a section `ingest`."""
    workspace = small.new_workspace(tmp_path / "older", load={"source": "csv"})
    text = (
        workspace.params.read_text().replace("\nload:", "\ningest:").replace("load:\n", "ingest:\n", 1)
    )
    workspace.params.write_text(text)
    raw = workspace.root / "data/raw/bars.parquet"
    write_parquet(rows("AB", FRIDAY), raw)
    write_json({"window": 30}, workspace.published)
    record = {"retrieved_at": "2024-06-01T08:00:00+00:00", "sha256": sha256(raw)}
    raw.with_name("retrievals.jsonl").write_text(json.dumps(record) + "\n")
    return workspace


def test_an_older_workspace_s_bars_become_the_first_landing(older):
    assert upgrade(older)
    (landing,) = landings(older)
    assert landing.received_at == pd.Timestamp("2024-06-01T08:00Z")
    assert (landing.source, landing.basis, landing.history) == ("csv", "traded", "assumed")
    assert landing.covers == {"A": (date(2024, 5, 31),) * 2, "B": (date(2024, 5, 31),) * 2}
    older.require_landings()
    assert not older.published.exists()
    assert not upgrade(older)


def test_git_ignores_the_data_of_an_older_workspace_but_what_names_its_landings(older):
    """DVC refuses to track what Git ignores, and 0.2 had Git ignore all of data/."""
    (older.root / ".gitignore").write_text("/mine/\n/data/\n/models/\n")
    assert upgrade(older)
    lines = (older.root / ".gitignore").read_text().splitlines()
    assert lines == ["/mine/", "/data/[a-z]*/", "/data/*.lock", "/models/"]
    subprocess.run(["git", "init", "--quiet"], cwd=older.root, check=True)
    for path, code in (("data/landing.dvc", 1), ("data/landing/it.parquet", 0), ("data/raw/x", 0)):
        checked = subprocess.run(["git", "check-ignore", "--quiet", path], cwd=older.root)
        assert checked.returncode == code, path


def test_without_the_instant_of_retrieval_an_upgrade_is_refused_and_changes_nothing(older):
    before = older.params.read_text()
    (older.root / "data/raw/retrievals.jsonl").unlink()
    with pytest.raises(StoreError, match="does not say when"):
        upgrade(older)
    assert older.params.read_text() == before
    assert landings(older) == []
