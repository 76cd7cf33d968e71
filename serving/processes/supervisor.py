"""The process that the command is: it starts the writer and the readers, and starts again what dies."""

import json
import logging
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from time import monotonic
from typing import Any

from pitwise.errors import StoreError
from serving.processes.child import enter
from serving.supervised import FIRST_PAUSE, LONGEST_PAUSE

# This process is there for as long as the service: nothing heavy is imported.

WRITER = "writer"
GOOD_LIFE_SECONDS = 60.0
"""A child that lived as long did not die of its start: the next pause is the first one again."""
HANGS_SECONDS = 60.0
"""A child that was ready and gives no sign of life for so long is killed."""
LOOK_SECONDS = 5.0
"""Between two looks at the children where they tell nothing."""
ENDING_SECONDS = 5.0
"""For a process that has nothing more to do to end in; then it is killed."""
LOG = logging.getLogger("pitwise.serving")


@dataclass
class Child:
    """One process of the service, over its restarts."""

    name: str
    run: Callable[..., None]
    arguments: tuple
    is_first: bool = True
    process: Any = None
    control: Connection | None = None
    said: dict[str, Any] = field(default_factory=dict)
    """What this life has told: `ready`, `failed`."""
    started: float = 0.0
    heard: float = 0.0
    """When it told something last."""
    pause: float = FIRST_PAUSE
    starts_again: float | None = None

    def start(self) -> None:
        context = get_context("spawn")
        self.control, other = context.Pipe()
        self.process = context.Process(
            target=enter, args=(other, self.is_first, self.run, self.arguments), name=self.name
        )
        self.said, self.started, self.starts_again = {}, monotonic(), None
        self.process.start()
        other.close()
        self.is_first = False

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.is_alive()

    def tell(self, word: str) -> None:
        if self.control:
            with suppress(OSError):
                self.control.send(word)

    def listen(self) -> None:
        """Take what it has told so far."""
        try:
            while self.control and self.control.poll():
                kind, content = self.control.recv()
                self.said[kind] = content
                self.heard = monotonic()
        except (EOFError, OSError):  # it is ending: what follows is its death
            self._hang_up()

    @property
    def hangs(self) -> bool:
        return "ready" in self.said and monotonic() - self.heard > HANGS_SECONDS

    def reap(self) -> str:
        """Take note of its death; what it died of."""
        self.listen()
        self.process.join()
        self._hang_up()
        return self.said.get("failed") or f"has ended with exit code {self.process.exitcode}"

    def _hang_up(self) -> None:
        if self.control:
            self.control.close()
        self.control = None

    def rest(self) -> float:
        """Have it start again after a pause; its seconds."""
        if monotonic() - self.started >= GOOD_LIFE_SECONDS:
            self.pause = FIRST_PAUSE
        pause = self.pause
        self.starts_again = monotonic() + pause
        self.pause = min(pause * 2, LONGEST_PAUSE)
        return pause

    def end(self, deadline: float) -> None:
        """Wait for its end up to a `monotonic` instant; then kill it."""
        if self.process is None:
            return
        self.process.join(max(deadline - monotonic(), 0))
        if self.process.is_alive():
            LOG.error("%s does not end and is killed", self.name)
            self.process.kill()
        self.reap()


