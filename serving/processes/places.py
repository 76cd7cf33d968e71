"""Where the processes of a service find each other."""

from pathlib import Path

from pitwise.workspace import Workspace


def state_file(workspace: Workspace) -> Path:
    """The market state that the writer commits and the readers follow."""
    return workspace.path("data/serving/state.db")


def pids_file(workspace: Workspace) -> Path:
    """The processes' ids by name, in JSON, while a service runs."""
    return workspace.path("data/serving/processes.json")


def bars_address(folder: Path) -> Path:
    """The socket of the writer, in the folder of a service that runs."""
    return folder / "bars"
