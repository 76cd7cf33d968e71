"""What the supervisor's children run, by name: what takes seconds to import is imported in them."""

from typing import Any


def write(*arguments: Any) -> None:
    """`serving.processes.writer.run`."""
    from serving.processes.writer import run

    run(*arguments)


def read(*arguments: Any) -> None:
    """`serving.processes.reader.run`."""
    from serving.processes.reader import run

    run(*arguments)
