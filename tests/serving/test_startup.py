"""What a starting service loads, process by process: no training, no monitoring, no torch."""

import json
import shutil

import pytest
from support import small_runs as small

from pitwise.workspace import Workspace, read_parquet

WRITER = """
import json, sys
from contextlib import closing
from pathlib import Path
from tempfile import mkdtemp
from pitwise.stage import load_params
from pitwise.workspace import Workspace
from serving.processes.writer import Writer
from serving.settings import ServeParams
workspace = Workspace(Path.cwd())
params = load_params(workspace, "serve", ServeParams)
with closing(Writer(workspace, params, Path(mkdtemp()), first=True)) as writer:
    facts = writer.facts
print(json.dumps([facts, sorted({name.partition(".")[0] for name in sys.modules})]))
"""
READER = """
import json, sys
from pathlib import Path
from fastapi.testclient import TestClient
from pitwise.stage import load_params
from pitwise.workspace import Workspace
from serving.http.app import create_app
from serving.http.auth import Keys
from serving.http.build import build_service
from serving.processes import reader
from serving.settings import ServeParams
workspace = Workspace(Path.cwd())
params = load_params(workspace, "serve", ServeParams)
build = lambda: build_service(workspace, params, Path("nowhere"), "reader-0")
app = create_app(params, Keys(workspace.path(params.keys)), build)
with TestClient(app, "http://localhost") as client:
    answer = client.post("/v1/predict", json={"symbols": ["S000"]}).json()
    ready = client.get("/readyz").status_code, client.get("/metrics").status_code
loaded = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps([answer["forecasts"][0]["symbol"], ready, loaded]))
"""
SUPERVISOR = """
import json, sys
import serving.http.server
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
HELP = """
import json, sys
from typer.testing import CliRunner
import serving.cli
assert "predict" in CliRunner().invoke(serving.cli.app, ["--help"]).output
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
HEAVY = {"torch", "training", "monitoring"}
OF_THE_WRITER = {"feast", "mlflow", "onnxruntime"}


@pytest.fixture(scope="module")
def workspace(published, tmp_path_factory) -> Workspace:
    """A published store and a champion."""
    folder = tmp_path_factory.mktemp("startup") / "workspace"
    workspace = Workspace(shutil.copytree(published.root, folder))
    small.register_champion(workspace, read_parquet(workspace.dataset_rows))
    return workspace


def printed(workspace: Workspace, code: str):
    return json.loads(small.run_python(workspace, small.WITHOUT_TORCH + code).splitlines()[-1])


def test_a_service_that_answers_needs_neither_torch_nor_training(workspace):
    facts, loaded = printed(workspace, WRITER)
    assert facts == {"version": "1", "symbols": 5}
    assert set(loaded) >= OF_THE_WRITER
    assert not HEAVY & set(loaded)

    symbol, ready, loaded = printed(workspace, READER)
    assert (symbol, ready) == ("S000", [200, 200])
    assert {"fastapi", "uvicorn"} <= set(loaded)
    # There may be many readers: what takes memory is the writer's.
    unwanted = HEAVY | OF_THE_WRITER | {"pandas", "pyarrow", "scipy", "sklearn", "sqlalchemy"}
    assert not unwanted & set(loaded)


def test_the_supervisor_is_there_for_long_and_loads_little(workspace):
    loaded = set(printed(workspace, SUPERVISOR))
    assert not (HEAVY | OF_THE_WRITER | {"fastapi", "uvicorn", "numpy", "pandas"}) & loaded


def test_help_waits_for_no_library_of_the_service(workspace):
    loaded = set(printed(workspace, HELP))
    assert "typer" in loaded
    assert not (HEAVY | OF_THE_WRITER | {"fastapi"}) & loaded
