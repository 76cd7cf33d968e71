"""What a starting service loads: no training, no monitoring, and no torch where there is none."""

import json
import shutil

import pytest
from support import small_runs as small

from pitwise.workspace import Workspace, read_parquet

START = """
import json, sys
from pathlib import Path
import serving.http.app, serving.cli
from pitwise.stage import load_params
from pitwise.workspace import Workspace
from serving.http.build import build_service
from serving.settings import ServeParams
workspace = Workspace(Path.cwd())
params = load_params(workspace, "serve", ServeParams)
service = build_service(workspace, params)
forecasts = service.champion.predictor.forecast(["S000"])
service.close()
loaded = {name.partition(".")[0] for name in sys.modules}
print(json.dumps([forecasts.symbols, sorted(loaded)]))
"""
HELP = """
import json, sys
from typer.testing import CliRunner
import serving.cli
assert "predict" in CliRunner().invoke(serving.cli.app, ["--help"]).output
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
HEAVY = {"torch", "pytorch_lightning", "training", "monitoring"}


@pytest.fixture(scope="module")
def workspace(published, tmp_path_factory) -> Workspace:
    """A published store and a champion."""
    folder = tmp_path_factory.mktemp("startup") / "workspace"
    workspace = Workspace(shutil.copytree(published.root, folder))
    small.register_champion(workspace, read_parquet(workspace.dataset_rows))
    return workspace


def test_a_service_that_answers_needs_neither_torch_nor_training(workspace):
    symbols, loaded = json.loads(
        small.run_python(workspace, small.WITHOUT_TORCH + START).splitlines()[-1]
    )
    assert symbols == ["S000"]
    assert {"feast", "mlflow", "onnxruntime", "fastapi"} <= set(loaded)
    assert not HEAVY & set(loaded)


def test_help_waits_for_no_library_of_the_service(workspace):
    loaded = set(json.loads(small.run_python(workspace, HELP).splitlines()[-1]))
    assert "typer" in loaded
    assert not (HEAVY | {"feast", "mlflow", "onnxruntime", "fastapi"}) & loaded
