"""The walk-forward: what it forecasts, what it may know, and that a kill costs one fit."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from support import small_runs as small
from support.markets import synthetic_params
from support.project import with_params

from pitwise.bars.schema import NUMBERS
from pitwise.errors import DataError, ParamsError
from pitwise.evaluation.figures import KEYS as FIGURES
from pitwise.evaluation.sessions import COLUMNS
from pitwise.simulation.market import synthetic_market
from pitwise.stage import load_params
from pitwise.workspace import Workspace, read_json, sha256, write_parquet
from training import walk_forward
from training.walk_forward import WalkForwardParams

pytestmark = pytest.mark.component

BASELINES = ["persistence", "drift", "always_up", "reversal", "ridge"]
SETTINGS = {
    "first_test": 0.6,
    "step": "half_year",
    "kinds": {},
    "seeds": 1,
    "embargo_sessions": 2,
    "bootstrap_samples": 200,
}

WITH_A_MODEL = {
    "first_test": "2014-11-03",
    "step": "quarter",
    "kinds": {"ann": "half_year"},
    "seeds": 2,
}


def workspace_of(folder: Path, bars: pd.DataFrame, **settings) -> Workspace:
    return small.make_workspace(folder, bars, walk_forward=SETTINGS | settings)


def with_trees(folder: Path, bars: pd.DataFrame) -> Workspace:
    workspace = workspace_of(folder, bars, kinds={"gradient_boosting": "half_year"})
    small.change_params(workspace, gradient_boosting={"inputs": "all", "rows_per_leaf": 100})
    return workspace


def made_market(signal: float, seed: int) -> pd.DataFrame:
    """Clean bars of 40 stocks, of which a planted predictor knows a part of the next return."""
    bars = synthetic_market(synthetic_params(sessions=600, signal=signal, seed=seed)).bars
    bars = bars.assign(price_factor=1.0, share_factor=1.0, segment=np.int32(0))
    return bars.sort_values(["symbol", "date"], ignore_index=True)


def forecasts(workspace: Workspace) -> pd.DataFrame:
    return pd.read_parquet(workspace.walk_forward_forecasts)


def written(workspace: Workspace) -> dict[str, int]:
    """When each finished fit was written, in nanoseconds, by its path below the folder."""
    folder = workspace.walk_forward_folds
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*.parquet")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Workspace:
    """Baselines every quarter, a small ANN every half-year with two seeds."""
    workspace = workspace_of(
        tmp_path_factory.mktemp("walk") / "run", small.market(12, 400, seed=3), **WITH_A_MODEL
    )
    small.change_params(workspace, train={"max_batches": 40, "batches_per_check": 20})
    walk_forward.main(workspace)
    return workspace


def test_every_window_after_the_start_is_forecast_once_by_every_fit(finished):
    table = forecasts(finished)
    assert list(table) == list(COLUMNS)
    rows = pd.read_parquet(finished.dataset_rows)
    rows = rows[rows["ends_window"] & rows["label"].notna()]
    expected = rows[rows["event_timestamp"] >= table["event_timestamp"].min()]
    seeds = {name: 2 if name == "ann" else 1 for name in ("ann", *BASELINES)}
    assert table.groupby("kind")["seed"].nunique().to_dict() == seeds
    for _, said in table.groupby(["kind", "seed"]):
        found = said.sort_values(["symbol", "event_timestamp"])
        for name in ("symbol", "event_timestamp", "label", "label_open"):
            np.testing.assert_array_equal(found[name], expected[name])


def test_folds_are_the_calendars_and_start_together(finished):
    table = forecasts(finished)
    starts = {
        kind: said.groupby("fold")["event_timestamp"].min().dt.strftime("%Y-%m-%d").tolist()
        for kind, said in table.groupby("kind")
    }
    quarters = ["2014-11-03", "2015-01-02", "2015-04-01", "2015-07-01"]
    assert {name: starts[name] for name in BASELINES} == dict.fromkeys(BASELINES, quarters)
    assert starts["ann"] == ["2014-11-03", "2015-01-02", "2015-07-01"]
    closes = table["event_timestamp"].min(), table["event_timestamp"].max()
    assert [f"{close:%Y-%m-%d %H:%M}" for close in closes] == ["2014-11-03 21:00", "2015-08-03 20:00"]


def test_the_report_has_every_figure_of_every_kind_and_their_differences(finished):
    report = read_json(finished.walk_forward_report)
    kinds = {"ann", *BASELINES}
    others = {"paired", "trials", "first_session", "last_session", "champion", "recipes", "horizon"}
    others |= {"confidence_set", "psr", "dsr", "expected_max_sharpe", "effective_trials", "survivorship"}
    others |= {"price_error_less_persistence"}
    assert set(report) == kinds | others
    assert set(report["recipes"]) == set(report["psr"]) == set(report["dsr"]) == kinds
    assert all(set(report[kind]) == set(FIGURES) for kind in kinds)
    assert {kind: set(of) for kind, of in report["paired"].items()} == {
        kind: set(BASELINES) - {kind} for kind in kinds
    }
    assert set(report["paired"]["ann"]["ridge"]) == {"difference", "t", "ci95"}
    errors = report["price_error_less_persistence"]
    assert set(errors) == kinds - {"persistence"}
    assert errors["ann"]["ci95"][0] <= errors["ann"]["difference"] <= errors["ann"]["ci95"][1]
    assert report["first_session"] == "2014-11-03"
    assert report["champion"] is None
    assert report["trials"] == 6


def test_figures_are_of_the_mean_of_the_seeds(finished):
    table = forecasts(finished)
    mean = (
        table[table["kind"] == "ann"]
        .groupby(["event_timestamp", "symbol"])[["score", "label"]]
        .mean()
        .groupby("event_timestamp")
    )
    ic = [spearmanr(of["score"], of["label"]).statistic for _, of in mean]
    report = read_json(finished.walk_forward_report)
    assert report["ann"]["rank_ic_mean"] == pytest.approx(np.mean(ic))
    assert report["ann"]["n_sessions"] == len(ic)


def test_a_finished_walk_forward_fits_nothing_again(finished, tmp_path):
    shutil.copytree(finished.root, tmp_path / "run")
    again = Workspace(tmp_path / "run")
    before, report = written(again), again.walk_forward_report.read_bytes()
    walk_forward.main(again)
    assert written(again) == before
    assert again.walk_forward_report.read_bytes() == report


@pytest.mark.parametrize(
    ("section", "changed", "anew"),
    [
        ("walk_forward", {"seeds": 3}, {"ann"}),
        ("walk_forward", {"bootstrap_seed": 1}, set()),
        ("engine", {"n_jobs": 3}, set()),
        ("walk_forward", {"embargo_sessions": 3}, {"ann", *BASELINES}),
        ("train", {"learning_rate": 0.1}, {"ann"}),
        ("ann", {"hidden": [4, 4]}, {"ann"}),
        ("lstm", {"dense": 4}, set()),
    ],
)
def test_only_what_a_change_affects_is_fitted_again(finished, tmp_path, section, changed, anew):
    shutil.copytree(finished.root, tmp_path / "run")
    workspace = Workspace(tmp_path / "run")
    small.change_params(workspace, **{section: changed})
    params = load_params(workspace, "walk_forward", WalkForwardParams)
    missing = [task for task in walk_forward.tasks(workspace, params) if not task.path.exists()]
    assert {task.recipe.kind for task in missing} == anew


def test_changing_the_future_moves_no_forecast_of_the_folds_before(tmp_path):
    """Selection, scaling, calibration, penalties, weights: each would move with what it has seen."""
    bars = small.market(8, 330, seed=4, momentum=0.5)
    settings = {"kinds": {"ann": "quarter"}, "step": "quarter"}
    whole = workspace_of(tmp_path / "whole", bars, **settings)
    other = tmp_path / "other"
    shutil.copytree(whole.root, other)
    first = pd.Timestamp("2015-01-01")
    later = bars["date"] >= first
    rng = np.random.default_rng(1)
    bars.loc[later, NUMBERS] *= rng.uniform(0.5, 2, (later.sum(), len(NUMBERS)))
    changed = Workspace(other)
    write_parquet(small.dataset_rows(bars), changed.dataset_rows)
    tables = []
    for workspace in (whole, changed):
        small.change_params(
            workspace,
            train={"max_batches": 20, "batches_per_check": 10},
            select={"method": "correlation", "n": 5},
        )
        small.change_params(workspace, walk_forward={"first_test": "2014-10-01"})
        walk_forward.main(workspace)
        tables.append(forecasts(workspace)[["kind", "symbol", "event_timestamp", "score", "p_up"]])
    before, after = tables
    past = [t[t["event_timestamp"] < pd.Timestamp(first, tz="UTC")] for t in tables]
    pd.testing.assert_frame_equal(*past)
    assert len(past[0]) > 0.3 * len(before)
    future = [t[t["event_timestamp"] > pd.Timestamp("2015-01-05", tz="UTC")] for t in (before, after)]
    both = future[0].merge(future[1], on=["kind", "symbol", "event_timestamp"])
    fitted = both[both["kind"].isin(["ridge", "ann"])]
    assert (fitted["score_x"] != fitted["score_y"]).mean() > 0.9


def test_no_kind_finds_anything_where_nothing_is(tmp_path):
    workspace = with_trees(tmp_path / "run", made_market(signal=0.0, seed=5))
    walk_forward.main(workspace)
    report = read_json(workspace.walk_forward_report)
    for kind in ("reversal", "ridge", "gradient_boosting"):
        assert abs(report[kind]["rank_ic_t"]) < 3, kind
        assert abs(report[kind]["rank_ic_t_open"]) < 3, kind
        assert report[kind]["brier"] > 0.24
    for kind in ("persistence", "always_up", "drift"):
        assert report[kind]["rank_ic_mean"] is None


def test_trees_find_a_planted_signal_of_the_size_it_has(tmp_path):
    """The predictor is minus the sign of the return over five sessions, see `SyntheticParams.signal`.

    Who knows it all says one of two numbers. A score that tells all symbols apart can say no more than
    which half each is in, and ranks within a half add noise: the correlation of a half with uniform
    ranks is sqrt(3) / 2, and so much of the predictor's rank IC is there to be found.
    """
    bars = made_market(signal=0.2, seed=5)
    workspace = with_trees(tmp_path / "run", bars)
    walk_forward.main(workspace)
    report = read_json(workspace.walk_forward_report)

    close = np.log(bars["close"])
    of_symbol = bars["symbol"]
    known = -np.sign(close - close.groupby(of_symbol).shift(5))
    came = close.groupby(of_symbol).shift(-1) - close
    table = pd.DataFrame({"day": bars["date"], "known": known, "came": came}).dropna()
    table = table[table["day"] >= pd.Timestamp(report["first_session"])]
    by_day = [of for _, of in table.groupby("day") if of["known"].nunique() > 1]
    ic = [spearmanr(of["known"], of["came"]).statistic for of in by_day]
    possible = np.mean(ic) * np.sqrt(3) / 2
    assert 0.1 < possible < 0.4
    found = report["gradient_boosting"]
    assert 0.75 * possible < found["rank_ic_mean"] < 1.1 * possible
    assert found["rank_ic_t"] > 5
    assert found["decile_spread_t"] > 3
    assert report["paired"]["gradient_boosting"]["reversal"]["ci95"][0] > 0


KILLED_IN_THE_SIXTH_FIT = """
import itertools, os, signal
from pitwise.workspace import Workspace
from training import walk_forward

