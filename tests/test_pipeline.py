"""The default run, looked at as a user would: files, commands, store, registry, page."""

import contextlib
import json
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ENVIRONMENT, new_workspace

from feature_repo.artifacts import MODELS, ROWS
from feature_repo.indicators import NAMES
from feature_repo.windows import gather, window_ends
from training.evaluate import FIGURES


def _json(workspace, path):
    return json.loads((workspace.path / path).read_text())


def _edit_params(workspace, section, **values):
    path = workspace.path / "params.yaml"
    document = yaml.safe_load(path.read_text())
    document[section] |= values
    path.write_text(yaml.safe_dump(document))


def test_every_row_of_the_sample_is_accounted_for(default_run):
    clean = _json(default_run, "metrics/clean.json")
    quarantine = pd.read_parquet(default_run.path / "data/clean/quarantine.parquet")
    assert clean["rows_in"] == clean["rows_clean"] + clean["rows_quarantined"] == 12154
    assert len(quarantine) == clean["rows_quarantined"]
    assert "reason" in quarantine


def test_evaluation_has_every_figure_for_models_and_baselines(default_run):
    evaluation = _json(default_run, "metrics/evaluation.json")
    for name in ("ann", "lstm", "persistence", "drift", "always_up", "gradient_boosting"):
        assert tuple(evaluation[name]) == FIGURES
    for name in ("ann", "lstm", "gradient_boosting"):
        assert None not in evaluation[name].values()
    assert evaluation["n_predictions"] == 2057
    assert evaluation["persistence"]["skill_vs_persistence"] == 0
    assert evaluation["first_session"] == "2011-03-31"


def test_nothing_changed_runs_no_stage(default_run):
    said = default_run.run("dvc", "repro").stdout
    assert "Running stage" not in said
    assert "up to date" in said


@pytest.mark.parametrize(
    ("section", "values", "changed"),
    [
        ("monitor", {"psi_threshold": 0.3}, {"monitor"}),
        ("lstm", {"dense": 8}, {"train@lstm"}),
        ("train", {"seed": 8}, {"train@ann", "train@lstm"}),
        ("clean", {"min_history": 61}, {"clean"}),
    ],
)
def test_a_changed_parameter_touches_only_the_stages_that_read_it(default_run, section, values, changed):
    params = default_run.path / "params.yaml"
    before = params.read_text()
    try:
        _edit_params(default_run, section, **values)
        assert set(json.loads(default_run.run("dvc", "status", "--json").stdout)) == changed
    finally:
        params.write_text(before)


def test_the_online_window_of_every_symbol_is_the_offline_window_bit_for_bit(default_run):
    read = """
import numpy as np, sys
from feast import FeatureStore
store = FeatureStore("feature_repo")
symbols = ["AAPL", "FB", "GOOG", "IBM", "MSFT"]
answer = store.get_online_features(
    features=store.get_feature_service("windows_v1"), entity_rows=[{"symbol": s} for s in symbols]
).to_dict()
names = store.get_feature_view("windows").tags["features"].split(",")
windows = [np.frombuffer(window, "<f4").reshape(30, len(names)) for window in answer["window"]]
np.savez("online.npz", symbols=answer["symbol"], names=names, windows=windows)
"""
    default_run.run(sys.executable, "-c", read)
    online = np.load(default_run.path / "online.npz")
    assert online["names"].tolist() == NAMES
    rows = pd.read_parquet(default_run.path / ROWS)
    values = rows[list(online["names"])].to_numpy("float32")
    symbols = rows["symbol"].to_numpy(object)
    ends = window_ends(symbols, values, 30)
    last = {symbols[end]: end for end in ends}
    offline = gather(values, np.array([last[s] for s in online["symbols"]]), 30)
    assert len(online["symbols"]) == 5
    np.testing.assert_array_equal(online["windows"].view("uint32"), offline.copy().view("uint32"))


def test_offline_windows_from_feast_are_the_windows_of_the_daily_rows(default_run):
    stored = pd.read_parquet(default_run.path / "data/features/windows.parquet")
    rows = pd.read_parquet(default_run.path / ROWS).set_index(["symbol", "event_timestamp"])
    for window in stored.iloc[::17].itertuples():
        expected = rows.loc[window.symbol].loc[: window.event_timestamp].tail(30)
        assert window.window == expected[NAMES].to_numpy("<f4").tobytes()


