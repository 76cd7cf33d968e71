"""Real servers for tests: PostgreSQL and Redis on loopback, each in a temporary folder of its own.

with postgres() as server:
    url = server.new_database()
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
import redis as redis_client

START_SECONDS = 30
DEBIAN_POSTGRES = "/usr/lib/postgresql"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A server process that can be stopped and started again on the same port and data."""

    command: list[str]
    user: str | None = None

    def __init__(self, folder: Path):
        self.folder, self.port = folder, free_port()
        self.process: subprocess.Popen | None = None

    def ready(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        output = self.folder / "output.txt"
        with output.open("a") as file:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, stdout=file, stderr=file, user=self.user
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"{self.command[0]} did not start:\n{output.read_text()}")
            time.sleep(0.05)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=START_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Postgres(Server):
    """PostgreSQL without passwords; `stop` cuts its clients off."""

    def __init__(self, folder: Path, binaries: Path):
        super().__init__(folder)
        data = folder / "data"
        if os.geteuid() == 0:  # PostgreSQL refuses to be root
            self.user = "nobody"
            shutil.chown(folder, self.user)
        initdb = [binaries / "initdb", "-D", data, "-U", "pitwise", "-A", "trust", "--no-sync"]
        subprocess.run(
            [*initdb, "-E", "UTF8", "--locale=C"],
            cwd=folder,
            user=self.user,
            check=True,
            capture_output=True,
            timeout=60,
        )
        self.command = [str(binaries / "postgres"), "-D", str(data), "-p", str(self.port)]
        settings = ["listen_addresses=127.0.0.1", f"unix_socket_directories={folder}"]
        settings.append(
            "fsync=off"
        )  # a shutdown waits for the disk, seconds on a busy one; no test cuts power
        for setting in settings:
            self.command += ["-c", setting]
        self.databases = 0

    def connect(self) -> psycopg.Connection:
        where = f"host=127.0.0.1 port={self.port} user=pitwise dbname=postgres connect_timeout=5"
        return psycopg.connect(where, autocommit=True)

    def ready(self) -> bool:
        with suppress(psycopg.OperationalError), self.connect():
            return True
        return False

    def stop(self) -> None:
        self.process.send_signal(2)  # SIGINT: does not wait for its clients to go
        super().stop()

    def new_database(self) -> str:
        """SQLAlchemy's URL of an empty database."""
        self.databases += 1
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE test{self.databases}")
        return f"postgresql+psycopg://pitwise@127.0.0.1:{self.port}/test{self.databases}"


class Redis(Server):
    """Redis that keeps what it was told over a restart."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.command = ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port)]
        self.command += ["--dir", str(folder), "--save", "", "--appendonly", "yes"]
        self.address = f"127.0.0.1:{self.port}"

    def ready(self) -> bool:
        with suppress(redis_client.ConnectionError), redis_client.Redis(port=self.port) as client:
            return client.ping()
        return False


@contextmanager
def running(make) -> Iterator:
    # Not pytest's tmp_path, whose parents only their owner may enter.
    with tempfile.TemporaryDirectory(prefix="pitwise-server-", ignore_cleanup_errors=True) as folder:
        server = make(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL; the test is skipped where none is installed."""
    # Debian keeps the newest version's binaries out of PATH.
    installed = [str(path) for path in sorted(Path(DEBIAN_POSTGRES).glob("*/bin"), reverse=True)]
    initdb = shutil.which("initdb", path=os.pathsep.join([*installed, os.environ["PATH"]]))
    if initdb is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    binaries = Path(initdb).resolve().parent
    with running(lambda folder: Postgres(folder, binaries)) as server:
        yield server


@contextmanager
def redis() -> Iterator[Redis]:
    """A running redis-server; the test is skipped where none is installed."""
    if shutil.which("redis-server") is None:
        pytest.skip("Redis is not installed (Debian: apt-get install redis-server)")
    with running(Redis) as server:
        yield server
