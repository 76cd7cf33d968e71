"""Run the pipeline of a workspace: what `dvc repro` does, with the Python that runs this."""

import os
import subprocess
import sys
from pathlib import Path

from pitwise.errors import PitwiseError, StoreError
from pitwise.extras import require
from pitwise.workspace import Workspace


class PipelineError(PitwiseError):
    """A stage failed. What it wrote on the screen says why."""


def run_pipeline(workspace: Workspace, retrieve: bool = False) -> None:
    """Bring every result of a workspace up to date and print the summary.

    Args:
        retrieve: run stage `ingest` even if nothing it depends on has changed: a source on the
            network has newer bars.

    Raises:
        StoreError: it is no workspace, or the stages' packages are not all installed.
        PipelineError: a stage failed.
    """
    root = workspace.root
    if not (workspace.params.is_file() and (root / "dvc.yaml").is_file()):
        raise StoreError(
            f"{root}: is not a workspace: it has no params.yaml and dvc.yaml. `pitwise init DIR` "
            "makes one."
        )
    require("all", "the pipeline")
    if retrieve:
        _python(root, "dvc", "repro", "--force", "--single-item", "ingest")
    _python(root, "dvc", "repro")
    _python(root, "monitoring.summary")


def _python(root: Path, module: str, *arguments: str) -> None:
    """Run a module in the workspace; its stages' `python` is the one that runs this."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=root,
        env=os.environ | {"PATH": path},
        check=False,
    )
    if done.returncode:
        raise PipelineError(
            f"{root}: `{' '.join([module, *arguments])}` failed; its messages stand above. What was "
            "finished before it is kept."
        )