fit, fits = walk_forward.forecast_fold, itertools.count(1)

def killed(*arguments):
    if next(fits) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return fit(*arguments)

walk_forward.forecast_fold = killed
walk_forward.main(Workspace("."))
"""


def test_a_kill_in_the_middle_costs_the_fit_that_was_running(finished, tmp_path):
    """Of the baselines, whose process starts without torch: to what is fitted a kill is the same."""
    shutil.copytree(finished.root, tmp_path / "run")
    workspace = Workspace(tmp_path / "run")
    workspace.walk_forward_forecasts.unlink()
    workspace.walk_forward_report.unlink()
    for name in BASELINES:
        shutil.rmtree(workspace.walk_forward_folds / name)
    models = written(workspace)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED_IN_THE_SIXTH_FIT],
        cwd=workspace.root,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(small.PROJECT)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    before = written(workspace)
    assert len(before) == len(models) + 5 < len(written(finished))
    assert not workspace.walk_forward_report.exists()
    walk_forward.main(workspace)
    after = written(workspace)
    assert {name: after[name] for name in before} == before
    assert sha256(workspace.walk_forward_forecasts) == sha256(finished.walk_forward_forecasts)
    assert workspace.walk_forward_report.read_bytes() == finished.walk_forward_report.read_bytes()


def test_fits_in_other_processes_say_the_same(finished, tmp_path):
    shutil.copytree(finished.root, tmp_path / "run")
    workspace = Workspace(tmp_path / "run")
    for name in list(written(workspace))[::2]:  # some fits of every kind
        (workspace.walk_forward_folds / name).unlink()
    small.change_params(workspace, engine={"n_jobs": 2})
    walk_forward.main(workspace)
    assert sha256(workspace.walk_forward_forecasts) == sha256(finished.walk_forward_forecasts)


def test_the_ensemble_is_made_of_its_members_forecasts_fold_by_fold(tmp_path, monkeypatch):
    """Members that are made up, of folds of a quarter and of a half-year; each knows labels somewhat."""
    kinds = {"gradient_boosting": "quarter", "ann": "half_year", "lstm": "half_year"}
    workspace = workspace_of(tmp_path / "run", small.market(10, 330, seed=3), kinds=kinds, seeds=2)
    rows = pd.read_parquet(workspace.dataset_rows)

    def made_up(root, recipe, fold, seed):
        held = fold.held_out(0.15, 2, 1)[1]
        rng = np.random.default_rng([seed, fold.number, len(recipe.kind)])
        parts = []
        for split, sessions in (("validation", held), ("test", fold.test)):
            said = rows[rows["ends_window"] & rows["label"].notna()]
            said = said[said["event_timestamp"].isin(sessions)]
            score = said["label"] * len(recipe.kind) * (1 + fold.number) + rng.normal(0, 0.1, len(said))
            parts.append(said[["symbol", "event_timestamp"]].assign(score=score, split=split))
        return pd.concat(parts).assign(log_return=lambda t: 0.01 * t["score"], p_up=0.5, scale=0.02)

    monkeypatch.setattr(walk_forward, "baselines", lambda horizon: {"persistence": None})
    monkeypatch.setattr(walk_forward, "forecast_fold", made_up)
    walk_forward.main(workspace)
    table = forecasts(workspace)
    own = table[table["kind"] == "ensemble"]
    assert len(own) == (table["kind"] == "lstm").sum()
    fold_starts = {k: t.groupby("fold")["event_timestamp"].min() for k, t in table.groupby("kind")}
    pd.testing.assert_series_equal(fold_starts["ensemble"], fold_starts["gradient_boosting"])
    # In each fold and seed a linear function of the members' scores of the same seed.
    keys = ["symbol", "event_timestamp", "seed"]
    scores = table[table["kind"].isin(kinds)].pivot(index=keys, columns="kind", values="score")
    for _, part in own.groupby(["fold", "seed"]):
        x = scores.loc[pd.MultiIndex.from_frame(part[keys])].to_numpy()
        x = np.column_stack([x, np.ones(len(x))])
        fitted, *_ = np.linalg.lstsq(x, part["score"].to_numpy(), rcond=None)
        np.testing.assert_allclose(x @ fitted, part["score"], atol=1e-9)
        assert (fitted[:-1] > 0).all()
    report = read_json(workspace.walk_forward_report)
    assert len({report["recipes"][kind] for kind in ("ensemble", *kinds)}) == 4


def test_too_little_data_is_refused_with_what_to_do(tmp_path):
    workspace = workspace_of(tmp_path / "run", small.market(3, 150, seed=1), first_test="2014-03-01")
    with pytest.raises(DataError, match=r"too few.*walk_forward\.first_test|later first test date"):
        walk_forward.main(workspace)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("first_test", 1.5),
        ("first_test", "soon"),
        ("step", "week"),
        ("kinds", {"forest": "quarter"}),
        ("seeds", 0),
        ("embargo_sessions", -1),
        ("folds", 3),
    ],
)
def test_impossible_settings_are_refused_by_name(tmp_path, key, value):
    settings = {**SETTINGS, "validation_fraction": 0.15, "bootstrap_seed": 7, key: value}
    workspace = with_params(tmp_path, walk_forward=settings)
    with pytest.raises(ParamsError, match=rf"walk_forward\.{key}"):
        load_params(workspace, "walk_forward", WalkForwardParams)


@pytest.mark.parametrize("first", ["2016-01-04", 0.5])
def test_the_start_is_a_day_or_a_share(tmp_path, first):
    settings = {**SETTINGS, "validation_fraction": 0.15, "bootstrap_seed": 7, "first_test": first}
    params = load_params(with_params(tmp_path, walk_forward=settings), "walk_forward", WalkForwardParams)
    assert str(params.first_test) == str(first)


def test_it_starts_without_torch():
    code = (
        "import sys, training.walk_forward, training.unseen, training.cli; print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=os.environ | {"PYTHONPATH": str(small.PROJECT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
