"""Connections of a reader are bounded in number, and a request in the time that it takes to come."""

import asyncio
import json
import resource
from contextlib import asynccontextmanager

import pytest
import uvicorn

from serving.processes import connections
from serving.processes.connections import BoundedProtocol, bounded_protocol

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def hello(scope, receive, send) -> None:
    """Reads the body, then answers."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


@asynccontextmanager
async def served(protocol):
    """The port of a server over `hello`."""
    config = uvicorn.Config(hello, port=0, http=protocol, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def asked(reader, writer) -> bytes:
    writer.write(REQUEST)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert head.startswith(b"HTTP/1.1 200")
    return await reader.readexactly(5)


class Two(BoundedProtocol):
    most = 2


def test_one_connection_too_many_is_refused_and_those_there_go_on():
    async def run():
        async with served(Two) as port:
            there = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
            for connection in there:
                assert await asked(*connection) == b"hello"
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            answer = await asyncio.wait_for(reader.read(), 10)
            writer.close()
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1" in head
            problem = json.loads(body)
            assert problem["type"] == "/problems/busy"
            assert "2 connections" in problem["detail"]
            assert problem["request_id"]
            # One that goes makes room.
            for connection in there:
                assert await asked(*connection) == b"hello"
            there[0][1].close()
            await asyncio.sleep(0.1)
            connection = await asyncio.open_connection("127.0.0.1", port)
            assert await asked(*connection) == b"hello"
            for _, writer in (*there, connection):
                writer.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    "part",
    [
        b"",
        REQUEST[:10],
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf",
    ],
    ids=["nothing", "half a head", "half a body"],
)
def test_a_request_that_does_not_come_ends_its_connection(monkeypatch, part):
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.2)

    async def run():
        async with served(Two) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(part)
            assert b"200" not in await asyncio.wait_for(reader.read(), 10)
            writer.close()
            # The second request of a connection likewise.
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await asked(reader, writer) == b"hello"
            writer.write(part or REQUEST[:10])
            assert b"200" not in await asyncio.wait_for(reader.read(), 10)
            writer.close()

    asyncio.run(run())


def test_the_time_is_the_requests_and_not_the_answers_or_the_connections(monkeypatch):
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.3)

    async def run():
        async with served(Two) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(4):
                assert await asked(reader, writer) == b"hello"
                await asyncio.sleep(0.15)
            await asyncio.sleep(0.4)  # idle between two requests: that is for keep-alive to bound
            assert await asked(reader, writer) == b"hello"
            writer.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("limits", "raised", "most"),
    [
        ((1024, 4096), (1100, 4096), 1000),
        ((256, 512), (512, 512), 412),
        ((4096, 4096), None, 1000),
        ((256, resource.RLIM_INFINITY), (1100, resource.RLIM_INFINITY), 1000),
    ],
)
def test_there_are_no_more_connections_than_files(monkeypatch, limits, raised, most):
    set_to = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: set_to.append(pair))
    assert bounded_protocol().most == most
    assert set_to == ([raised] if raised else [])
