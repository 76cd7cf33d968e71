"""Fit, evaluate and register small models in a registry of their own, three runs in a row."""

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import yaml

from feature_repo.artifacts import read_json, read_parquet, sha256
from feature_repo.model import (
    CHAMPION_HISTORY,
    load_registered,
    open_onnx,
    registered_version,
    run_onnx_over,
)
from tests import models_for_tests as small
from training import evaluate, register, train

KINDS = ("ann", "lstm")


@dataclass
class Run:
    """What one run of the stages left in the registry."""

    evaluation: dict
    training: dict[str, dict]
    report: dict
    versions: int
    champion: str
    challenger: str


@dataclass
class Workspace:
    folder: Path
    client: object
    runs: dict[str, Run]


def fit_and_evaluate(patch: pytest.MonkeyPatch, kinds=KINDS, **settings) -> None:
    small.change_params(Path(), "train", **settings)
    for kind in kinds:
        patch.setattr(sys, "argv", ["train", kind])
        train.main()
    evaluate.main()


def registered(client) -> Run:
    register.main()
    return Run(
        read_json(Path("metrics/evaluation.json")),
        {kind: read_json(Path("models") / kind / "training.json") for kind in KINDS},
        read_json(Path("metrics/registration.json")),
        len(client.search_model_versions("name='pitwise'")),
        str(client.get_model_version_by_alias("pitwise", "champion").version),
        str(client.get_model_version_by_alias("pitwise", "challenger").version),
    )


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A fair first run, the same again, and the champion's kind fitted worse and better."""
    import mlflow

    folder = tmp_path_factory.mktemp("registry")
    small.make_workspace(folder, small.market(12, 300, seed=10, momentum=0.5))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        client = mlflow.MlflowClient()
        runs = {}
        fit_and_evaluate(patch, max_batches=40, batches_per_check=20)
        runs["first"] = registered(client)
        runs["again"] = registered(client)
        refitted = [runs["first"].report["champion_kind"]]
        fit_and_evaluate(patch, refitted, max_batches=1, batches_per_check=1)
        runs["worse"] = registered(client)
        fit_and_evaluate(patch, refitted, max_batches=400, batches_per_check=40)
        runs["better"] = registered(client)
        yield Workspace(folder, client, runs)


def skills(run: Run) -> dict[str, float]:
    return {kind: run.evaluation[kind]["skill_vs_persistence"] for kind in KINDS}


def version_of_kind(workspace: Workspace, kind: str, run: str = "first"):
    wanted = workspace.runs[run].training[kind]["onnx_sha256"]
    versions = workspace.client.search_model_versions("name='pitwise'")
    (found,) = [v for v in versions if v.tags["onnx_sha256"] == wanted]
    return found


def mlmodel(workspace: Workspace, kind: str) -> dict:
    import mlflow

    version = version_of_kind(workspace, kind).version
    return yaml.safe_load(
        Path(mlflow.artifacts.download_artifacts(f"models:/pitwise/{version}/MLmodel")).read_text()
    )


def test_the_better_of_the_first_run_is_champion_and_the_other_challenger(workspace):
    run = workspace.runs["first"]
    best = max(KINDS, key=skills(run).get)
    assert run.versions == 2
    assert run.champion == str(version_of_kind(workspace, best).version)
    assert {run.champion, run.challenger} == {"1", "2"}
    assert run.report["champion"] == run.champion
    assert run.report["champion_kind"] == best
    assert run.report["promoted"]
    assert "first champion" in " ".join(run.report["reasons"])


def test_a_rerun_registers_nothing_new(workspace):
    first, again = workspace.runs["first"], workspace.runs["again"]
    assert (again.versions, again.champion, again.challenger) == (2, first.champion, first.challenger)
    assert not again.report["promoted"]
    assert "stays champion" in " ".join(again.report["reasons"])


@pytest.mark.parametrize("run", ["first", "again", "worse", "better"])
def test_the_report_names_the_versions_of_the_aliases(workspace, run):
    of_run = workspace.runs[run]
    reported = (of_run.report["champion"], of_run.report["challenger"])
    assert reported == (of_run.champion, of_run.challenger)


def test_the_gate_notes_why_each_champion_took_office(workspace):
    model = workspace.client.get_registered_model("pitwise")
    terms = json.loads(model.tags[CHAMPION_HISTORY])
    first, better = workspace.runs["first"], workspace.runs["better"]
    assert [term["version"] for term in terms] == list(dict.fromkeys([first.champion, better.champion]))
    assert {term["by"] for term in terms} == {"gate"}
    assert terms[0]["reason"] == first.report["reasons"][0]
    newest = workspace.client.get_model_version("pitwise", better.champion)
    assert newest.tags["gate"] == terms[-1]["reason"]


