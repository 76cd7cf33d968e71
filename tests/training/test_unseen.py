"""`pitwise evaluate`: the champion and the baselines on bars that they have never seen."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from support import small_runs as small
from support.models_by_hand import contract, make_champion, onnx_model, register
from typer.testing import CliRunner

from pitwise.bars.schema import COLUMNS
from pitwise.errors import DataError, StoreError
from pitwise.evaluation.figures import KEYS as FIGURES
from pitwise.workspace import Workspace, sha256
from training import cli
from training.unseen import cleaned_rows, evaluate, seen_by_fit

pytestmark = pytest.mark.component

BASELINES = {"persistence", "drift", "always_up", "reversal", "ridge"}


def with_champion(folder: Path, **metadata: str) -> Workspace:
    """A workspace whose champion says log_return = 0.01 tanh(mean of the window / 1e6)."""
    settings = {"bootstrap_samples": 200}
    workspace = small.make_workspace(folder, small.market(6, 200, seed=8), walk_forward=settings)
    make_champion(workspace, register(workspace, onnx_model(), contract(**metadata)))
    return workspace


@pytest.fixture(scope="module")
def prices(tmp_path_factory) -> Path:
    """Other stocks from 2014-01-02 on, as a person has them."""
    path = tmp_path_factory.mktemp("prices") / "other.csv"
    bars = small.market(12, 160, seed=9)
    bars.assign(symbol="X" + bars["symbol"])[COLUMNS].to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    return with_champion(tmp_path_factory.mktemp("desk") / "run", fitted_last_session="2013-12-31")


@pytest.fixture(scope="module")
def report(workspace, prices) -> dict:
    return evaluate(workspace, prices)


def days(path: Path) -> list[str]:
    return sorted(pd.read_csv(path)["date"].unique())


def test_every_window_of_the_bars_is_forecast(report, prices):
    # 34 sessions until the slowest indicator is there, then 9 more make a window of 10; the last session
    # has no return yet.
    sessions = days(prices)[33 + 9 : -1]
    assert (report["first_session"], report["last_session"]) == (sessions[0], sessions[-1])
    assert report["figures"]["champion"]["n_sessions"] == len(sessions)
    assert report["figures"]["champion"]["n_predictions"] == 12 * len(sessions)
    assert report["n_symbols"] == 12
    assert report["sessions_left_out"] == 0
    assert report["champion"]["kind"] == "by_hand"


def test_the_champions_figures_are_those_of_its_formula(report, prices):
    """The mean of a window is its volume's, but for 1e-3 of it: who trades more is said to rise more."""
    bars = pd.read_csv(prices)
    of_symbol = bars.groupby("symbol")
    bars["said"] = of_symbol["volume"].transform(lambda v: v.rolling(small.WINDOW).mean())
    bars["came"] = np.log(of_symbol["close"].shift(-1) / bars["close"])
    shown = bars[bars["date"].between(report["first_session"], report["last_session"])]
    ic = [spearmanr(of["said"], of["came"]).statistic for _, of in shown.groupby("date")]
    assert report["figures"]["champion"]["rank_ic_mean"] == pytest.approx(np.mean(ic), abs=0.003)


def test_reversal_is_minus_the_days_return_at_both_prices(report, prices):
    bars = pd.read_csv(prices)
    of_symbol = bars.groupby("symbol")
    bars["said"] = -(bars["close"] / of_symbol["close"].shift(1))
    bars["came"] = of_symbol["close"].shift(-1) / bars["close"]
    bars["came_open"] = of_symbol["open"].shift(-2) / of_symbol["open"].shift(-1)
    shown = bars[bars["date"].between(report["first_session"], report["last_session"])]
    for came, figure in (("came", "rank_ic_mean"), ("came_open", "rank_ic_mean_open")):
        by_day = [of for _, of in shown.dropna().groupby("date")]
        ic = np.mean([spearmanr(of["said"], of[came]).statistic for of in by_day])
        # The last session has no open to sell at; close to close it counts.
        last = shown[shown["date"] == report["last_session"]]
        if came == "came":
            ic = (ic * len(by_day) + spearmanr(last["said"], last[came]).statistic) / (len(by_day) + 1)
        assert report["figures"]["reversal"][figure] == pytest.approx(ic, abs=1e-9)


def test_what_needs_the_champions_own_rows_is_left_out_and_said(report):
    assert set(report["figures"]) == {"champion", "persistence", "reversal"}
    assert set(report["left_out"]) == BASELINES - {"persistence", "reversal"}
    assert all("fitted on are not at" in why for why in report["left_out"].values())
    assert set(report["paired"]) == {"persistence", "reversal"}
    assert set(report["figures"]["reversal"]) == set(FIGURES)


