"""MLflow runs that end, whatever becomes of the process that began them."""

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from pitwise.workspace import Workspace

BEGUN_IN = "pitwise.workspace"
"""Tag of a run: host and folder of the workspace that began it."""


def begun_in(workspace: Workspace) -> dict[str, str]:
    """Tags of a run that the workspace begins."""
    return {BEGUN_IN: f"{socket.gethostname()}:{workspace.origin.root}"}


def end_abandoned_runs(client: Any, experiment: str, workspace: Workspace) -> list[str]:
    """Mark as killed what the workspace has begun and a `kill -9` or a power loss left running.

    The caller is the only one of the workspace who begins runs: it holds `registry_writer`.

    Args:
        experiment: its id.

    Returns:
        the ids of those runs.
    """
    running = client.search_runs([experiment], "attributes.status = 'RUNNING'")
    ours = begun_in(workspace)[BEGUN_IN]
    abandoned = [run.info.run_id for run in running if run.data.tags.get(BEGUN_IN) == ours]
    for run in abandoned:
        client.set_terminated(run, "KILLED")
    return abandoned


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the block as an error does, so that a run it has begun is marked as failed.

    In the main thread only; what was done at SIGTERM before is done again after the block.
    """

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
