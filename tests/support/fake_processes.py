"""`pitwise serve` with its real supervisor and readers, and a writer made by hand.

The market is four symbols; symbol i closed at 100 + i. The writer has a line in `began.txt` for each bar
that it begins to take, one in `taken.txt` for each taken, and commits the bar's close as the symbol's.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from pitwise.errors import StoreError
from pitwise.stage import run_stage
from pitwise.workspace import Workspace
from serving.http import server
from serving.http.service import BarOutcome
from serving.processes import supervisor
from serving.processes.child import Control
from serving.processes.places import bars_address, state_file
from serving.processes.remote import BarsServer
from serving.settings import ServeParams
from serving.state.database import StateWriter
from serving.state.market import ModelInfo, PartStatus, SymbolFeatures, SymbolForecast
from serving.supervised import Loop

SYMBOLS = ("AAPL", "MSFT", "LAGS", "OLD")
MODEL = ModelInfo(
    version="7",
    identity="7" * 64,
    kind="lstm",
    features=["close", "volume"],
    window=30,
    since="2013-11-01T21:00:00+00:00",
    swaps=2,
    refused={"8": "p_up is not finite"},
    metadata={"kind": "lstm", "seed": 7},
)
CLOSE = "2013-11-01T20:00:00Z"
SESSION = 11_047
"""Any number: ages are differences."""


def forecast(i: int, close: float | None = None) -> SymbolForecast:
    """Of symbol i."""
    last_close = 100.0 + i if close is None else close
    return SymbolForecast(
        symbol=SYMBOLS[i],
        as_of=CLOSE,
        for_session="2013-11-04",
        horizon=1,
        session=SESSION,
        missing=0,
        last_close=last_close,
        score=0.0,
        log_return=0.0,
        price=last_close,
        p_up=0.5,
        scale=None,
        window_hash=f"{int(last_close * 100):016x}",
        provisional=False,
        unusual=None,
        suspect=None,
    )


def features(i: int) -> SymbolFeatures:
    return SymbolFeatures(SYMBOLS[i], CLOSE, SESSION, False, {"close": 100.0 + i, "rsi_14": None})


class FakeWriter:
    """Commits the four symbols, and the close of each bar that comes."""

    def __init__(self, workspace: Workspace, params: ServeParams, folder: Path, seconds: float):
        self._database = StateWriter(state_file(workspace))
        self._seconds = seconds
        self._workspace = workspace
        market = range(len(SYMBOLS))
        if self._database.state is None:
            self._commit({SYMBOLS[i]: forecast(i) for i in market}, whole=True)
        self._bars = BarsServer(
            bars_address(folder), self._take, self._withdraw, params.max_waiting, params.bars_seconds
        )
        self._loop = Loop("writer", 0.1, self._report)
        self._report()
        self._loop.start()
        self._bars.start()

    def close(self) -> None:
        self._bars.stop(5)
        self._loop.stop(5)
        self._database.close()

    def _commit(self, forecasts: dict[str, SymbolForecast], whole: bool = False) -> None:
        rows = {symbol: features(SYMBOLS.index(symbol)) for symbol in forecasts}
        self._database.commit(MODEL, SESSION, CLOSE, forecasts, rows, {}, whole)

    def _report(self) -> None:
        at = time.time()
        self._database.report(
            {"writer": PartStatus(True, "", 0, at), "bars": replace(self._bars.status, at=at)}
        )

    def _take(self, bars: Sequence[Mapping[str, Any]]) -> list[BarOutcome]:
        if any(bar["symbol"] == "FAULT" for bar in bars):
            raise RuntimeError("a fault of the writer's")
        self._note("began.txt", bars)
        time.sleep(self._seconds)
        self._note("taken.txt", bars)
        self._commit(
            {bar["symbol"]: forecast(SYMBOLS.index(bar["symbol"]), bar["close"]) for bar in bars}
        )
        return [BarOutcome(bar["symbol"], bar["date"], "new", "", True) for bar in bars]

    def _note(self, name: str, bars: Sequence[Mapping[str, Any]]) -> None:
        with self._workspace.path(name).open("a") as file:
            file.writelines(f"{bar['symbol']} {bar['close']}\n" for bar in bars)

    def _withdraw(self, symbol: str, date: str) -> BarOutcome:
        if symbol not in SYMBOLS:
            raise StoreError(f"{symbol}: the store does not take it.")
        return BarOutcome(symbol, date, "withdrawn", "", False)


def write(control: Control, name: str, root: Path, params: ServeParams, folder: Path) -> None:
    """In place of `serving.processes.writer.run`."""
    behaviour = (root / "behaviour").read_text()
    if behaviour == "broken":
        raise StoreError("the champion is not there.")
    if behaviour == "slow":
        print("building", flush=True)
        time.sleep(60)
    if behaviour == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    writer = FakeWriter(Workspace(root), params, folder, float(behaviour))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    control.ready(version=MODEL.version, symbols=len(SYMBOLS))
    beats = Loop("beats", 0.2, control.beat).start()
    control.wait_for_end()
    beats.stop(5)
    writer.close()
    print("closed", flush=True)


READY = re.compile(r"(http://127\.0\.0\.1:\d+) serves version 7 for 4 symbols, ready in \d+\.\d s\n")
BAR = {"symbol": "AAPL", "date": "2013-11-04", "open": 1, "high": 999, "low": 1, "close": 1, "volume": 1}


def launch(
    folder: Path, behaviour: str, ending_seconds: float = supervisor.ENDING_SECONDS, **params: Any
) -> subprocess.Popen:
    """`pitwise serve` in a workspace, from another working directory.

    Args:
        behaviour: the seconds that a post of bars takes, or what is wrong at the start: `broken`, a
            part is missing; `slow`, it takes a minute; `dies`, the writer is killed.
        ending_seconds: what the supervisor gives its children to end, beside the draining.
    """
    from support.fake_service import PARAMS

    predict = {"log_url": "sqlite:///log.db", "suspect": "mark"}
    sections = {"serve": PARAMS | params, "predict": predict}
    (folder / "params.yaml").write_text(yaml.safe_dump(sections))
    (folder / "behaviour").write_text(behaviour)
    with (folder / "stderr").open("a") as log:
        return subprocess.Popen(
            [sys.executable, __file__, folder, str(ending_seconds)],
            cwd=folder.parent,
            env=os.environ | {"PYTHONWARNINGS": "ignore", "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )


class Running:
    """A service that is ready."""

    def __init__(self, folder: Path, seconds: float = 0, **params: Any):
        self.folder = folder
        self.process = launch(folder, str(seconds), **params)
        assert self.process.stdout
        line = self.process.stdout.readline()
        found = READY.fullmatch(line)
        assert found, line + self.log()
        self.url = found[1]

    def pids(self) -> dict[str, int]:
        """By the processes' names."""
        return json.loads((self.folder / "data/serving/processes.json").read_text())

    def kill(self, name: str) -> int:
        """Kill a process that cannot see it coming; its id."""
        pid = self.pids()[name]
        os.kill(pid, signal.SIGKILL)
        return pid

    def lines(self, name: str) -> list[str]:
        """Of `began.txt` or `taken.txt`."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def end(self, by: int = signal.SIGTERM, seconds: float = 60) -> tuple[int, str]:
        """Exit code, and what it printed after it was ready."""
        self.process.send_signal(by)
        printed, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode, printed

    def log(self) -> str:
        return (self.folder / "stderr").read_text()

    def clear(self) -> None:
        """End it whatever its state: without the supervisor, its children end too."""
        self.process.kill()
        self.process.communicate()


if __name__ == "__main__":
    supervisor.HANGS_SECONDS, supervisor.LOOK_SECONDS = 5, 1
    supervisor.ENDING_SECONDS = float(sys.argv[2])
    run_stage(lambda _: server.run(Workspace(sys.argv[1]), None, None, write=write))