def test_a_worse_model_does_not_take_the_office(workspace):
    first, worse = workspace.runs["first"], workspace.runs["worse"]
    kind = first.report["champion_kind"]
    assert skills(worse)[kind] < skills(first)[kind]
    assert worse.versions == 3
    assert worse.champion == first.champion
    assert not worse.report["promoted"]
    assert f"refused: does not beat champion version {first.champion}" in " ".join(
        worse.report["reasons"]
    )


def test_a_better_model_takes_the_office_and_the_old_champion_challenges(workspace):
    first, better = workspace.runs["first"], workspace.runs["better"]
    kind = first.report["champion_kind"]
    assert skills(better)[kind] > skills(first)[kind]
    assert better.versions == 4
    assert (better.champion, better.challenger) == ("4", first.champion)
    assert better.report["promoted"]
    assert f"beats champion version {first.champion}" in " ".join(better.report["reasons"])


def test_a_champion_of_an_earlier_run_is_measured_on_the_same_dates(workspace):
    run = workspace.runs["first"]
    rows = read_parquet(workspace.folder / "data/dataset/rows.parquet")
    version = workspace.client.get_model_version("pitwise", run.champion)
    measured = register.measured_again(load_registered("pitwise", version), rows)
    assert (measured.version, measured.kind) == (run.champion, run.report["champion_kind"])
    assert measured.figures == run.evaluation[measured.kind]
    assert measured.onnx_parity == run.training[measured.kind]["onnx_parity"]
    assert measured.fitted_last_session == run.training[measured.kind]["fitted_last_session"]
    assert measured.n_predictions == run.evaluation["n_predictions"]


def test_a_champion_with_a_longer_window_than_the_rows_keeps_defined_figures(workspace):
    """A stock listed within the test dates ends short windows before it ends the champion's."""
    bars = small.market(12, 300, seed=10, momentum=0.5)
    days = bars["date"].unique()
    listed = (bars["symbol"] != "S003") | (bars["date"] >= days[250])
    rows = small.dataset_rows(bars[listed].reset_index(drop=True), window=3)
    champion = load_registered("pitwise", version_of_kind(workspace, "ann"))
    assert champion.window == small.WINDOW > 3
    assert np.isfinite(register.measured_again(champion, rows).figures["skill_vs_persistence"])


