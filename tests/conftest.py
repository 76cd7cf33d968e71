"""The default pipeline and PostgreSQL, run once for all tests that look at what comes out of them."""

import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import prometheus_client  # noqa: F401  # before Feast, which would have its values kept in files
import pytest
from servers import Postgres, postgres

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "PYTHONPATH": "",
    "DVC_NO_ANALYTICS": "1",
}


class Workspace:
    """A copy of the project in a folder of its own, and commands run in it."""

    def __init__(self, path: Path):
        self.path = path

    def run(self, *command: str, check: bool = True, timeout: int = 600) -> subprocess.CompletedProcess:
        done = subprocess.run(
            command,
            cwd=self.path,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
        return done

    def stage(self, module: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
        return self.run(sys.executable, "-m", module, *arguments, check=check)


def new_workspace(path: Path, source: str = "sample", data: Path = ROOT / "prices") -> Workspace:
    """A workspace as `make run SOURCE=...` makes it."""
    make = runpy.run_path(str(ROOT / "scripts/workspace.py"))["make_workspace"]
    here = Path.cwd()
    os.chdir(ROOT)
    try:
        make(path, source, data)
    finally:
        os.chdir(here)
    return Workspace(path)


@pytest.fixture(scope="session")
def fresh_workspace(tmp_path_factory) -> Workspace:
    """The project's files and nothing made yet; tests may write into its params.yaml copies only."""
    return new_workspace(tmp_path_factory.mktemp("fresh") / "project")


@pytest.fixture(scope="session")
def default_run(tmp_path_factory) -> Workspace:
    """`dvc repro` of the default source, finished."""
    workspace = new_workspace(tmp_path_factory.mktemp("default") / "project")
    workspace.run("dvc", "repro")
    return workspace


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path) -> str:
    """Of an empty database, of each kind that the prediction log may be in."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/log.db"
    return request.getfixturevalue("server").new_database()
