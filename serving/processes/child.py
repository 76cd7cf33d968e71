"""What every child of the supervisor does: its log, its signals, its channel, and how it fails."""

import logging
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import current_process
from multiprocessing.connection import Connection
from typing import Any

from pitwise.errors import PitwiseError, one_line

BEAT_SECONDS = 1.0
"""Between two signs of life, once a child is ready."""
LOG = logging.getLogger("pitwise.serving")


class Control:
    """A child's end of the channel to its supervisor, whose other end closes when the supervisor dies.

    Args:
        is_first: whether the service starts, and what fails is a person's to mend; otherwise the child
            takes the place of one that died.
    """

    def __init__(self, connection: Connection, is_first: bool = True):
        self._connection = connection
        self._sending = threading.Lock()
        self.is_first = is_first

    def ready(self, **facts: Any) -> None:
        """Say that this process does its work now."""
        self._send("ready", facts)

    def beat(self) -> None:
        """Give a sign of life, every `BEAT_SECONDS` from `ready` on, from where it does its work."""
        self._send("beat", None)

    def failed(self, message: str) -> None:
        """Say why this process cannot do its work."""
        self._send("failed", message)

    def wait_to_go(self) -> None:
        """Wait until the supervisor says that what this process needs is there.

        Raises:
            SystemExit: it is to end, or the supervisor is dead.
        """
        if self._next() != "go":
            sys.exit(0)

    def wait_for_end(self) -> bool:
        """Wait until this process is to end.

        Returns:
            whether the supervisor said so; it is dead otherwise.
        """
        while (said := self._next()) not in ("end", None):
            pass
        return said is not None

    def when_abandoned(self, end: Callable[[], None]) -> None:
        """Have `end` called, in a thread, when the supervisor has died."""

        def watch() -> None:
            if not self.wait_for_end():
                LOG.error("the supervisor is gone: this process ends")
                end()

        threading.Thread(target=watch, name="supervisor", daemon=True).start()

    def _send(self, kind: str, content: Any) -> None:
        with self._sending, suppress(OSError):  # the supervisor is dead: `when_abandoned` sees to it
            self._connection.send((kind, content))

    def _next(self) -> str | None:
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            return None


def log_to_stderr(name: str) -> None:
    """The log of one process of the service, by whose name its lines say so."""
    current_process().name = name
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(processName)s %(name)s %(message)s",
    )


def enter(connection: Connection, is_first: bool, run: Callable[..., None], arguments: tuple) -> None:
    """The body of a child: `run(control, *arguments)`, whose failure the supervisor is told.

    SIGTERM ends it by SystemExit until `run` sees to it otherwise. Ctrl-C reaches all processes of a
    terminal; what becomes of it is the supervisor's to say.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    log_to_stderr(current_process().name)
    control = Control(connection, is_first)
    try:
        run(control, *arguments)
    except (PitwiseError, OSError, sqlite3.OperationalError) as error:
        control.failed(str(error))
        sys.exit(1)
    except Exception as error:
        LOG.exception("this process fails")
        control.failed(f"{type(error).__name__}: {one_line(error)}")
        sys.exit(1)
