"""Fit, evaluate and register small models in a registry of their own, four runs in a row."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
import yaml
from scipy.stats import logistic
from support import models_by_hand
from support import small_runs as small
from support.once import once
from support.project import PROJECT

from pitwise.features.indicators import NAMES
from pitwise.features.served import ServedWindows
from pitwise.registry.champion import CHAMPION_HISTORY, registered_version, registry_client
from pitwise.registry.contract import open_onnx, run_onnx_over
from pitwise.registry.findings import Finding, describe
from pitwise.registry.model import RegistryParams, load_registered
from pitwise.registry.versions import card
from pitwise.stage import load_params
from pitwise.workspace import Workspace, read_json, read_parquet, sha256, write_json
from training import CANDIDATES, ENSEMBLE, KINDS, ensemble, evaluate, register, train
from training.card import LONGEST
from training.card import card as card_of
from training.gate import Decision

pytestmark = pytest.mark.component


@dataclass
class Run:
    """What one run of the stages left in the registry."""

    evaluation: dict
    training: dict[str, dict]
    report: dict
    versions: int
    champion: str
    challenger: str

    @property
    def findings(self) -> list[str]:
        return [describe(Finding(**finding)) for finding in self.report["findings"]]


@dataclass
class Registered:
    workspace: Workspace
    client: Any
    runs: dict[str, Run]


def client_of(workspace: Workspace) -> Any:
    return registry_client(workspace, load_params(workspace, "registry", RegistryParams))


def fit_and_evaluate(workspace: Workspace, kinds=KINDS, **settings) -> None:
    small.change_params(workspace, train=settings)
    for kind in kinds:
        train.main(workspace, kind)
    if kinds == KINDS:
        ensemble.main(workspace)
    evaluate.main(workspace)


def registered(workspace: Workspace) -> Run:
    register.main(workspace)
    client = client_of(workspace)
    return Run(
        read_json(workspace.evaluation_report),
        {kind: read_json(workspace.models / kind / "training.json") for kind in CANDIDATES},
        read_json(workspace.registration_report),
        len(client.search_model_versions("name='pitwise'")),
        str(client.get_model_version_by_alias("pitwise", "champion").version),
        str(client.get_model_version_by_alias("pitwise", "challenger").version),
    )


def run_four_times(folder: Path) -> None:
    """A first run, the same again, and the champion's kind by another recipe and with another seed."""
    workspace = small.make_workspace(folder, small.market(12, 300, seed=10, momentum=0.5))
    # Few stocks' rank IC is wide: with the margin of every day no refit could be told from a worse one.
    small.change_params(workspace, register={"min_sessions": 20, "margin": 0.5})
    runs = {}
    fit_and_evaluate(workspace, max_batches=40, batches_per_check=20)
    runs["first"] = registered(workspace)
    runs["again"] = registered(workspace)
    refitted = [runs["first"].report["champion_kind"]]
    small.change_params(workspace, gradient_boosting={"iterations": 30})
    fit_and_evaluate(workspace, refitted, max_batches=20)
    runs["other"] = registered(workspace)
    small.change_params(workspace, gradient_boosting={"iterations": 40})
    fit_and_evaluate(workspace, refitted, max_batches=40, seed=2)
    runs["refit"] = registered(workspace)
    write_json({name: asdict(run) for name, run in runs.items()}, folder / "runs.json")


@pytest.fixture
def four_runs(tmp_path_factory) -> Registered:
    """See `run_four_times`; MLflow is set to their registry."""
    workspace = Workspace(once(tmp_path_factory, "four_runs", run_four_times))
    runs = {name: Run(**run) for name, run in read_json(workspace.root / "runs.json").items()}
    return Registered(workspace, client_of(workspace), runs)


def version_of_kind(of: Registered, kind: str, run: str = "first"):
    wanted = of.runs[run].training[kind]["onnx_sha256"]
    versions = of.client.search_model_versions("name='pitwise'")
    (found,) = [v for v in versions if v.tags["onnx_sha256"] == wanted]
    return found


def mlmodel(of: Registered, kind: str) -> dict:
    import mlflow

    version = version_of_kind(of, kind).version
    return yaml.safe_load(
        Path(mlflow.artifacts.download_artifacts(f"models:/pitwise/{version}/MLmodel")).read_text()
    )


