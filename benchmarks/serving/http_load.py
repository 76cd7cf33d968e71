"""`pitwise serve` under load on loopback, beside Feast's own server, which only looks up.

`python -m benchmarks.serving.http_load runs/csv` works on a copy of the finished run. Open loop:
requests leave on schedule whatever the answers, and latency counts from the scheduled time, so waiting
counts. Closed loop: every connection sends its next request when the last one is answered. The client
is a process of its own.
"""

import argparse
import asyncio
import tempfile
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

import aiohttp
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.serving.lookup import PEER_VIEW, champion_windows, stock_store
from benchmarks.serving.service import Process, copied_run, feast_serve, pitwise_serve
from pitwise.stage import run_stage
from pitwise.workspace import Workspace

LOADS = ((1, 50), (500, 5))
"""Symbols a request, requests a second."""
SECONDS = 60
WARM_UP_SECONDS = 3
CONNECTIONS = (1, 2, 4, 8)
CLOSED_SECONDS = 10


@dataclass(frozen=True)
class Target:
    name: str
    server: Process
    path: str
    features: Sequence[str]
    """Of Feast's server: what to look up; empty for ours."""

    def body(self, symbols: Sequence[str]) -> dict[str, Any]:
        if self.features:
            return {"features": self.features, "entities": {"symbol": symbols}}
        return {"symbols": symbols}


async def _send(session: aiohttp.ClientSession, url: str, body: dict) -> int:
    """1 for an answer that is not 200, or for none."""
    try:
        async with session.post(url, json=body) as answer:
            await answer.read()
            return int(answer.status != 200)
    except aiohttp.ClientError:
        return 1


async def _open_loop(url: str, body: dict, rate: float, seconds: float) -> tuple[list[float], int]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        start = perf_counter()

        async def one(due: float) -> tuple[float, int]:
            failed = await _send(session, url, body)
            return 1e3 * (perf_counter() - due), failed

        sent = []
        for due in start + np.arange(0, seconds, 1 / rate):
            await asyncio.sleep(max(due - perf_counter(), 0))
            sent.append(asyncio.create_task(one(due)))
        answers = await asyncio.gather(*sent)
    return [taken for taken, _ in answers], sum(failed for _, failed in answers)


async def _closed_loop(url: str, body: dict, connections: int, seconds: float) -> tuple[int, int]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        end = perf_counter() + seconds

        async def one() -> tuple[int, int]:
            answered = failed = 0
            while perf_counter() < end:
                failed += await _send(session, url, body)
                answered += 1
            return answered, failed

        answers = await asyncio.gather(*(one() for _ in range(connections)))
    return sum(answered for answered, _ in answers), sum(failed for _, failed in answers)


def open_loop(url: str, body: dict, rate: float, seconds: float) -> tuple[list[float], int]:
    """Milliseconds from when each request was due to its answer, and how many failed."""
    asyncio.run(_open_loop(url, body, rate, WARM_UP_SECONDS))
    return asyncio.run(_open_loop(url, body, rate, seconds))


def closed_loop(url: str, body: dict, connections: int, seconds: float) -> tuple[int, int]:
    """How many requests were answered, and how many of these failed."""
    return asyncio.run(_closed_loop(url, body, connections, seconds))


def steps(url: str) -> dict[str, tuple[float, float]]:
    """Seconds and observations of each step, of the histogram that has a label `step`."""
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    found = {
        (sample.labels["step"], sample.name.rpartition("_")[2]): sample.value
        for family in families
        for sample in family.samples
        if "step" in sample.labels and sample.name.endswith(("_sum", "_count"))
    }
    return {step: (found[step, "sum"], found[step, "count"]) for step, _ in found}


def measure(targets: Sequence[Target], symbols: Sequence[str], client: ProcessPoolExecutor) -> None:
    print("| server | symbols | requests/s | p50 ms | p90 ms | p99 ms | max ms | failed |")
    print("|---|---|---|---|---|---|---|---|")
    spent = []
    for batch, rate in LOADS:
        for target in targets:
            url, body = target.server.url + target.path, target.body(symbols[:batch])
            before = {} if target.features else steps(target.server.url)
            taken, failed = client.submit(open_loop, url, body, rate, SECONDS).result()
            times = " | ".join(f"{ms:.1f}" for ms in np.percentile(taken, [50, 90, 99, 100]))
            print(f"| {target.name} | {batch} | {rate} | {times} | {failed} |", flush=True)
            after = {} if target.features else steps(target.server.url)
            for step, (seconds, count) in after.items():
                old_seconds, old_count = before.get(step, (0.0, 0.0))
                if count > old_count:
                    mean = 1e3 * (seconds - old_seconds) / (count - old_count)
                    spent.append(f"| {step} | {batch} | {mean:.2f} |")
    print("\n| step of ours | symbols | mean ms |\n|---|---|---|", *spent, sep="\n")

    print("\n| server | symbols | connections | requests/s | predictions/s | failed |")
    print("|---|---|---|---|---|---|")
    for batch, _ in LOADS:
        for connections in CONNECTIONS:
            for target in targets:
                url, body = target.server.url + target.path, target.body(symbols[:batch])
                load = (url, body, connections, CLOSED_SECONDS)
                answered, failed = client.submit(closed_loop, *load).result()
                rate = answered / CLOSED_SECONDS
                print(
                    f"| {target.name} | {batch} | {connections} | {rate:,.0f} | {rate * batch:,.0f} "
                    f"| {failed} |",
                    flush=True,
                )


def main(project: Workspace) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path, nargs="?", default=Path("runs/csv"))
    run = Workspace(project.path(parser.parse_args().workspace))
    with (
        tempfile.TemporaryDirectory() as name,
        ProcessPoolExecutor(1, get_context("spawn")) as client,
    ):
        ours, stock = copied_run(run, Path(name) / "ours"), Path(name) / "stock"
        predictor, windows = champion_windows(ours)
        features = list(predictor.model.features)
        stock.mkdir()
        stock_store(stock, features, windows)
        with pitwise_serve(ours) as service, feast_serve(stock) as peer:
            refs = [f"{PEER_VIEW}:{name}" for name in features]
            targets = (
                Target("pitwise serve, forecasts", service, "/v1/predict", ()),
                Target("feast serve, lookup only", peer, "/get-online-features", refs),
            )
            measure(targets, windows.symbols, client)


if __name__ == "__main__":
    run_stage(main)
