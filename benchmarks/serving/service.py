"""A service in a copy of a finished run, so that what is measured leaves the run as it was."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

from pitwise.workspace import Workspace
from serving.processes.places import pids_file

PROJECT = Workspace(Path(__file__).resolve().parents[2])
READY_SECONDS = 180


def copied_run(run: Workspace, folder: Path, **serve: Any) -> Workspace:
    """What serving needs of a run, in `folder`, with windows in SQLite and limits that do not bite.

    The registry's models stay where they are; aliases are the copy's own.

    Args:
        serve: of section `serve` of the copy's params, such as `workers`.
    """
    copy = Workspace(folder)
    copy.feast_repo.mkdir(parents=True)
    shutil.copy(PROJECT.feast_repo / "feature_store.yaml", copy.feast_repo)
    for part in ("landing", "bars", "clean", "features", "feast"):
        shutil.copytree(run.root / "data" / part, folder / "data" / part)
    shutil.copy2(run.root / "mlflow.db", folder)
    params = yaml.safe_load(run.params.read_text())
    defaults = yaml.safe_load(PROJECT.params.read_text())
    params["serve"] = defaults["serve"] | {"requests_per_minute": 10_000_000} | serve
    params["registry"]["tracking_uri"] = "sqlite:///mlflow.db"
    params["predict"] = defaults["predict"] | {"log_url": "sqlite:///data/predictions/log.db"}
    copy.params.write_text(yaml.safe_dump(params))
    return copy


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Process:
    """A server on loopback that can be killed and started again on its port."""

    def __init__(
        self, folder: Path, command: Sequence[str], port: int, ready: str, pids: Path | None = None
    ):
        self.folder, self.command = folder, command
        self.url = f"http://127.0.0.1:{port}"
        self._ready, self._pids = self.url + ready, pids
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> "Process":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGTERM)

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    @property
    def output(self) -> Path:
        return self.folder / f"{Path(self.command[0]).name}.out"

    def start(self) -> float:
        """Start it; the seconds until it was ready.

        Raises:
            RuntimeError: it ended, or was not ready in time; with its output.
        """
        started = time.perf_counter()
        environment = os.environ | {"PYTHONPATH": str(PROJECT.root)}
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                self.command, cwd=self.folder, env=environment, stdout=output, stderr=output
            )
        while not self._answers():
            late = time.perf_counter() - started > READY_SECONDS
            if late or self._process.poll() is not None:
                self.stop(signal.SIGKILL)
                raise RuntimeError(f"{' '.join(self.command)}: not ready\n{self.output.read_text()}")
            time.sleep(0.02)
        return time.perf_counter() - started

    def roles(self) -> dict[str, psutil.Process]:
        """The processes of `pitwise serve` by what they do: `supervisor`, `writer`, `reader-0`, ..."""
        assert self._pids
        pids = json.loads(self._pids.read_text())
        return {role: psutil.Process(pid) for role, pid in pids.items() if psutil.pid_exists(pid)}

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self._ready, timeout=5) as answer:
                is_ready = answer.status == 200
            # The file of a service that was killed may still be there.
            noted = json.loads(self._pids.read_text())["supervisor"] if self._pids else self.pid
            return is_ready and noted == self.pid
        except OSError:  # not listening yet, or 503
            return False

    def stop(self, how: signal.Signals) -> int:
        """Signal it and wait for its end; its exit code."""
        assert self._process
        self._process.send_signal(how)
        try:
            return self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def outliving(processes: Mapping[str, psutil.Process], seconds: float) -> list[str]:
    """Of processes by role those that have not ended within some seconds."""
    psutil.wait_procs(list(processes.values()), timeout=seconds)
    return [role for role, process in processes.items() if process.is_running()]


def pitwise_serve(workspace: Workspace) -> Process:
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "pitwise.cli", "serve", "--port", str(port)]
    return Process(workspace.root, command, port, "/readyz", pids_file(workspace))


def feast_serve(folder: Path) -> Process:
    """Feast's own feature server; it would otherwise start anew every thousand requests."""
    port = free_port()
    feast = str(Path(sys.executable).with_name("feast"))
    command = [feast, "serve", "--port", str(port), "--no-access-log", "--max-requests", "0"]
    return Process(folder, command, port, "/health")