class Supervisor:
    """The processes of one service.

    Args:
        write, read: what a writer and a reader run, `run(control, *arguments)`, importable by name. A
            reader gets the listening socket as its last argument, and waits for `go`.
        pids: a file for the processes' ids, by name, while all do their work.
        listener: bound; the readers listen on it.
    """

    def __init__(
        self,
        write: Callable[..., None],
        read: Callable[..., None],
        arguments: tuple,
        workers: int,
        listener: socket.socket,
        drain_seconds: float,
        pids: Path,
    ):
        self._listener = listener
        self._drain_seconds = drain_seconds
        self._pids = pids
        self._writer = Child(WRITER, write, (WRITER, *arguments))
        self._readers = [
            Child(name, read, (name, *arguments, listener))
            for name in (f"reader-{i}" for i in range(workers))
        ]
        self._children = [self._writer, *self._readers]
        self._is_ready = False

    def run(self, ready: Callable[[Mapping[str, Any]], None]) -> None:
        """Serve until SIGTERM or SIGINT, and return when the children have ended.

        Args:
            ready: called once, when every process does its work, with what the writer said of it.

        Raises:
            StoreError: a process failed before all were ready.
        """
        with _signals() as signalled:
            try:
                for child in self._children:
                    child.start()
                while not signalled.poll():
                    self._follow(signalled)
                    if not self._is_ready and all("ready" in child.said for child in self._children):
                        self._is_ready = True
                        self._note()
                        ready(self._writer.said["ready"])
            finally:
                self._end()

    def _follow(self, signalled: Connection) -> None:
        """Wait for something to happen, and see to it."""
        pauses = [child.starts_again - monotonic() for child in self._children if child.starts_again]
        watched: list[Any] = [signalled]
        for child in self._children:
            if child.starts_again is None:
                watched += [child.process.sentinel]
                watched += [child.control] if child.control else []
        wait(watched, timeout=max(min([*pauses, LOOK_SECONDS]), 0))
        for child in self._children:
            if child.starts_again is not None:
                if monotonic() >= child.starts_again:
                    self._start_again(child)
                continue
            was_ready = "ready" in child.said
            child.listen()
            if not child.is_alive:
                self._died(child)
            elif child.hangs:
                LOG.error("%s: no sign of life for %g s; it is killed", child.name, HANGS_SECONDS)
                child.process.kill()
            elif (
                child is self._writer and "ready" in child.said and not was_ready and not self._is_ready
            ):
                for reader in self._readers:
                    reader.tell("go")

    def _start_again(self, child: Child) -> None:
        try:
            child.start()
        except OSError as error:  # no memory for a process now
            child.rest()
            LOG.error("%s: cannot be started: %s", child.name, error)
            return
        if child is not self._writer:
            child.tell("go")
        self._note()

    def _died(self, child: Child) -> None:
        why = child.reap()
        if not self._is_ready:
            raise StoreError(why if "failed" in child.said else f"the service's {child.name} {why}.")
        _forget_metrics(child.process.pid)
        LOG.error("%s: %s; it starts again in %g s", child.name, why, child.rest())

    def _note(self) -> None:
        """Write down which process is which, for those who look after them."""
        pids = {"supervisor": os.getpid()}
        pids |= {child.name: child.process.pid for child in self._children if child.process}
        self._pids.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._pids.with_name(f".{self._pids.name}.tmp")
        temporary.write_text(json.dumps(pids) + "\n")
        temporary.replace(self._pids)

    def _end(self) -> None:
        """End all: the readers first, whose last requests may need the writer."""
        self._listener.close()
        for child in self._children:
            child.starts_again = None
            if child.is_alive and (child is not self._writer or not self._is_ready):
                child.process.terminate()
        deadline = monotonic() + ENDING_SECONDS + (self._drain_seconds if self._is_ready else 0)
        for reader in self._readers:
            reader.end(deadline)
        self._writer.tell("end")
        self._writer.end(monotonic() + ENDING_SECONDS)
        if self._is_ready:  # otherwise it may be another service's, which refused this one
            self._pids.unlink(missing_ok=True)


@contextmanager
def _signals() -> Iterator[Connection]:
    """A connection from which there is something to read once SIGTERM or SIGINT has come."""
    receiver, sender = get_context("spawn").Pipe(duplex=False)

    def note(*_: object) -> None:
        sender.send(None)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield receiver
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _forget_metrics(pid: int) -> None:
    """Take a dead process out of the gauges of those that live."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid)


@contextmanager
def runtime_folder() -> Iterator[Path]:
    """A folder that only this user may enter, for sockets and metrics, gone in the end.

    Prometheus's client keeps the metrics of the processes started in the block there.
    """
    folder = Path(tempfile.mkdtemp(prefix="pitwise-"))
    metrics = folder / "metrics"
    metrics.mkdir()
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
    try:
        yield folder
    finally:
        del os.environ["PROMETHEUS_MULTIPROC_DIR"]
        shutil.rmtree(folder, ignore_errors=True)
