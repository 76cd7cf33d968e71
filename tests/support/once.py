"""What is expensive to make is made once for all of pytest's workers."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """A folder of this test run, built by the first worker that needs it; the others wait.

    It is shared: tests read it, and copy it to write.

    Args:
        name: of the folder, one for each thing that is built.
        build: called with the folder, which is there and empty.
    """
    base = factory.getbasetemp()
    # Workers have their own folders, beside each other in that of the run.
    run = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = run / name, run / f"{name}.done"
    with FileLock(run / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a build that failed
            folder.mkdir()
            build(folder)
            done.touch()
    return folder
