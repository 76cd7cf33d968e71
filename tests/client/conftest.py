"""The API over fakes behind a real server on loopback, and servers that answer what a test says."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import uvicorn
from support.fake_service import fake_service

from pitwise.client import Client
from serving.http.routes import stream


@contextmanager
def running(app, port: int = 0) -> Iterator[str]:
    """The url of a server of the app, until the block ends."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            app.state.ending.set()
            server.should_exit = True
            thread.join(timeout=30)
            assert not thread.is_alive()


class Scripted:
    """A server that gives one answer of its script after the other, and keeps what it was asked.

    Args:
        script: (status, headers, body) of each answer; None: the connection breaks without one,
            as it does after the last.
    """

    def __init__(self, script):
        self.script = list(script)
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                scripted.asked.append((self.command, self.path, dict(self.headers), body))
                answer = scripted.script.pop(0) if scripted.script else None
                if answer is None:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                status, headers, content = answer
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = answer  # noqa: N815

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def scripted():
    """Makes a scripted server; each is closed in the end."""
    servers = []

    def made(*script) -> Scripted:
        servers.append(Scripted(script))
        return servers[-1]

    yield made
    for server in servers:
        server.close()


@pytest.fixture
def serving():
    """Serves an app: a context manager of its url."""
    return running


@pytest.fixture
def service(monkeypatch):
    monkeypatch.setattr(stream, "LOOK_SECONDS", 0.01)
    return fake_service()


@pytest.fixture
def connected():
    """Makes a client of a url that is closed in the end."""
    clients = []

    def made(url: str, **options) -> Client:
        clients.append(Client(url, **options))
        return clients[-1]

    yield made
    for client in clients:
        client.close()
