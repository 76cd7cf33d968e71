"""What befalls a service in the soak, and which requests may fail for it."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.serving.service import Process, outliving

Failure = Literal["no answer", "5xx"]
ANY = "any"
NO_ANSWER: frozenset[tuple[str, Failure]] = frozenset({(ANY, "no answer")})
ANYTHING: frozenset[tuple[str, Failure]] = frozenset({(ANY, "no answer"), (ANY, "5xx")})
NO_BARS: frozenset[tuple[str, Failure]] = frozenset({("bars", "5xx")})
NO_HISTORY: frozenset[tuple[str, Failure]] = frozenset({("history", "5xx")})
FOLLOWS_SECONDS = 30
"""Between the death of a supervisor and that of its last child, at most."""


@dataclass(frozen=True)
class Trouble:
    """One thing that happens to a service, and how it ends."""

    name: str
    begin: Callable[[], object]
    end: Callable[[], object] = lambda: None
    excuses: frozenset[tuple[str, Failure]] = frozenset()
    """What may fail from `begin` until the service is ready again: kind of request and failure."""
    shows: bool = False
    """Whether `/readyz` must say so before it ends."""

    def excuse(self, kind: str, failure: Failure) -> bool:
        return bool({(kind, failure), (ANY, failure)} & self.excuses)


def of_processes(service: Process) -> Iterator[Trouble]:
    """The death of each process of a service, and a writer that hangs."""

    def kill(role: str) -> Callable[[], object]:
        return lambda: service.roles()[role].kill()

    def kill_supervisor() -> None:
        family = service.roles()
        service.stop(signal.SIGKILL)
        if left := outliving(family, FOLLOWS_SECONDS):
            for role in left:
                family[role].kill()
            raise RuntimeError(f"{', '.join(left)} outlive the supervisor by {FOLLOWS_SECONDS} s")

    stopped: list[int] = []

    def hang() -> None:
        stopped.append(service.roles()["writer"].pid)
        os.kill(stopped[-1], signal.SIGSTOP)

    for role in sorted(service.roles()):
        if role.startswith("reader"):
            yield Trouble(f"kill {role}", kill(role), excuses=NO_ANSWER)
    yield Trouble("kill writer", kill("writer"), excuses=NO_BARS)
    yield Trouble(
        "writer hangs",
        hang,
        lambda: os.kill(stopped[-1], signal.SIGCONT),
        excuses=NO_BARS,
        shows=True,
    )
    yield Trouble("kill supervisor", kill_supervisor, service.start, excuses=ANYTHING)


def of_servers(redis: Any = None, postgres: Any = None) -> Iterator[Trouble]:
    """The death of the stores, `tests.support.servers`, and a Redis that has lost all it held."""
    if redis:
        yield Trouble("kill Redis", redis.kill, redis.start, excuses=NO_BARS, shows=True)
        yield Trouble("empty Redis", lambda: _emptied(redis), excuses=NO_BARS)
    if postgres:
        yield Trouble("kill PostgreSQL", postgres.kill, _start(postgres), excuses=NO_HISTORY)


def _emptied(redis: Any) -> None:
    redis.lose_data()
    redis.start()


def _start(server: Any) -> Callable[[], object]:
    def start() -> None:
        time.sleep(5)  # the log waits meanwhile
        server.start()

    return start
