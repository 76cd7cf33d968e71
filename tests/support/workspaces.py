"""Workspaces in folders of their own, and commands run in them as a person would from a shell."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from pitwise import init
from pitwise.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "DVC_NO_ANALYTICS": "1",
    # Models this small gain nothing from threads, and the cores have other tests to run.
    "OMP_NUM_THREADS": "1",
}
NOT_COPIED = shutil.ignore_patterns(".dvc", "models", "mlruns")
"""What most tests that write to a copy do without."""


class Run:
    """A workspace, and commands run in its folder."""

    def __init__(self, path: Path):
        self.path = path
        self.workspace = Workspace(path)

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

    def change_params(self, section: str, **values: Any) -> None:
        params = yaml.safe_load(self.workspace.params.read_text())
        params[section] |= values
        self.workspace.params.write_text(yaml.safe_dump(params))

    def report(self, path: str) -> dict:
        return json.loads((self.path / path).read_text())

    def copy(self, folder: Path, ignore=None) -> "Run":
        """The workspace as it is now, in another folder; times of files too, so DVC sees no change."""
        shutil.copytree(self.path, folder, ignore=ignore)
        return Run(folder)


def new_run(folder: Path) -> Run:
    """A workspace as `pitwise init` makes it."""
    return Run(init.new_workspace(folder).root)
