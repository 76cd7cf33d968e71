"""A client that costs little beside the server that it measures: prepared requests on raw sockets.

It knows of HTTP/1.1 what the answers measured have: a status and a `Content-Length`. A request costs it
about 30 us of processor time, an `aiohttp` request five times as much.
"""

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import uvloop

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
NO_ANSWER = 0
"""In place of a status: the connection was lost."""


def prepared(url: str, body: Any = None, headers: dict[str, str] | None = None) -> bytes:
    """A request as it goes over the wire: a GET, or where there is a body a POST of JSON."""
    place = urlsplit(url)
    path = f"{place.path}?{place.query}" if place.query else place.path
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", f"Host: {place.netloc}"]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


class Connection(asyncio.Protocol):
    """A connection with at most one request under way."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._end: int | None = None
        self._answered: Callable[[int], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, request: bytes, answered: Callable[[int], None]) -> None:
        """Send a request; `answered` is called with the status of its answer, or with NO_ANSWER."""
        self._answered = answered
        if self.is_open:
            self._transport.write(request)  # type: ignore[union-attr]
        else:
            self._done(NO_ANSWER)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._end is None:
            head = self._received.find(b"\r\n\r\n")
            if head < 0:
                return
            length = LENGTH.search(self._received, 0, head)
            self._end = head + 4 + (int(length[1]) if length else 0)
        if len(self._received) >= self._end:
            status = int(self._received[9:12])
            self._received.clear()
            self._end = None
            self._done(status)

    def connection_lost(self, error: Exception | None) -> None:
        self._done(NO_ANSWER)

    def close(self) -> None:
        if self._transport:
            self._transport.close()

    def _done(self, status: int) -> None:
        answered, self._answered = self._answered, None
        if answered:
            answered(status)


async def connected(url: str) -> Connection:
    place = urlsplit(url)
    _, connection = await asyncio.get_running_loop().create_connection(
        Connection, place.hostname, place.port
    )
    return connection


class Load(NamedTuple):
    """Requests that leave on a schedule."""

    request: bytes
    rate: float
    """A second."""


class Measured(NamedTuple):
    milliseconds: list[float]
    """From when each request was due to its answer."""
    failed: int
    """Answers that were not 200, and requests without one."""


def open_loop(url: str, loads: Sequence[Load], seconds: float) -> list[Measured]:
    """Send several loads at once, each on its schedule, whatever the answers.

    A request that finds no idle connection opens one more.
    """
    return uvloop.run(_open_loop(url, loads, seconds))


async def _open_loop(url: str, loads: Sequence[Load], seconds: float) -> list[Measured]:
    start = perf_counter() + 0.1
    return list(await asyncio.gather(*(_on_schedule(url, load, start, seconds) for load in loads)))


async def _on_schedule(url: str, load: Load, start: float, seconds: float) -> Measured:
    idle = [await connected(url) for _ in range(4)]
    measured = Measured([], 0)
    failed = 0
    n = int(load.rate * seconds)
    under_way = n
    finished = asyncio.Event()

    def answered(status: int, due: float, connection: Connection) -> None:
        nonlocal failed, under_way
        measured.milliseconds.append(1e3 * (perf_counter() - due))
        failed += status != 200
        if connection.is_open:
            idle.append(connection)
        under_way -= 1
        if not under_way:
            finished.set()

    for i in range(n):
        due = start + i / load.rate
        await asyncio.sleep(max(due - perf_counter(), 0))
        connection = idle.pop() if idle else await connected(url)
        connection.ask(
            load.request,
            lambda status, due=due, connection=connection: answered(status, due, connection),
        )
    await asyncio.wait_for(finished.wait(), 60)
    for connection in idle:
        connection.close()
    return measured._replace(failed=failed)


def closed_loop(url: str, requests: Sequence[bytes], connections: int, seconds: float) -> Measured:
    """On every connection send the next request as soon as the last one is answered; in turns."""
    return uvloop.run(_closed_loop(url, requests, connections, seconds))


async def _closed_loop(
    url: str, requests: Sequence[bytes], connections: int, seconds: float
) -> Measured:
    milliseconds: list[float] = []
    failed = 0
    end = perf_counter() + seconds
    open_ones = [await connected(url) for _ in range(connections)]
    left = connections
    finished = asyncio.Event()

    def send(connection: Connection, turn: int) -> None:
        sent = perf_counter()

        def answered(status: int) -> None:
            nonlocal failed, left
            now = perf_counter()
            milliseconds.append(1e3 * (now - sent))
            failed += status != 200
            if now < end and connection.is_open:
                send(connection, turn + 1)
            else:
                left -= 1
                if not left:
                    finished.set()

        connection.ask(requests[turn % len(requests)], answered)

    for turn, connection in enumerate(open_ones):
        send(connection, turn)
    await asyncio.wait_for(finished.wait(), seconds + 60)
    for connection in open_ones:
        connection.close()
    return Measured(milliseconds, failed)
