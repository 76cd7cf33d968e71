"""The default run, looked at as a user would: files, commands, store, registry, page."""

import contextlib
import html
import json
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
from support.browser import open_page
from support.workspaces import ENVIRONMENT, NOT_COPIED, Run, new_run

from feature_repo import publish
from feature_repo.store import open_store
from monitoring import report, summary
from pitwise.bars import __main__ as bars
from pitwise.bars.calendar import session_close
from pitwise.bars.versions import known_bars, read_versions
from pitwise.errors import PitwiseError
from pitwise.features import __main__ as features
from pitwise.features.indicators import NAMES
from pitwise.features.windows import WindowRows, window_ends
from pitwise.stage import run_stage
from serving.inference import predict
from training import CANDIDATES, KINDS
from training.evaluate import FIGURES

SYMBOLS = ["AAPL", "FB", "GOOG", "IBM", "MSFT"]


@pytest.fixture(scope="module")
def under_dvc(default_run, tmp_path_factory) -> Run:
    """A copy for the commands of DVC, which lock a workspace; what they change they put back."""
    return default_run.copy(tmp_path_factory.mktemp("under_dvc") / "project")


@pytest.fixture
def copied(default_run, tmp_path) -> Run:
    """A copy to write to, without models, registry and DVC's cache."""
    return default_run.copy(tmp_path / "project", NOT_COPIED)


def test_what_was_delivered_is_in_one_file_that_dvc_keeps(default_run):
    workspace = default_run.workspace
    names = ["20130301T210000000000Z-sample-d40dbf422dee.parquet"]
    assert [path.name for path in workspace.landing.iterdir()] == names
    assert default_run.report("data/bars/landings.json") == names
    assert "path: landing" in (default_run.path / "data/landing.dvc").read_text()


def test_each_bar_of_the_sample_was_known_at_its_close_and_never_corrected(default_run):
    versions = read_versions(default_run.workspace)
    assert len(versions.bars) == 12154
    assert not versions.bars["withdrawn"].any()
    closes = session_close(versions.bars["date"])
    assert (versions.bars["known_at"] == closes).all()
    assert (versions.seals["sealed_at"] == session_close(versions.seals["date"])).all()
    assert list(versions.seals["date"]) == sorted(versions.bars["date"].unique())
    revisions = pd.read_parquet(default_run.workspace.revisions)
    assert len(revisions) == 0


def test_every_row_of_the_sample_is_accounted_for(default_run):
    clean = default_run.report("metrics/clean.json")
    quarantine = pd.read_parquet(default_run.workspace.quarantine)
    assert clean["rows_in"] == clean["rows_clean"] + clean["rows_quarantined"] == 12154
    assert len(quarantine) == clean["rows_quarantined"]
    assert "reason" in quarantine


def test_evaluation_has_every_figure_for_models_and_baselines(default_run):
    evaluation = default_run.report("metrics/evaluation.json")
    for name in (*CANDIDATES, "persistence", "drift", "always_up"):
        assert tuple(evaluation[name]) == FIGURES
    for name in CANDIDATES:
        assert None not in evaluation[name].values()
    assert evaluation["n_predictions"] == 2057
    assert evaluation["persistence"]["skill_vs_persistence"] == 0
    assert evaluation["first_session"] == "2011-03-31"


def test_nothing_changed_runs_no_stage(under_dvc):
    shown = under_dvc.run("dvc", "repro").stdout
    assert "Running stage" not in shown
    assert "up to date" in shown


@pytest.mark.parametrize(
    ("section", "values", "changed"),
    [
        ("monitor", {"psi_threshold": 0.3}, {"monitor"}),
        ("lstm", {"dense": 8}, {"train@lstm", "ensemble"}),
        ("train", {"seed": 8}, {"ensemble", *(f"train@{kind}" for kind in KINDS)}),
        ("clean", {"min_history": 61}, {"clean", "features", "leakcheck"}),
        ("bars", {"seal_coverage": 0.9}, {"bars"}),
        ("dataset", {"view": "corrected"}, {"dataset", "leakcheck"}),
        ("load", {"path": "else"}, set()),
        ("evening", {"retrain_every_sessions": 5}, set()),
    ],
)
def test_a_changed_parameter_touches_only_the_stages_that_read_it(
    under_dvc, monkeypatch, section, values, changed
):
    """What `dvc status` shows, in this process: each start takes most of a second."""
    from dvc.repo import Repo

    monkeypatch.chdir(under_dvc.path)
    params = under_dvc.workspace.params
    before = params.read_text()
    try:
        under_dvc.change_params(section, **values)
        with Repo() as repo:
            shown = repo.status()
        # The walk-forward is a target of its own, which this run has not asked for.
        assert {stage for stage in shown if not stage.startswith("walk_forward/")} == changed
    finally:
        params.write_text(before)


def values_of(window: bytes) -> np.ndarray:
    return np.frombuffer(window, "<f4", offset=12).reshape(30, len(NAMES))