def test_a_champion_whose_window_no_test_row_fills_has_no_figure(workspace):
    rows = read_parquet(workspace.folder / "data/dataset/rows.parquet")
    champion = load_registered("pitwise", version_of_kind(workspace, "ann"))
    measured = register.measured_again(replace(champion, window=400), rows)
    assert measured.figures["skill_vs_persistence"] is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_version_says_what_goes_in_and_out(workspace, kind):
    signature = mlmodel(workspace, kind)["signature"]
    shape = f'"shape": [-1, {small.WINDOW}, {len(small.FEATURES)}]'
    assert '"name": "windows"' in signature["inputs"]
    assert shape in signature["inputs"]
    assert '"name": "log_return"' in signature["outputs"]
    assert '"name": "p_up"' in signature["outputs"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_version_carries_its_contract(workspace, kind):
    training = workspace.runs["first"].training[kind]
    contract = mlmodel(workspace, kind)["metadata"]
    assert contract["kind"] == kind
    assert contract["features"] == list(small.FEATURES)
    assert contract["window"] == small.WINDOW
    assert contract["rows_sha256"] == sha256(workspace.folder / "data/dataset/rows.parquet")
    assert contract["code_version"] == "unknown"  # the workspace is no git repository
    for key in ("onnx_sha256", "onnx_parity", "fitted_last_session"):
        assert contract[key] == training[key]
        assert version_of_kind(workspace, kind).tags[key] == str(training[key])
    assert contract["onnx_parity"] < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_the_run_of_a_version_has_its_params_metrics_curve_and_files(workspace, kind):
    run = workspace.client.get_run(version_of_kind(workspace, kind).run_id)
    first = workspace.runs["first"]
    assert run.data.params["learning_rate"] == "0.005"
    assert run.data.params["hidden"] == str(list(small.BODIES[kind].hidden))
    assert run.data.params["features"] == ",".join(small.FEATURES)
    assert run.data.params["window"] == str(small.WINDOW)
    for who in (kind, "persistence", "drift", "gradient_boosting"):
        assert run.data.metrics[f"{who}.mape"] == first.evaluation[who]["mape"]
    assert run.data.metrics["always_up.brier"] == first.evaluation["always_up"]["brier"]
    curve = workspace.client.get_metric_history(run.info.run_id, "validation_loss")
    assert sorted(point.step for point in curve) == [20, 40]
    assert min(point.value for point in curve) == first.training[kind]["best_validation_loss"]
    assert {f.path for f in workspace.client.list_artifacts(run.info.run_id)} >= {
        "evaluation.json",
        "plots",
    }
    assert len(workspace.client.list_artifacts(run.info.run_id, "plots")) == 5


def test_a_registered_model_says_what_the_exported_file_says(workspace):
    rows = read_parquet(workspace.folder / "data/dataset/rows.parquet")
    ends = np.flatnonzero(rows["split"] == "test")
    values = rows[list(small.FEATURES)].to_numpy("float32")
    newest = registered_version(workspace.client, "pitwise", "champion")
    loaded = load_registered("pitwise", newest)
    assert loaded.features == small.FEATURES
    assert loaded.window == small.WINDOW
    exported = open_onnx(workspace.folder / "models" / loaded.kind / "model.onnx")
    theirs = run_onnx_over(exported, values, ends, small.WINDOW)
    ours = run_onnx_over(loaded.session, values, ends, small.WINDOW)
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def test_an_alias_nobody_set_points_to_nothing(workspace):
    assert registered_version(workspace.client, "pitwise", "nobody") is None
    assert registered_version(workspace.client, "no_such_model", "champion") is None


def test_evaluation_stands_beside_its_baselines_on_the_same_dates(workspace):
    report = workspace.runs["better"].evaluation
    rows = read_parquet(workspace.folder / "data/dataset/rows.parquet")
    test = rows[rows["split"] == "test"]
    models = {"ann", "lstm", "persistence", "drift", "always_up", "gradient_boosting"}
    counts = {"n_predictions", "n_symbols", "n_sessions", "first_session", "last_session"}
    assert set(report) == models | counts
    assert {tuple(report[name]) for name in models} == {tuple(report["ann"])}
    assert report["n_predictions"] == len(test)
    assert report["n_symbols"] == 12
    assert report["n_sessions"] == test["event_timestamp"].nunique()
    assert report["first_session"] == f"{test['event_timestamp'].min():%Y-%m-%d}"
    assert report["last_session"] == f"{test['event_timestamp'].max():%Y-%m-%d}"


def test_evaluation_keeps_its_predictions_and_plots(workspace):
    answers = read_parquet(workspace.folder / "data/evaluation/predictions.parquet")
    report = workspace.runs["better"].evaluation
    price = answers["close"] * np.exp(answers["lstm_log_return"])
    mape = ((price - answers["next_close"]).abs() / answers["next_close"]).mean() * 100
    assert mape == pytest.approx(report["lstm"]["mape"])
    accuracy = ((answers["ann_p_up"] > 0.5) == (answers["label"] > 0)).mean()
    assert accuracy == pytest.approx(report["ann"]["direction_accuracy"])
    plots = sorted(f.name for f in (workspace.folder / "reports/plots").iterdir())
    assert plots == [
        "calibration.png",
        "cumulative_rank_ic.png",
        "learning_curves.png",
        "per_symbol_error.png",
        "predicted_vs_actual.png",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_training_says_what_it_fitted(workspace, kind):
    training = workspace.runs["better"].training[kind]
    folder = workspace.folder / "models" / kind
    rows = read_parquet(workspace.folder / "data/dataset/rows.parquet")
    curve = pd.read_csv(folder / "learning_curve.csv")
    best = curve.loc[curve["validation_loss"].idxmin()]
    assert training["onnx_sha256"] == sha256(folder / "model.onnx")
    assert training["rows_sha256"] == sha256(workspace.folder / "data/dataset/rows.parquet")
    assert training["train_windows"] == (rows["split"] == "train").sum()
    assert training["validation_windows"] == (rows["split"] == "validation").sum()
    assert training["best_validation_loss"] == pytest.approx(best["validation_loss"])
    assert training["best_after_batches"] == best["batches"]
    weights = onnx.load(folder / "model.onnx").graph.initializer
    assert sum(np.prod(w.dims) for w in weights) >= training["parameters"]


def git(folder: Path, *command: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    done = subprocess.run(
        ["git", *identity, *command], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_code_version_is_the_commit_and_says_where_files_differ(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert register.code_version() == "unknown"
    git(tmp_path, "init", "--quiet")
    (tmp_path / "code.py").write_text("one")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "--quiet", "-m", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert register.code_version() == commit
    (tmp_path / "code.py").write_text("two")
    assert register.code_version() == f"{commit}-dirty"
