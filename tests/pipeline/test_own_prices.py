"""A person's own prices, by the command `pitwise run`, in a workspace of their own."""

from datetime import date
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pandas as pd
import yaml
from support.workspaces import Run, new_run
from typer.testing import CliRunner

from pitwise import cli, pipeline
from pitwise.bars.landing import landings
from pitwise.workspace import Workspace

SMALL = {
    "quality": {"event_pictures": 0, "adjusted_pictures": 0, "trees": 10},
    "train": {"max_batches": 20},
    "lstm": {"hidden": [8], "dropout": [0.1], "dense": 4},
}
"""Params that make the run short: how good its models are is not looked at."""


def run_stages(workspace: Workspace) -> None:
    """What DVC runs, and the summary: in this process, for each start takes seconds.

    DVC itself has the bars to make, in a workspace below another.
    """
    pipeline.track_landings(workspace)
    shown = Run(workspace.root).run("dvc", "repro", "bars").stdout
    assert "Running stage 'bars'" in shown
    stages = yaml.safe_load((workspace.root / "dvc.yaml").read_text())["stages"]
    commands = [
        stage.get("do", stage)["cmd"].replace("${item}", item)
        for stage in stages.values()
        for item in stage.get("foreach", [""])
    ]
    for command in [*commands, "python -m monitoring.summary"]:
        _, _, module, *arguments = command.split()
        package = find_spec(module).submodule_search_locations
        import_module(f"{module}.__main__" if package else module).main(workspace, *arguments)


def test_own_prices_run_in_a_workspace_of_their_own(tmp_path, monkeypatch):
    dates = pd.bdate_range("2016-01-04", "2016-12-30")
    rng = np.random.default_rng(3)
    parts = []
    for name in ("AAA", "BBB", "CCC"):
        close = 50 * np.exp(np.cumsum(rng.normal(0, 0.01, len(dates))))
        bar = pd.DataFrame({"date": dates, "open": close, "high": close * 1.01, "low": close * 0.99})
        parts.append(bar.assign(close=close, volume=1e6, Name=name))
    prices = tmp_path / "mine.csv.gz"
    pd.concat(parts).to_csv(prices, index=False)
    desk = new_run(tmp_path / "desk")
    assert desk.workspace.params.read_text().count("source: sample") == 1
    for section, values in SMALL.items():
        desk.change_params(section, **values)
    before = desk.workspace.params.read_text()
    monkeypatch.chdir(desk.path)
    monkeypatch.setattr(pipeline, "run_pipeline", run_stages)
    arguments = ["run", "--source", "csv", "--data", str(prices), "--name", "mine"]
    shown = CliRunner().invoke(cli.app, arguments, catch_exceptions=False).output
    assert "champion: pitwise version " in shown
    mine = Run(desk.path / "runs/mine")
    (landing,) = landings(mine.workspace)
    assert (landing.source, landing.history, len(landing.rows)) == ("csv", "assumed", 3 * 260)
    assert landing.covers["CCC"] == (date(2016, 1, 4), date(2016, 12, 30))
    assert not desk.workspace.landing.exists()
    latest = pd.read_parquet(mine.workspace.latest_predictions)
    assert sorted(latest["symbol"]) == ["AAA", "BBB", "CCC"]
    quarantined = mine.report("metrics/clean.json")["quarantined_by_reason"]
    assert set(quarantined) == {"not_a_session"}  # business days on which the exchange was closed
    assert not (desk.path / "metrics").exists()
    assert desk.workspace.params.read_text() == before
