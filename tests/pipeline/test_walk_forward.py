"""The walk-forward as a person runs it: a target of its own, which a finished run does without."""

import re

from training import CANDIDATES

TARGET = "walk_forward/dvc.yaml"


def stages_run(shown: str) -> list[str]:
    return re.findall(r"Running stage '(.*)'", shown)


def test_the_walk_forward_runs_when_it_is_asked_for_and_then_once(default_run, tmp_path):
    run = default_run.copy(tmp_path / "project")
    assert not run.workspace.walk_forward_report.exists()
    run.change_params("walk_forward", kinds={}, step="year", seeds=1)
    run.change_params("engine", n_jobs=1)
    run.change_params("backtest", k=2, random_signals=5, bootstrap_samples=100)
    shown = run.run("dvc", "repro", TARGET).stdout
    assert stages_run(shown) == [f"{TARGET}:evaluate_walk_forward", f"{TARGET}:backtest"]
    report = run.report("metrics/walk_forward.json")
    assert report["champion"] in CANDIDATES
    assert report["reversal"]["n_predictions"] == report["persistence"]["n_predictions"] > 5000
    assert run.report("metrics/backtest.json")["equal_weight"]["sharpe"]["value"] is not None
    assert stages_run(run.run("dvc", "repro", TARGET).stdout) == []
    # Costs are section backtest's, and the week has what signals earned.
    assert stages_run(run.run("dvc", "repro").stdout) == ["signals", "monitor"]
