"""`pitwise log compact` in a workspace."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from support.answered import requests
from support.project import with_params
from typer.testing import CliRunner, Result

from pitwise.registry.prediction_log import insert_requests, open_log
from pitwise.workspace import Workspace
from serving import cli

DAYS = 30


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    """A log with two requests of 31 days ago and one of 29 days ago."""
    url = "sqlite:///data/predictions/log.db"
    predict = {"log_url": url, "suspect": "mark", "retention_days": DAYS}
    workspace = with_params(tmp_path, predict=predict)
    log = open_log(url_of(workspace))
    now = datetime.now(UTC)
    row = {"caller": "desk", "route": "/v1/predict", "latency_ms": 1.5, "model_version": "1"}
    row |= {"state": 1, "as_of": now, "n": 1, "windows": "A:0f"}
    ages = {"a": DAYS + 1, "b": DAYS + 1, "c": DAYS - 1}
    rows = [
        row | {"request_id": name, "received_at": now - timedelta(days=age)}
        for name, age in ages.items()
    ]
    insert_requests(log, rows)
    log.dispose()
    return workspace


def url_of(workspace: Workspace) -> str:
    return f"sqlite:///{workspace.root}/data/predictions/log.db"


def run(workspace: Workspace, monkeypatch, *arguments: str) -> Result:
    monkeypatch.setattr(cli, "_here", lambda: workspace)
    return CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, ["log", *arguments])


def test_old_requests_go_to_the_archive(workspace, monkeypatch):
    done = run(workspace, monkeypatch, "compact")
    month = f"{datetime.now(UTC) - timedelta(days=DAYS + 1):%Y-%m}"
    path = f"data/predictions/archive/requests-{month}.parquet"
    assert done.stdout == f"2 requests moved to {path}; 1 are in the log\n"
    assert (workspace.root / path).exists()
    assert requests(url_of(workspace))["request_id"].tolist() == ["c"]
    assert run(workspace, monkeypatch, "compact").stdout == "0 requests moved; 1 are in the log\n"


def test_the_json_has_the_figures(workspace, monkeypatch):
    document = json.loads(run(workspace, monkeypatch, "compact", "--json").stdout)
    assert (document["archived"], document["kept"], len(document["files"])) == (2, 1, 1)