def test_the_online_window_of_every_symbol_is_the_offline_window_bit_for_bit(default_run):
    store = open_store(default_run.workspace)
    answer = store.get_online_features(
        features=store.get_feature_service("windows_v1"), entity_rows=[{"symbol": s} for s in SYMBOLS]
    ).to_dict()
    names = store.get_feature_view("windows").tags["features"].split(",")
    assert names == NAMES
    online = np.array([values_of(window) for window in answer["window"]])
    daily = pd.read_parquet(default_run.workspace.dataset_rows)
    rows = WindowRows(daily, names)
    symbols = daily["symbol"].to_numpy(object)
    last = {symbols[end]: end for end in window_ends(symbols, rows.base, 30)}
    offline = rows.gather(np.array([last[s] for s in answer["symbol"]]), 30)
    assert len(answer["symbol"]) == 5
    np.testing.assert_array_equal(online.view("uint32"), offline.copy().view("uint32"))


def test_offline_windows_from_feast_are_the_windows_of_the_daily_rows(default_run):
    """Prices and volumes on the share basis of the window's last session."""
    stored = pd.read_parquet(default_run.workspace.window_features)
    rows = pd.read_parquet(default_run.workspace.dataset_rows).set_index(["symbol", "event_timestamp"])
    close, volume = NAMES.index("close"), NAMES.index("volume")
    for window in stored.iloc[::17].itertuples():
        expected = rows.loc[window.symbol].loc[: window.event_timestamp].tail(30)
        found = values_of(window.window)
        assert found.tobytes() == WindowRows(expected, NAMES).gather(np.array([29]), 30).tobytes()
        price, shares = (expected[f] / expected[f].iloc[-1] for f in ("price_factor", "share_factor"))
        np.testing.assert_allclose(found[:, close], expected["close"] * price, rtol=1e-6)
        np.testing.assert_allclose(found[:, volume], expected["volume"] / shares, rtol=1e-6)
        np.testing.assert_allclose(found[-1], expected[NAMES].iloc[-1], rtol=1e-6)


FEAST_COMMANDS = """
import sys
from pathlib import Path
from feast.cli.cli import cli
cli(["feature-views", "list"], standalone_mode=False)
for fresh in (False, True):
    if fresh:
        for name in ("online", "registry"):
            Path(f"../data/feast/{name}.db").unlink()
    for arguments in (["apply"], ["materialize-incremental", "2013-03-02T00:00:00"]):
        cli(arguments, standalone_mode=False)
"""
"""The command's own entry point, several times in one process: each start takes seconds."""


def test_feasts_own_commands_work_from_a_shell(copied):
    done = subprocess.run(
        [sys.executable, "-c", FEAST_COMMANDS],
        cwd=copied.workspace.feast_repo,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\ndaily" in done.stdout
    assert "\nwindows" in done.stdout
    with sqlite3.connect(copied.path / "data/feast/online.db") as online:
        (count,) = online.execute("select count(*) from pitwise_windows_rows").fetchone()
    assert count == 5


def test_the_champion_forecasts_each_symbol_for_the_next_session(default_run):
    latest = pd.read_parquet(default_run.workspace.latest_predictions)
    assert sorted(latest["symbol"]) == SYMBOLS
    assert {str(s) for s in latest["for_session"]} == {"2013-03-04"}  # a Monday: the weekend is skipped
    last = known_bars(read_versions(default_run.workspace)).groupby("symbol")["close"].last()
    expected = latest["symbol"].map(last) * np.exp(latest["log_return"])
    np.testing.assert_allclose(latest["price"], expected, rtol=2e-6)
    registration = default_run.report("metrics/registration.json")
    assert set(latest["model_version"]) == {registration["champion"]}


def test_a_rerun_of_predict_logs_nothing_twice(copied):
    """In this process, for the stage's own start takes seconds; `inference/test_predict.py` has that."""
    log = copied.path / "data/predictions/log.db"

    def count():
        with sqlite3.connect(log) as connection:
            return connection.execute("select count(*) from predictions").fetchone()[0]

    before = count()
    predict.main(copied.workspace)
    assert count() == before == 10  # the champion's and the challenger's


def test_metrics_and_plots_are_where_dvc_looks_for_them(under_dvc):
    shown = json.loads(under_dvc.run("dvc", "metrics", "show", "--json").stdout)
    assert shown[""]["data"]["metrics/evaluation.json"]["data"]["n_symbols"] == 5
    under_dvc.run("dvc", "plots", "show", "-o", "shown")
    page = (under_dvc.path / "shown/index.html").read_text()
    assert page.count("<img") == 6
    assert "http" not in page
    assert "train@lstm" in under_dvc.run("dvc", "dag", "--dot").stdout


def test_the_summary_names_champion_baselines_forecasts_and_reports(default_run, capsys):
    summary.main(default_run.workspace)
    shown = capsys.readouterr().out
    for expected in ("12,154 rows in", "persistence", "champion: pitwise version", "reports/week.html"):
        assert expected in shown
    assert sum(symbol in shown for symbol in SYMBOLS) == 5


def test_the_week_is_judged_and_the_logged_forecasts_are_the_champions_own(default_run):
    report = default_run.report("metrics/monitoring.json")
    assert report["verdict"] in ("ok", "warn", "act")
    assert report["reason"] in html.unescape(default_run.workspace.week_page.read_text())
    assert (report["importance"]["n"], report["importance"]["differ"]) == (5, 0.0)


def test_the_drift_page_opens_in_a_browser_without_a_network(default_run, tmp_path):
    page = open_page(default_run.workspace.drift_page.as_uri(), tmp_path, seconds=20)
    assert "Dataset Drift" in page.dom
    assert "volatility_20" in page.dom
    assert page.requests == []


def test_the_same_run_gives_the_same_bytes(copied):
    """The run's were made by other processes."""
    for stage, path in (
        (bars, copied.workspace.bar_versions),
        (report, copied.workspace.drift_page),
        (features, copied.workspace.daily_features),
    ):
        before = path.read_bytes()
        stage.main(copied.workspace)
        assert path.read_bytes() == before


TRAINING_THAT_SAYS_WHEN_IT_FITS = """
from functools import partial
from pitwise.stage import run_stage
from training import train
from training.models import fit as models_fit

fit = models_fit.fit

def announced(*arguments, **options):
    print("fitting", flush=True)
    return fit(*arguments, **options)

models_fit.fit = announced
run_stage(partial(train.main, kind="lstm"))
"""


def test_a_killed_training_leaves_nothing_half_written(copied):
    copied.change_params("train", max_batches=10**6, patience=10**6)  # it never ends
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINING_THAT_SAYS_WHEN_IT_FITS],
        cwd=copied.path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "fitting\n"
        time.sleep(1)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
    assert not [path for path in copied.workspace.models.rglob("*") if path.is_file()]