def test_feasts_own_commands_work_from_a_shell(default_run, tmp_path):
    copy = tmp_path / "project"
    shutil.copytree(default_run.path, copy, ignore=shutil.ignore_patterns(".dvc", "models", "mlruns"))

    def feast(*arguments):
        done = subprocess.run(
            ["feast", *arguments],
            cwd=copy / "feature_repo",
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    listed = feast("feature-views", "list")
    assert "daily" in listed
    assert "windows" in listed
    feast("apply")
    feast("materialize-incremental", "2013-03-02T00:00:00")
    (copy / "data/feast/online.db").unlink()
    (copy / "data/feast/registry.db").unlink()
    feast("apply")
    feast("materialize-incremental", "2013-03-02T00:00:00")
    with sqlite3.connect(copy / "data/feast/online.db") as online:
        (count,) = online.execute("select count(distinct entity_key) from pitwise_windows").fetchone()
    assert count == 5


def test_the_champion_forecasts_each_symbol_for_the_next_session(default_run):
    latest = pd.read_parquet(default_run.path / "data/predictions/latest.parquet")
    assert sorted(latest["symbol"]) == ["AAPL", "FB", "GOOG", "IBM", "MSFT"]
    assert {str(s) for s in latest["for_session"]} == {"2013-03-04"}  # a Monday: the weekend is skipped
    raw = pd.read_parquet(default_run.path / "data/raw/bars.parquet").groupby("symbol")["close"].last()
    expected = latest["symbol"].map(raw) * np.exp(latest["log_return"])
    np.testing.assert_allclose(latest["price"], expected, rtol=2e-6)
    registration = _json(default_run, "metrics/registration.json")
    assert set(latest["model_version"]) == {registration["champion"]}


def test_a_rerun_of_predict_logs_nothing_twice(default_run):
    log = default_run.path / "data/predictions/log.db"

    def count():
        with sqlite3.connect(log) as connection:
            return connection.execute("select count(*) from predictions").fetchone()[0]

    before = count()
    default_run.stage("serving.predict")
    assert count() == before == 5


def test_no_stage_process_of_serving_loads_torch(default_run):
    said = default_run.run(
        sys.executable,
        "-c",
        "import sys, serving.predict as p; p.main(); print('torch' in sys.modules)",
    ).stdout
    assert said.split()[-1] == "False"


def test_metrics_and_plots_are_where_dvc_looks_for_them(default_run):
    shown = json.loads(default_run.run("dvc", "metrics", "show", "--json").stdout)
    assert shown[""]["data"]["metrics/evaluation.json"]["data"]["n_symbols"] == 5
    default_run.run("dvc", "plots", "show", "-o", "shown")
    page = (default_run.path / "shown/index.html").read_text()
    assert page.count("<img") == 6
    assert "http" not in page
    assert "train@lstm" in default_run.run("dvc", "dag", "--dot").stdout


def test_the_summary_names_champion_baselines_forecasts_and_reports(default_run):
    said = default_run.stage("monitoring.summary").stdout
    for expected in ("12,154 rows in", "persistence", "champion: pitwise version", "reports/drift.html"):
        assert expected in said
    assert sum(s in said for s in ("AAPL", "FB", "GOOG", "IBM", "MSFT")) == 5


def test_the_drift_page_opens_in_a_browser_without_a_network(default_run, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no browser on this machine; .ci/run installs one")
    done = subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={tmp_path}",
            "--virtual-time-budget=20000",
            "--dump-dom",
            (default_run.path / "reports/drift.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Dataset Drift" in done.stdout
    assert "volatility_20" in done.stdout


def test_the_same_run_gives_the_same_bytes(default_run):
    page = default_run.path / "reports/drift.html"
    before = page.read_bytes()
    default_run.stage("monitoring.monitor")
    assert page.read_bytes() == before
    features = default_run.path / "data/features/daily.parquet"
    before = features.read_bytes()
    default_run.stage("feature_repo.features")
    assert features.read_bytes() == before


def test_a_killed_training_leaves_nothing_half_written(default_run, tmp_path):
    copy = tmp_path / "project"
    shutil.copytree(default_run.path, copy, ignore=shutil.ignore_patterns(".dvc", "models", "mlruns"))
    _edit_params(type(default_run)(copy), "train", max_batches=10**6, patience=10**6)  # it never ends
    process = subprocess.Popen(
        [sys.executable, "-m", "training.train", "lstm"], cwd=copy, env=ENVIRONMENT
    )
    time.sleep(12)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    assert not [path for path in (copy / MODELS).rglob("*") if path.is_file()]


def test_a_window_longer_than_the_history_is_one_clear_message(default_run, tmp_path):
    copy = tmp_path / "project"
    shutil.copytree(default_run.path, copy, ignore=shutil.ignore_patterns(".dvc", "models", "mlruns"))
    workspace = type(default_run)(copy)
    _edit_params(workspace, "publish", window=4000)
    before = (copy / "data/features/windows.parquet").read_bytes()
    done = workspace.stage("feature_repo.publish", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: publish.window: 4000 sessions")
    assert "Traceback" not in done.stderr
    assert (copy / "data/features/windows.parquet").read_bytes() == before


@pytest.mark.parametrize(
    ("stage", "section", "values", "told"),
    [
        ("feature_repo.ingest", "ingest", {"source": "yahoo"}, "ingest.source"),
        ("feature_repo.clean", "clean", {"min_history": 0}, "clean.min_history"),
        ("feature_repo.publish", "publish", {"windows": 3}, "publish.windows is not a known key"),
        ("training.dataset", "dataset", {"test_fraction": 0}, "dataset.test_fraction"),
        ("training.select", "select", {"features": ["close", "sma_7"]}, "sma_7"),
        ("training.train", "train", {"batch_size": -1}, "train.batch_size"),
        ("training.evaluate", "evaluate", {"bootstrap_samples": 1}, "evaluate.bootstrap_samples"),
        ("training.register", "register", {"metric": "luck"}, "register.metric"),
        ("serving.predict", "predict", {"recent_sessions": 0}, "predict.recent_sessions"),
        ("monitoring.monitor", "monitor", {"drifted_share": 2}, "monitor.drifted_share"),
    ],
)
def test_an_unknown_or_impossible_parameter_names_its_key(fresh_workspace, stage, section, values, told):
    params = fresh_workspace.path / "params.yaml"
    before = params.read_text()
    try:
        _edit_params(fresh_workspace, section, **values)
        arguments = ["ann"] if stage == "training.train" else []
        done = fresh_workspace.stage(stage, *arguments, check=False)
    finally:
        params.write_text(before)
    assert done.returncode == 1
    assert done.stderr.startswith("error: params.yaml: ")
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_own_prices_run_in_a_place_of_their_own(tmp_path):
    dates = pd.bdate_range("2016-01-04", "2016-12-30")
    rng = np.random.default_rng(3)
    parts = []
    for name in ("AAA", "BBB", "CCC"):
        close = 50 * np.exp(np.cumsum(rng.normal(0, 0.01, len(dates))))
        bar = pd.DataFrame({"date": dates, "open": close, "high": close * 1.01, "low": close * 0.99})
        parts.append(bar.assign(close=close, volume=1e6, Name=name))
    prices = tmp_path / "mine.csv.gz"
    pd.concat(parts).to_csv(prices, index=False)
    workspace = new_workspace(tmp_path / "runs" / "mine", "csv", prices)
    _edit_params(workspace, "train", max_batches=20)
    workspace.run("dvc", "repro")
    latest = pd.read_parquet(workspace.path / "data/predictions/latest.parquet")
    assert sorted(latest["symbol"]) == ["AAA", "BBB", "CCC"]
    quarantined = _json(workspace, "metrics/clean.json")["quarantined_by_reason"]
    assert set(quarantined) == {"not_a_session"}  # business days on which the exchange was closed
    assert not (tmp_path / "runs" / "metrics").exists()
    assert Path("params.yaml").read_text().count("source: sample") == 1


def test_feasts_pages_come_up_on_loopback(default_run):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        ["feast", "ui", "--host", "127.0.0.1", "--port", str(port)],
        cwd=default_run.path / "feature_repo",
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(120):
            time.sleep(0.5)
            assert server.poll() is None
            with contextlib.suppress(OSError):
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}/").read().decode()
                break
        else:
            pytest.fail("no page within a minute")
    finally:
        server.terminate()
        server.wait(timeout=30)
    assert "<title>Feast" in page
    assert 'src="http' not in page