def test_baselines_are_fitted_on_the_champions_rows_where_they_are_here(tmp_path, prices):
    rows = small.dataset_rows(small.market(6, 200, seed=8))
    workspace = with_champion(tmp_path / "first", fitted_last_session="2013-12-31")
    same = sha256(workspace.dataset_rows)
    version = register(
        workspace, onnx_model(), contract(fitted_last_session="2013-12-31", rows_sha256=same)
    )
    make_champion(workspace, version)
    report = evaluate(workspace, prices)
    assert report["left_out"] == {}
    assert set(report["figures"]) == {"champion", *BASELINES}
    fitted = rows[rows["split"].isin(["train", "validation"])]["label"]
    bars = pd.read_csv(prices)
    came = np.log(bars.groupby("symbol")["close"].shift(-1) / bars["close"])
    shown = bars["date"].between(report["first_session"], report["last_session"])
    share = (fitted > 0).mean()
    expected = np.mean((share - (came[shown] > 0)) ** 2)
    assert report["figures"]["always_up"]["brier"] == pytest.approx(expected)


def test_sessions_that_the_champion_was_fitted_on_are_left_out(tmp_path, prices):
    workspace = with_champion(tmp_path / "run", fitted_last_session="2014-05-01")
    report = evaluate(workspace, prices)
    # The label of May 1 is known on the 2nd: what is forecast at its close is new.
    assert report["first_session"] == "2014-05-02"
    sessions = days(prices)[33 + 9 : -1]
    assert report["sessions_left_out"] == sessions.index("2014-05-02")


def test_bars_of_which_all_were_seen_are_refused(tmp_path, prices):
    workspace = with_champion(tmp_path / "run", fitted_last_session="2015-06-01")
    with pytest.raises(DataError, match=r"has not seen. It was fitted up to 2015-06-01"):
        evaluate(workspace, prices)


def test_years_before_the_fit_are_new_where_its_first_session_is_known():
    instants = pd.to_datetime(
        pd.Series(["2014-01-08", "2014-01-09", "2014-01-10", "2014-01-13", "2014-01-14", "2014-01-15"])
    ).dt.tz_localize("UTC") + pd.Timedelta(21, "h")
    fit = {"train_first_session": "2014-01-10", "fitted_last_session": "2014-01-13"}
    # The return from the 9th ends where the fit begins, that from the 14th begins where it ends.
    assert seen_by_fit(instants, fit, 1).tolist() == [False, False, True, True, False, False]
    assert seen_by_fit(instants, fit, 5).tolist() == [True] * 6
    del fit["train_first_session"]
    assert seen_by_fit(instants, fit, 1).tolist() == [True, True, True, True, False, False]


@pytest.mark.usefixtures("report")  # the first time it counts the trial in the ledger
def test_nothing_of_the_workspace_is_changed(workspace, prices):
    def files() -> dict[str, str]:
        """All but the registry's, which MLflow touches as it reads."""
        found = (path for path in workspace.root.rglob("*") if path.is_file())
        return {str(p): sha256(p) for p in found if "mlflow.db" not in p.name}

    before = files()
    evaluate(workspace, prices)
    assert files() == before


def test_the_document_is_all_that_is_on_stdout(workspace, prices, report, monkeypatch):
    monkeypatch.chdir(workspace.root)
    done = CliRunner().invoke(cli.app, ["evaluate", "--data", str(prices), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == report | {"data": str(prices)}


def test_the_table_names_every_forecast(workspace, prices, report, monkeypatch):
    monkeypatch.chdir(workspace.root)
    done = CliRunner().invoke(cli.app, ["evaluate", "--data", str(prices)])
    assert done.exit_code == 0
    shown = {row.split()[0]: row.split()[1:] for row in done.stdout.splitlines() if row.strip()}
    assert shown["reversal"][0] == f"{report['figures']['reversal']['rank_ic_mean']:+.4f}"
    assert shown["persistence"][0] == "-"
    assert re.search(r"rank IC less reversal's: [+-]0\.\d{4} \(95% ", done.stdout)
    assert "ridge is left out: " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_a_universe_decides_who_is_judged(tmp_path, workspace, prices):
    table = workspace.root / "universe/universe.csv"
    table.parent.mkdir()
    table.write_text(
        "symbol,from,to\nXS000,2010-01-04,\nXS001,2014-06-02,2014-07-01\nS000,2010-01-04,\n"
    )
    try:
        rows, _ = cleaned_rows(workspace, Workspace(tmp_path), prices, 10, 1)
    finally:
        shutil.rmtree(table.parent)
    judged = rows[rows["ends_window"]].groupby("symbol")["event_timestamp"].agg(["min", "max"])
    assert list(judged.index) == ["XS000", "XS001"]
    june = [f"{day:%Y-%m-%d}" for day in judged.loc["XS001"]]
    assert june == ["2014-06-02", "2014-06-30"]


def test_a_file_that_is_not_there_is_named(tmp_path):
    done = CliRunner().invoke(cli.app, ["evaluate", "--data", str(tmp_path / "no.csv")])
    assert isinstance(done.exception, DataError)
    assert "no.csv: there is no such file" in str(done.exception)


def test_a_workspace_without_a_champion_says_how_to_get_one(tmp_path, prices):
    workspace = small.make_workspace(tmp_path / "run", small.market(3, 120, seed=1))
    with pytest.raises(StoreError, match=r"has no champion yet. `pitwise run`"):
        evaluate(workspace, prices)