def test_a_window_longer_than_the_history_is_one_clear_message(copied):
    copied.change_params("publish", window=4000)
    before = copied.workspace.window_features.read_bytes()
    with pytest.raises(PitwiseError, match=r"publish\.window: 4000 sessions"):
        publish.main(copied.workspace)
    assert copied.workspace.window_features.read_bytes() == before


@pytest.mark.parametrize(
    ("stage", "section", "values", "message"),
    [
        ("pitwise.bars", "bars", {"seal_coverage": 0}, "bars.seal_coverage"),
        ("pitwise.cleaning", "clean", {"min_history": 0}, "clean.min_history"),
        ("pitwise.cleaning", "clean", {"verdicts": "none"}, "clean.verdicts"),
        ("feature_repo.publish", "publish", {"windows": 3}, "publish.windows is not a known key"),
        ("training.dataset", "dataset", {"test_fraction": 0}, "dataset.test_fraction"),
        ("training.dataset", "dataset", {"view": "as_known"}, "dataset.view"),
        ("training.select", "select", {"features": ["close", "sma_7"]}, "sma_7"),
        ("training.train", "train", {"batch_size": -1}, "train.batch_size"),
        ("training.evaluate", "evaluate", {"bootstrap_samples": 1}, "evaluate.bootstrap_samples"),
        ("training.register", "register", {"alpha": 0.7}, "register.alpha"),
        ("serving.inference.predict", "predict", {"retention_days": 0}, "predict.retention_days"),
        ("monitoring.report", "monitor", {"min_sessions": 6}, "monitor.min_sessions"),
    ],
)
@pytest.mark.component
def test_an_unknown_or_impossible_parameter_names_its_key(
    tmp_path, capsys, stage, section, values, message
):
    project = new_run(tmp_path / "project")
    project.change_params(section, **values)
    package = find_spec(stage).submodule_search_locations
    main = import_module(f"{stage}.__main__" if package else stage).main
    arguments = ["ann"] if stage == "training.train" else []
    with pytest.raises(SystemExit) as stopped:
        run_stage(lambda _: main(project.workspace, *arguments))
    shown = capsys.readouterr().err
    assert stopped.value.code == 1
    assert shown.startswith(f"error: {project.workspace.params}: ")
    assert message in shown
    assert "Traceback" not in shown


def test_an_impossible_parameter_is_the_exit_code_of_the_stages_process(tmp_path):
    project = new_run(tmp_path / "project")
    project.change_params("clean", min_history=0)
    done = project.stage("pitwise.cleaning", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {project.workspace.params}: clean.min_history")
    assert done.stdout == ""


def test_feasts_pages_come_up_on_loopback(copied):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        ["feast", "ui", "--host", "127.0.0.1", "--port", str(port)],
        cwd=copied.workspace.feast_repo,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(240):
            time.sleep(0.25)
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
