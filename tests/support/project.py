"""The project as a workspace, and workspaces that have nothing but params."""

from pathlib import Path

import yaml

from pitwise.workspace import Workspace

PROJECT = Workspace(Path(__file__).resolve().parents[2])
"""Its `params.yaml` is the one a run has by default; tests only read it."""


def with_params(folder: Path, **sections: dict) -> Workspace:
    """A workspace in `folder` whose `params.yaml` has these sections."""
    workspace = Workspace(folder)
    workspace.params.write_text(yaml.safe_dump(sections))
    return workspace