def test_the_first_champion_has_the_least_validation_loss_and_is_marked_unproven(four_runs):
    run = four_runs.runs["first"]
    best = min(CANDIDATES, key=lambda kind: run.training[kind]["best_validation_loss"])
    assert run.versions == len(CANDIDATES)
    assert run.champion == str(version_of_kind(four_runs, best).version)
    assert run.champion != run.challenger
    assert run.report["champion"] == run.champion
    assert run.report["champion_kind"] == best
    assert run.report["promoted"]
    assert run.report["unproven"]
    assert "becomes the first champion" in run.findings[0]
    assert version_of_kind(four_runs, best).tags["unproven"] == "true"
    lines = (four_runs.workspace.root / "ledger/promotions.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["unproven"] is True


def test_a_rerun_registers_nothing_new(four_runs):
    first, again = four_runs.runs["first"], four_runs.runs["again"]
    assert (again.champion, again.challenger) == (first.champion, first.challenger)
    assert again.versions == first.versions
    assert not again.report["promoted"]
    assert "stays champion" in " ".join(again.findings)


@pytest.mark.parametrize("run", ["first", "again", "other", "refit"])
def test_the_report_names_the_versions_of_the_aliases(four_runs, run):
    of_run = four_runs.runs[run]
    reported = (of_run.report["champion"], of_run.report["challenger"])
    assert reported == (of_run.champion, of_run.challenger)


def test_the_history_has_the_finding_that_made_each_champion(four_runs):
    model = four_runs.client.get_registered_model("pitwise")
    history = json.loads(model.tags[CHAMPION_HISTORY])
    first, refit = four_runs.runs["first"], four_runs.runs["refit"]
    assert [entry["version"] for entry in history] == [first.champion, refit.champion]
    assert {entry["by"] for entry in history} == {"gate"}
    assert history[0]["reason"] == first.findings[0]
    newest = four_runs.client.get_model_version("pitwise", refit.champion)
    assert newest.tags["gate"] == history[-1]["reason"]


def test_another_recipe_without_a_walk_forward_does_not_become_champion(four_runs):
    first, other = four_runs.runs["first"], four_runs.runs["other"]
    assert (other.versions, other.champion) == (first.versions + 1, first.champion)
    assert not other.report["promoted"]
    (of_it,) = [finding for finding in other.findings if f"version {other.versions}" in finding]
    assert "the walk-forward has no forecasts of its recipe" in of_it


def test_another_seed_is_a_refit_of_the_same_recipe_and_takes_over(four_runs):
    first, refit = four_runs.runs["first"], four_runs.runs["refit"]
    kind = first.report["champion_kind"]
    assert refit.training[kind]["recipe"] == first.training[kind]["recipe"]
    assert refit.versions == first.versions + 2
    assert (refit.champion, refit.challenger) == (str(refit.versions), first.champion)
    assert refit.report["promoted"]
    assert refit.report["unproven"]


def served(of: Registered) -> pd.DataFrame:
    return read_parquet(of.workspace.served_rows)


def test_a_version_has_its_rank_ic_of_every_test_session(four_runs):
    rows = read_parquet(four_runs.workspace.dataset_rows)
    champion = load_registered("pitwise", version_of_kind(four_runs, "ann"))

    def found(window: int) -> pd.Series:
        return register.rank_ic_on_test(
            champion.session, champion.features, window, rows, served(four_runs)
        )

    days = rows.loc[rows["split"] == "test", "event_timestamp"].dt.strftime("%Y-%m-%d").unique()
    rank_ic = found(champion.window)
    assert sorted(days) == [f"{day:%Y-%m-%d}" for day in rank_ic.index]
    evaluation = four_runs.runs["first"].evaluation["ann"]
    assert rank_ic.mean() == pytest.approx(evaluation["rank_ic_mean"])
    assert found(400).empty  # a window that no test row fills


@pytest.mark.parametrize("kind", CANDIDATES)
def test_the_signature_of_a_version_names_what_goes_in_and_out(four_runs, kind):
    signature = mlmodel(four_runs, kind)["signature"]
    shape = f'"shape": [-1, {small.WINDOW}, {len(small.FEATURES)}]'
    assert '"name": "windows"' in signature["inputs"]
    assert shape in signature["inputs"]
    assert '"name": "log_return"' in signature["outputs"]
    assert '"name": "p_up"' in signature["outputs"]


@pytest.mark.parametrize("kind", CANDIDATES)
def test_a_version_carries_its_contract(four_runs, kind):
    training = four_runs.runs["first"].training[kind]
    contract = mlmodel(four_runs, kind)["metadata"]
    assert contract["kind"] == kind
    assert contract["features"] == list(small.FEATURES)
    assert contract["window"] == small.WINDOW
    assert contract["rows_sha256"] == sha256(four_runs.workspace.dataset_rows)
    assert contract["code_version"] == "unknown"  # the workspace is no git repository
    for key in ("onnx_sha256", "onnx_parity", "fitted_last_session"):
        assert contract[key] == training[key]
        assert version_of_kind(four_runs, kind).tags[key] == str(training[key])
    assert contract["onnx_parity"] < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_the_run_of_a_version_has_its_params_metrics_curve_and_files(four_runs, kind):
    run = four_runs.client.get_run(version_of_kind(four_runs, kind).run_id)
    first = four_runs.runs["first"]
    for name, value in small.BODIES[kind].model_dump(mode="json", exclude={"seed"}).items():
        assert run.data.params[name] == str(value)
    assert run.data.params["features"] == ",".join(small.FEATURES)
    assert run.data.params["window"] == str(small.WINDOW)
    for who in (kind, "persistence", "drift"):
        assert run.data.metrics[f"{who}.mape"] == first.evaluation[who]["mape"]
    assert run.data.metrics["always_up.brier"] == first.evaluation["always_up"]["brier"]
    curve = four_runs.client.get_metric_history(run.info.run_id, "validation_loss")
    trees = small.BODIES["gradient_boosting"].iterations
    steps = range(1, trees + 1) if kind == "gradient_boosting" else (20, 40)
    assert sorted(point.step for point in curve) == list(steps)
    assert {f.path for f in four_runs.client.list_artifacts(run.info.run_id)} >= {
        "evaluation.json",
        "plots",
    }
    assert len(four_runs.client.list_artifacts(run.info.run_id, "plots")) == 5


def test_a_registered_model_answers_as_the_exported_file_does(four_runs):
    rows = read_parquet(four_runs.workspace.dataset_rows)
    ends = np.flatnonzero(rows["split"] == "test")
    windows = ServedWindows(rows, served(four_runs), small.FEATURES)
    newest = registered_version(four_runs.client, "pitwise", "champion")
    loaded = load_registered("pitwise", newest)
    assert loaded.features == small.FEATURES
    assert loaded.window == small.WINDOW
    exported = open_onnx(four_runs.workspace.models / loaded.kind / "model.onnx")
    expected = run_onnx_over(exported, windows, ends, small.WINDOW)
    ours = run_onnx_over(loaded.session, windows, ends, small.WINDOW)
    assert all((ours[name] == expected[name]).all() for name in expected)


def float64_windows(of: Registered, n: int = 3) -> np.ndarray:
    """The last test windows, in the type that JSON and pandas give."""
    rows = read_parquet(of.workspace.dataset_rows)
    windows = ServedWindows(rows, served(of), small.FEATURES)
    ends = np.flatnonzero(rows["split"] == "test")[-n:]
    return windows.gather(ends, small.WINDOW).astype("float64")


@pytest.mark.parametrize("kind", ["lstm", ENSEMBLE])
def test_mlflows_own_model_takes_float64_windows(four_runs, kind):
    import mlflow

    version = version_of_kind(four_runs, kind).version
    loaded = mlflow.pyfunc.load_model(f"models:/pitwise/{version}")
    windows = float64_windows(four_runs)
    exported = mlflow.artifacts.download_artifacts(f"models:/pitwise/{version}/model.onnx")
    expected = open_onnx(Path(exported)).run(
        ["log_return", "p_up"], {"windows": windows.astype("float32")}
    )
    for form in (windows, {"windows": windows}):
        found = loaded.predict(form)
        np.testing.assert_allclose(found["log_return"], expected[0], atol=1e-6)
        np.testing.assert_allclose(found["p_up"], expected[1], atol=1e-6)


def answered_by_mlflow(version: str, body: str) -> dict:
    """What `mlflow models serve` answers."""
    import mlflow
    from fastapi.testclient import TestClient
    from mlflow.pyfunc import scoring_server

    client = TestClient(scoring_server.init(mlflow.pyfunc.load_model(f"models:/pitwise/{version}")))
    response = client.post("/invocations", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 200, response.text
    return response.json()["predictions"]


@pytest.mark.parametrize("kind", ["lstm", ENSEMBLE])
def test_the_example_of_a_version_is_answered_by_mlflows_server(four_runs, kind):
    import mlflow

    version = version_of_kind(four_runs, kind).version
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/pitwise/{version}"))
    answer = answered_by_mlflow(version, (folder / "serving_input_example.json").read_text())
    example = np.array(json.loads((folder / "input_example.json").read_text())["windows"])
    assert example.shape == (2, small.WINDOW, len(small.FEATURES))
    windows = {"windows": example.astype("float32")}
    expected = open_onnx(folder / "model.onnx").run(["log_return", "p_up"], windows)
    np.testing.assert_allclose(answer["log_return"], expected[0], atol=1e-6)
    np.testing.assert_allclose(answer["p_up"], expected[1], atol=1e-6)


KILLED = """
import sys, time
import mlflow
from training import register
from pitwise.workspace import Workspace

def waits(*arguments, **named):
    print("registering", flush=True)
    time.sleep(120)

mlflow.onnx.log_model = waits
register.main(Workspace(sys.argv[1]))
"""


@pytest.fixture
def unregistered(four_runs, tmp_path) -> Workspace:
    """Fitted models, and an empty registry."""
    workspace = Workspace(shutil.copytree(four_runs.workspace.root, tmp_path / "workspace"))
    for path in (workspace.root / "mlflow.db", workspace.root / "ledger/promotions.jsonl"):
        path.unlink()
    return workspace


def killed_while_registering(workspace: Workspace, number: int) -> int:
    """Its exit code."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(workspace.root)],
        cwd=PROJECT.root,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        while process.stdout.readline() != "registering\n":
            assert process.poll() is None
        process.send_signal(number)
        return process.wait(timeout=60)
    finally:
        process.kill()
        process.communicate()


def statuses(workspace: Workspace) -> list[str]:
    client = client_of(workspace)
    experiment = client.get_experiment_by_name("pitwise")
    return sorted(run.info.status for run in client.search_runs([experiment.experiment_id]))


def test_a_run_that_was_killed_is_marked_so_by_the_next_one(unregistered, capsys):
    assert killed_while_registering(unregistered, signal.SIGKILL) == -signal.SIGKILL
    assert statuses(unregistered) == ["RUNNING"]
    client = client_of(unregistered)
    experiment = client.get_experiment_by_name("pitwise").experiment_id
    anothers = client.create_run(experiment, run_name="of another workspace")
    register.main(unregistered)
    assert "was killed before it had ended" in capsys.readouterr().out
    assert statuses(unregistered) == [*["FINISHED"] * len(CANDIDATES), "KILLED", "RUNNING"]
    assert client.get_run(anothers.info.run_id).info.status == "RUNNING"
    assert len(client.search_model_versions("name='pitwise'")) == len(CANDIDATES)


def test_a_run_that_is_told_to_end_is_marked_at_once(unregistered):
    assert killed_while_registering(unregistered, signal.SIGTERM) == 128 + signal.SIGTERM
    assert statuses(unregistered) == ["FAILED"]


def test_an_alias_nobody_set_points_to_nothing(four_runs):
    assert registered_version(four_runs.client, "pitwise", "nobody") is None
    assert registered_version(four_runs.client, "no_such_model", "champion") is None


def test_evaluation_stands_beside_its_baselines_on_the_same_dates(four_runs):
    report = four_runs.runs["refit"].evaluation
    rows = read_parquet(four_runs.workspace.dataset_rows)
    test = rows[rows["split"] == "test"]
    models = {*CANDIDATES, "persistence", "drift", "always_up"}
    counts = {"horizon", "n_predictions", "n_symbols", "n_sessions", "first_session", "last_session"}
    assert set(report) == models | counts
    assert {tuple(report[name]) for name in models} == {tuple(report["ann"])}
    assert report["n_predictions"] == len(test)
    assert report["n_symbols"] == 12
    assert report["n_sessions"] == test["event_timestamp"].nunique()
    assert report["first_session"] == f"{test['event_timestamp'].min():%Y-%m-%d}"
    assert report["last_session"] == f"{test['event_timestamp'].max():%Y-%m-%d}"


def test_evaluation_keeps_its_predictions_and_plots(four_runs):
    answers = read_parquet(four_runs.workspace.test_predictions)
    report = four_runs.runs["refit"].evaluation
    price = answers["close"] * np.exp(answers["lstm_log_return"])
    mape = ((price - answers["next_close"]).abs() / answers["next_close"]).mean() * 100
    assert mape == pytest.approx(report["lstm"]["mape"])
    accuracy = ((answers["ann_p_up"] > 0.5) == (answers["label"] > 0)).mean()
    assert accuracy == pytest.approx(report["ann"]["direction_accuracy"])
    plots = sorted(f.name for f in four_runs.workspace.plots.iterdir())
    assert plots == [
        "calibration.png",
        "cumulative_rank_ic.png",
        "learning_curves.png",
        "per_symbol_error.png",
        "predicted_vs_actual.png",
    ]


def logistic_loss_of(of: Registered, kind: str) -> float:
    """Mean negative log-likelihood of the validation returns, of what the exported file says."""
    rows = read_parquet(of.workspace.dataset_rows)
    ends = np.flatnonzero(rows["split"] == "validation")
    windows = ServedWindows(rows, served(of), small.FEATURES)
    model = open_onnx(of.workspace.models / kind / "model.onnx")
    said = run_onnx_over(model, windows, ends, small.WINDOW)
    returns = rows["label"].to_numpy()[ends]
    return -logistic.logpdf(returns, said["log_return"], said["scale"]).mean()


@pytest.mark.parametrize("kind", KINDS)
def test_the_report_of_training_describes_the_fit(four_runs, kind):
    training = four_runs.runs["refit"].training[kind]
    folder = four_runs.workspace.models / kind
    rows = read_parquet(four_runs.workspace.dataset_rows)
    curve = pd.read_csv(folder / "learning_curve.csv")
    assert training["onnx_sha256"] == sha256(folder / "model.onnx")
    assert training["rows_sha256"] == sha256(four_runs.workspace.dataset_rows)
    assert training["train_windows"] == (rows["split"] == "train").sum()
    assert training["validation_windows"] == (rows["split"] == "validation").sum()
    assert training["best_after_batches"] in set(curve["batches"])
    loss = logistic_loss_of(four_runs, kind)
    if kind == "gradient_boosting":  # in the end fitted on the validation dates as well
        assert loss < training["best_validation_loss"] < loss + 0.1
    else:
        assert training["best_validation_loss"] == pytest.approx(loss, abs=1e-4)
    weights = onnx.load(folder / "model.onnx").graph.initializer
    assert sum(np.prod(w.dims) for w in weights) >= training["parameters"]


def git(folder: Path, *command: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    done = subprocess.run(
        ["git", *identity, *command], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_code_version_is_the_commit_and_marks_files_that_differ(tmp_path):
    workspace = Workspace(tmp_path)
    assert register.code_version(workspace) == "unknown"
    git(tmp_path, "init", "--quiet")
    (tmp_path / "code.py").write_text("one")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "--quiet", "-m", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert register.code_version(workspace) == commit
    (tmp_path / "code.py").write_text("two")
    assert register.code_version(workspace) == f"{commit}-dirty"


def test_the_report_of_the_ensemble_describes_it(four_runs):
    first = four_runs.runs["first"].training
    training, members = first[ENSEMBLE], ["gradient_boosting", "ann", "lstm"]
    assert training["params"]["members"] == members
    assert training["params"]["recipe_of_lstm"] == first["lstm"]["recipe"] != training["recipe"]
    assert training["features"] == [name for name in NAMES if name in small.FEATURES]
    assert training["fitted_last_session"] == first["ann"]["fitted_last_session"]
    losses = [first[kind]["best_validation_loss"] for kind in members]
    assert training["best_validation_loss"] == pytest.approx(np.mean(losses))
    # Of trees fitted again the ensemble's file has seen the validation dates, and knows them better.
    assert logistic_loss_of(four_runs, ENSEMBLE) < training["best_validation_loss"]


def test_the_seeds_of_a_kind_are_averaged_in_one_file(four_runs, tmp_path):
    workspace = Workspace(tmp_path / "run")
    shutil.copytree(four_runs.workspace.root, workspace.root, ignore=shutil.ignore_patterns("mlruns"))
    small.change_params(workspace, train={"max_batches": 10}, ann={"seeds": 2})
    train.main(workspace, "ann")
    file = workspace.models / "ann/model.onnx"
    weights = {part.name for part in onnx.load(file).graph.initializer}
    assert {"seed_0/scaler.mean", "seed_1/scaler.mean"} <= weights
    training = read_json(file.with_name("training.json"))
    assert training["onnx_parity"] < 1e-5
    assert training["parameters"] == 2 * four_runs.runs["first"].training["ann"]["parameters"]


def test_the_registry_has_the_files_of_the_stages_byte_for_byte(four_runs):
    registered = {sha256(path) for path in four_runs.workspace.mlflow_artifacts.rglob("model.onnx")}
    fitted = {one["onnx_sha256"] for one in four_runs.runs["first"].training.values()}
    assert len(fitted) == len(CANDIDATES)
    assert fitted <= registered


def test_a_version_has_a_card_and_what_it_says_is_so(four_runs):
    kind = four_runs.runs["first"].report["champion_kind"]
    version = version_of_kind(four_runs, kind)
    text = card(four_runs.workspace, load_params(four_runs.workspace, "registry", RegistryParams))
    champion = four_runs.client.get_model_version_by_alias("pitwise", "champion")
    assert text == champion.description
    run, ours = four_runs.runs["refit"], version_of_kind(four_runs, kind, "refit")
    assert ours.version == champion.version != version.version
    training, tested = run.training[kind], run.evaluation[kind]
    for fact in (
        f"# pitwise version {champion.version}: {kind}",
        f"rows `{training['rows_sha256']}`",
        f"SHA-256 `{training['onnx_sha256']}`",
        f"recipe | `{training['recipe']}`, seed 2",
        f"{training['train_windows']:,} windows of 12 symbols",
        f"| {kind} | {tested['rank_ic_mean']:+.4f} ({tested['rank_ic_t']:+.1f}) | ",
        f" | {tested['mape']:.4f} | {tested['brier']:.4f} | ",
        "The walk-forward has no forecasts of this recipe.",
        "is promoted: a refit of champion version",
        "unproven: the walk-forward does not hold its recipe",
    ):
        assert fact in text, fact
    logged = Path(four_runs.client.download_artifacts(champion.run_id, "card.md"))
    assert logged.read_text() == text


def test_the_card_has_the_walk_forward_of_its_recipe(four_runs):
    first = four_runs.runs["first"]
    figures = {"rank_ic_mean": 0.02, "rank_ic_t": 3.0, "rank_ic_mean_open": 0.01, "rank_ic_t_open": None}
    none = dict.fromkeys(figures)
    difference = {"difference": 0.015, "t": 1.0, "ci95": [-0.01, 0.04]}
    unknown = dict.fromkeys(difference)
    walked = {"ann": figures, "ridge": figures | {"rank_ic_mean": 0.005}, "drift": none, "trials": 7}
    walked |= {"first_session": "2016-01-04", "last_session": "2017-12-28"}
    walked |= {"paired": {"ann": {"ridge": difference, "drift": unknown}}}
    known = {"train": 12, "validation": 12}
    text = card_of("p", "3", first.training["ann"], "abc", known, "biased", first.evaluation, walked, [])
    assert "| ann | +0.0200 (+3.0) | +0.0100 | – |" in text
    assert "| ridge | +0.0050 (+3.0) | +0.0100 | +0.0150 (-0.0100 to +0.0400) |" in text
    assert "| drift | – |" not in text.split("Test dates")[0]
    assert "7 recipes were tried" in text
    assert text.endswith("Biased.\n")
    assert len(text) < LONGEST


# Where MLflow keeps what it logs


def test_all_that_was_logged_lies_in_the_workspace(four_runs):
    root = four_runs.workspace.root
    assert (root / "mlflow.db").exists()
    experiment = four_runs.client.get_experiment_by_name("pitwise")
    assert Path(experiment.artifact_location) == root / "mlruns"
    for kind in KINDS:
        run = four_runs.client.get_run(version_of_kind(four_runs, kind).run_id)
        assert Path(run.info.artifact_uri).is_relative_to(root / "mlruns")


def test_an_experiment_lies_in_the_workspace_whatever_the_working_directory(tmp_path, monkeypatch):
    import mlflow

    workspace, elsewhere = tmp_path / "workspace", tmp_path / "elsewhere"
    workspace.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    registry = RegistryParams(tracking_uri="sqlite:///mlflow.db", model="pitwise")
    for _ in range(2):
        register.open_experiment(Workspace(workspace), registry, "trial")
        with mlflow.start_run():
            mlflow.log_text("here", "note.txt")
    assert list(elsewhere.iterdir()) == []
    assert sorted(path.name for path in workspace.iterdir()) == ["mlflow.db", "mlruns"]
    notes = list((workspace / "mlruns").rglob("note.txt"))
    assert [note.read_text() for note in notes] == ["here"] * 2


# The decision in the registry


def by_hand(folder: Path) -> None:
    """Model `gated` with the versions 1 to 3, none of them champion."""
    workspace = small.new_workspace(folder)
    for scale in (0.01, 0.02, 0.03):
        model = models_by_hand.onnx_model(scale)
        models_by_hand.register(workspace, model, models_by_hand.contract(), name="gated")


@pytest.fixture
def gated(tmp_path) -> Any:
    """MLflow's client of a registry of its own with the model `gated`, see `by_hand`."""
    by_hand(tmp_path)
    return client_of(Workspace(tmp_path))


def aliases(client: Any) -> dict[str, str]:
    return {name: str(v) for name, v in client.get_registered_model("gated").aliases.items()}


def history(client: Any) -> list[dict]:
    return json.loads(client.get_registered_model("gated").tags.get(CHAMPION_HISTORY, "[]"))


def test_decisions_one_after_the_other_move_the_aliases_and_leave_their_findings(gated):
    def note(version: str) -> str | None:
        return gated.get_model_version("gated", version).tags.get("gate")

    def applied(current: str | None, *decided) -> None:
        register.apply_decision(gated, "gated", Decision(*decided), current)

    # No candidate may be compared, and there is no champion.
    undefined = Finding("undefined", "refused", "1", "by_hand")
    nobody = Finding("no_champion", "warning")
    applied(None, None, None, False, False, [undefined, nobody])
    assert aliases(gated) == {}
    assert history(gated) == []
    assert note("1") == describe(undefined)

    # The first champion.
    first = Finding("first", "promoted", "1", "by_hand", {"by": "validation loss", "score": 0.1})
    applied(None, "1", None, True, True, [first])
    assert aliases(gated) == {"champion": "1"}
    assert [(e["version"], e["by"], e["reason"]) for e in history(gated)] == [
        ("1", "gate", describe(first))
    ]
    assert note("1") == describe(first)

    # It stays; what is found about the champion itself belongs to no version.
    figures = {"champion": "1", "champion_kind": "by_hand", "level": 0.975}
    figures |= {"mean": 0.01, "low": -0.01, "high": 0.03, "n": 400}
    worse = Finding("not_better", "refused", "2", "by_hand", figures)
    unproven = Finding("unproven", "warning", figures={"champion": "1"})
    applied("1", "1", "2", False, True, [worse, unproven])
    assert aliases(gated) == {"champion": "1", "challenger": "2"}
    assert len(history(gated)) == 1
    assert (note("1"), note("2"), note("3")) == (describe(first), describe(worse), None)

    # A better one, and the old champion challenges.
    better = Finding("better", "promoted", "3", "by_hand", figures | {"low": 0.001})
    applied("1", "3", "1", True, False, [better])
    assert aliases(gated) == {"champion": "3", "challenger": "1"}
    assert [(e["version"], e["reason"]) for e in history(gated)] == [
        ("1", describe(first)),
        ("3", describe(better)),
    ]
