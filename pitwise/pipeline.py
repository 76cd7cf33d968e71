"""Run the pipeline of a workspace: what `dvc repro` does, with the Python that runs this."""

import os
import subprocess
import sys
from pathlib import Path

from pitwise.errors import PitwiseError, StoreError
from pitwise.extras import require
from pitwise.workspace import Workspace, read_json, sha256


class PipelineError(PitwiseError):
    """A stage failed. What it wrote on the screen says why."""


def run_pipeline(workspace: Workspace) -> None:
    """Bring every result of a workspace up to what has landed in it and print the summary.

    Where `clean.reference` is set, the bars are then reconciled with it.

    Raises:
        StoreError: it is no workspace, or one of an older version; nothing has landed in it; or the
            stages' packages are not all installed.
        ParamsError: the reference is not there.
        PipelineError: a stage failed.
    """
    from pitwise.reconcile import reconcile, reference_of

    root = workspace.root
    require_workspace(workspace)
    require("all", "the pipeline")
    reference = reference_of(workspace)
    track_landings(workspace)
    _python(root, "dvc", "repro")
    if _gate_has_not_seen_the_walk_forward(workspace):
        # Another dvc.yaml makes it: as a dependence of stage register it would be made by each run. What
        # stands on that stage reads the report that this one changes.
        _python(root, "dvc", "repro", "--force", "--downstream", "register")
    _python(root, "monitoring.summary")
    if reference is not None:
        reconcile(workspace, root, reference)


def _gate_has_not_seen_the_walk_forward(workspace: Workspace) -> bool:
    report, registration = workspace.walk_forward_report, workspace.registration_report
    if not (report.exists() and registration.exists()):
        return False
    return read_json(registration).get("walk_forward_sha256") != sha256(report)


def require_workspace(workspace: Workspace) -> None:
    """StoreError where the folder is no workspace, or one of an older version."""
    root = workspace.root
    if not (workspace.params.is_file() and (root / "dvc.yaml").is_file()):
        raise StoreError(
            f"{root}: is not a workspace: it has no params.yaml and dvc.yaml. `pitwise init DIR` "
            "makes one."
        )
    workspace.require_landings()


def track_landings(workspace: Workspace) -> None:
    """Have DVC keep what has landed, so that no checkout loses it: data/landing.dvc names it for Git.

    Raises:
        StoreError: nothing has landed.
        PipelineError: DVC could not.
    """
    landing = workspace.landing
    if not any(landing.glob("*.parquet")):
        raise StoreError(f"{landing}: nothing has landed there. Run `pitwise load` first.")
    _python(workspace.root, "dvc", "add", "--quiet", str(landing.relative_to(workspace.root)))


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
