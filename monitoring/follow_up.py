"""What follows a week that is not ok: somebody is told, and where it may help, a model is trained."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from monitoring.alert import alert
from monitoring.findings import TODO
from monitoring.settings import MonitorParams
from pitwise.errors import StoreError
from pitwise.pipeline import track_landings
from pitwise.stage import load_params
from pitwise.workspace import Workspace


def follow_up(workspace: Workspace, document: dict[str, Any]) -> None:
    """Tell who `monitor.alert` names; with `monitor.retrain: auto` train where a new model may help.

    Raises:
        StoreError: nobody was told, or the training failed.
        PipelineError: DVC could not keep what has landed.
    """
    params = load_params(workspace, "monitor", MonitorParams)
    if params.alert and document["verdict"] != "ok":
        alert(params.alert, document, str(workspace.week_page))
    if params.retrain == "auto" and document["todo"] == TODO["retrain"]:
        retrain(workspace, document["week"])


def retrain(workspace: Workspace, week: str) -> None:
    """Run the pipeline on all that has landed, as a DVC experiment; the gate decides on its model.

    In the workspace itself and in no copy: the registry and the log that the gate asks are in no commit.

    Raises:
        StoreError: it failed.
        PipelineError: DVC could not keep what has landed.
    """
    track_landings(workspace)
    # The stages' `python` is the one that runs this.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    command = [sys.executable, "-m", "dvc", "exp", "run", "--message", f"retrain of {week}"]
    done = subprocess.run(command, cwd=workspace.root, env=os.environ | {"PATH": path}, check=False)
    if done.returncode:
        raise StoreError(
            f"{workspace.root}: `dvc exp run` failed; its message stands above. It needs a Git "
            "repository with a commit, and `dvc config core.no_scm false` where `pitwise init` made the "
            "workspace; or set monitor.retrain to propose."
        )
