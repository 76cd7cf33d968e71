"""Connections of a reader: how many there may be, and how long a request may take to come."""

import asyncio
import resource
import secrets
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.http.problems import Problem

MOST = 1000
"""At a time, of one reader."""
OTHER_FILES = 100
"""That a reader has open beside its connections."""
REQUEST_SECONDS = 30.0
"""For a request to come whole, from when its connection is there or its first byte is."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's, which has no bound on the time that a request takes to come.

    Its bound on connections would have it refuse the requests of those that are there; this one refuses
    the connection that is one too many.
    """

    most = MOST
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.write(_refusal(self.most))
            transport.close()
        else:
            self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._start_timer()
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self._stop_timer()
        super().on_message_complete()

    def _start_timer(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(REQUEST_SECONDS, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None


def bounded_protocol() -> type[BoundedProtocol]:
    """The protocol with as many connections as this process may have files open; it raises that to what
    the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < MOST + OTHER_FILES:
        soft = MOST + OTHER_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST + OTHER_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    class Bounded(BoundedProtocol):
        most = max(min(MOST, soft - OTHER_FILES), 1)

    return Bounded


def _refusal(most: int) -> bytes:
    """An answer to a request that was not read."""
    problem = Problem("busy", f"There are {most:,} connections already. Try again.")
    document: Any = problem.response(secrets.token_hex(8))
    head = (
        b"HTTP/1.1 503 Service Unavailable",
        b"content-type: application/problem+json",
        b"content-length: %d" % len(document.body),
        b"retry-after: 1",
        b"connection: close",
    )
    return b"\r\n".join(head) + b"\r\n\r\n" + document.body
