"""The errors a person can do something about. Each is shown as one message, without a traceback."""

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class PitwiseError(Exception):
    """Base of the errors that name what is wrong, where, and what to do."""


class ParamsError(PitwiseError):
    """A key of `params.yaml` is unknown, missing or impossible; the message names it."""


class DataError(PitwiseError):
    """Bars that cannot be used; the message names the file, and the row and column where known."""


class StoreError(PitwiseError):
    """The feature store, the registry or the disk cannot be read or written."""


def one_line(text: object) -> str:
    """An error or another text on one line, as a message quotes it."""
    return " ".join(str(text).split())


@contextmanager
def shown_as_message() -> Iterator[None]:
    """An error in the block that a person can mend ends the process: one message, exit code 1."""
    try:
        yield
    except (PitwiseError, OSError, sqlite3.OperationalError) as error:
        # The last two are the disk's: full, or not to be written; Feast's databases meet it too.
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
