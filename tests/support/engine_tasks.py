"""Tasks for the tests of the engine, where other processes can import them."""

import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pitwise.errors import DataError


def product_sum(seed: int) -> bytes:
    """The bits of a sum that several threads would add up in another order."""
    drawn = np.random.default_rng(seed).normal(size=(300, 300))
    return (drawn @ drawn.T).sum(axis=0).tobytes()


class Task(NamedTuple):
    number: int
    mark: Path
    """A file that one of the tasks makes."""


def once_deadly(task: Task) -> int:
    """Its number; the first process that computes number 1 dies."""
    if task.number == 1 and not task.mark.exists():
        task.mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return task.number


def unreadable(number: int) -> None:
    raise DataError(f"file {number}: cannot be read")


def waits_for_the_next(task: Task) -> int:
    """Its number; number 0 ends after number 1 has."""
    if task.number == 1:
        task.mark.touch()
    while task.number == 0 and not task.mark.exists():
        time.sleep(0.01)
    return task.number


def visible_gpus(number: int) -> str | None:
    """The GPUs that Ray has given to the process, as CUDA reads them."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def once_deadly_table(marks: Path, name: str) -> dict[str, pa.Table]:
    """A table of a shard; each time it is computed is a line of a file, and `deadly` once is a death."""
    with (marks / name).open("a") as file:
        file.write("computed\n")
    if name == "deadly" and not (marks / "died").exists():
        (marks / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    drawn = np.random.default_rng(len(name)).normal(size=1000)
    return {"rows": pa.table({"name": [name] * 1000, "drawn": drawn}, metadata={"of": name})}
