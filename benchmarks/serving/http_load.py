"""`pitwise serve` under load on loopback, beside Feast's own server, which only looks up.

`python -m benchmarks.serving.http_load runs/csv --workers 2` works on a copy of the finished run. Open
loop: requests leave on schedule whatever the answers, and latency counts from the scheduled time, so
waiting counts; large and small requests at once too. Closed loop: every connection sends its next
request when the last one is answered. The client is a process of its own on the same machine,
`benchmarks.serving.http_client`.
"""

import argparse
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from benchmarks.serving.http_client import Load, Measured, closed_loop, open_loop, prepared
from benchmarks.serving.lookup import PEER_VIEW, champion_windows, stock_store
from benchmarks.serving.service import Process, copied_run, feast_serve, pitwise_serve
from pitwise.stage import run_stage
from pitwise.workspace import Workspace

ALONE = ((1, 50), (1, 500), (500, 5))
"""Symbols a request, requests a second."""
TOGETHER = ((1, 50), (500, 5))
"""As ALONE, at the same time."""
SUSTAINED = ((1, (1, 4, 16)), (500, (1, 4)))
"""Symbols a request, and how many connections."""
WARM_UP_SECONDS = 3


@dataclass(frozen=True)
class Target:
    """A server, and how it is asked for some symbols."""

    name: str
    server: Process
    path: str
    features: Sequence[str] = ()
    """Of Feast's server: what to look up; empty for ours."""

    def request(self, symbols: Sequence[str]) -> bytes:
        body = {"features": self.features, "entities": {"symbol": symbols}}
        return prepared(self.server.url + self.path, body if self.features else {"symbols": symbols})


class Sustained(NamedTuple):
    rate: float
    """Requests a second."""
    busy: float
    """Seconds of processor time of the server's processes."""
    measured: Measured


class Client:
    """The client's process."""

    def __init__(self, pool: ProcessPoolExecutor, seconds: float):
        self._pool, self._seconds = pool, seconds

    def on_schedule(
        self, target: Target, symbols: Sequence[str], loads: Sequence[tuple[int, float]]
    ) -> list[Measured]:
        """Loads at once, each of a number of symbols and requests a second."""
        sent = [Load(target.request(symbols[:batch]), rate) for batch, rate in loads]
        self._pool.submit(open_loop, target.server.url, sent, WARM_UP_SECONDS).result()
        return self._pool.submit(open_loop, target.server.url, sent, self._seconds).result()

    def sustained(self, target: Target, requests: Sequence[bytes], connections: int) -> "Sustained":
        """As much as the server answers on so many connections."""
        args = (target.server.url, requests, connections)
        self._pool.submit(closed_loop, *args, WARM_UP_SECONDS).result()
        process = psutil.Process(target.server.pid)
        before = busy_seconds(process)
        measured = self._pool.submit(closed_loop, *args, self._seconds).result()
        busy = busy_seconds(process) - before
        return Sustained(len(measured.milliseconds) / self._seconds, busy, measured)


def times(measured: Measured) -> str:
    """p50, p90, p99 and the largest, in cells of a table, and how many failed."""
    of = np.percentile(measured.milliseconds, [50, 90, 99, 100])
    return " | ".join([*(f"{ms:.1f}" for ms in of), str(measured.failed)])


def busy_seconds(process: psutil.Process) -> float:
    """Processor time of a process and its children so far."""
    family = [process, *process.children(recursive=True)]
    return sum(sum(one.cpu_times()[:2]) for one in family)


def measure(targets: Sequence[Target], symbols: Sequence[str], client: Client) -> None:
    print("| server | symbols | requests/s | p50 ms | p90 ms | p99 ms | max ms | failed |")
    print("|---|---|---|---|---|---|---|---|")
    for loads in (*((load,) for load in ALONE), TOGETHER):
        for target in targets:
            if target.features and loads not in (((1, 50),), ((500, 5),)):
                continue  # it falls behind
            for (batch, rate), measured in zip(
                loads, client.on_schedule(target, symbols, loads), strict=True
            ):
                beside = ", together" if len(loads) > 1 else ""
                print(f"| {target.name}{beside} | {batch} | {rate} | {times(measured)} |", flush=True)

    head = ["server", "symbols", "connections", "requests/s", "predictions/s", "processor ms a request"]
    head += ["p50 ms", "p90 ms", "p99 ms", "max ms", "failed"]
    print(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for batch, connections in SUSTAINED:
        for n in connections:
            for target in targets:
                # Many different ones: an answer that is kept for one symbol would flatter.
                starts = range(0, len(symbols) - batch + 1, batch)
                requests = [target.request(symbols[start : start + batch]) for start in starts]
                sustained = client.sustained(target, requests, n)
                answered = len(sustained.measured.milliseconds)
                print(
                    f"| {target.name} | {batch} | {n} | {sustained.rate:,.0f} "
                    f"| {sustained.rate * batch:,.0f} | {1e3 * sustained.busy / answered:.2f} "
                    f"| {times(sustained.measured)} |",
                    flush=True,
                )


def main(project: Workspace) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path, nargs="?", default=Path("runs/csv"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=30, help="of each measurement")
    parser.add_argument("--without-peer", action="store_true", help="without Feast's own server")
    options = parser.parse_args()
    run = Workspace(project.path(options.workspace))
    with (
        tempfile.TemporaryDirectory() as name,
        ProcessPoolExecutor(1, get_context("spawn")) as pool,
    ):
        ours, stock = copied_run(run, Path(name) / "ours", workers=options.workers), Path(name) / "stock"
        predictor, windows = champion_windows(ours)
        features = list(predictor.model.features)
        with pitwise_serve(ours) as service:
            targets = [Target("pitwise serve, forecasts", service, "/v1/predict")]
            client = Client(pool, options.seconds)
            if options.without_peer:
                measure(targets, windows.symbols, client)
                return
            stock.mkdir()
            stock_store(stock, features, windows)
            with feast_serve(stock) as peer:
                refs = [f"{PEER_VIEW}:{name}" for name in features]
                targets.append(Target("feast serve, lookup only", peer, "/get-online-features", refs))
                measure(targets, windows.symbols, client)


if __name__ == "__main__":
    run_stage(main)
