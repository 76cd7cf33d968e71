"""Resident memory of a service's processes over time, and whether it stays flat.

`python -m benchmarks.serving.memory runs/csv --predictions 1000000 --swaps 200` asks a service of a copy
of the finished run for so many forecasts, a symbol a request, while its champion changes so many times.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from benchmarks.serving.http_client import closed_loop, prepared
from benchmarks.serving.service import Process, copied_run, pitwise_serve
from pitwise.registry.champion import CHAMPION, registry_client
from pitwise.registry.model import RegistryParams
from pitwise.stage import load_params, run_stage
from pitwise.workspace import Workspace, read_parquet

MIB = 2**20
ALLOWED_SHARE, ALLOWED_MIB = 0.10, 16
"""How much more a process may hold in the last third of the time than in the first: a share of it, and
MiB beside."""
YOUNG_SECONDS = 20
"""A process that is younger is still loading."""
FEWEST = 100
"""Samples of each third, or nothing can be said: what a kind of request imports comes with the first."""
EVERY_SECONDS = 2.0
CONNECTIONS = 4


class Sample(NamedTuple):
    at: float
    """`time.time()`."""
    role: str
    pid: int
    mib: float


class Thirds(NamedTuple):
    """Median resident memory of the processes of a role."""

    first: float
    """MiB, in the first third of the time."""
    last: float
    processes: int
    """How many there were, one after the other."""

    @property
    def is_flat(self) -> bool:
        return self.last <= self.first * (1 + ALLOWED_SHARE) + ALLOWED_MIB


def thirds(samples: list[Sample]) -> dict[str, Thirds]:
    """By role; roles with too few samples are left out."""
    found = {}
    if not samples:
        return found
    begin, end = samples[0].at, samples[-1].at
    by_role = defaultdict(list)
    for sample in samples:
        by_role[sample.role].append(sample)
    for role, theirs in by_role.items():
        first = [s.mib for s in theirs if s.at <= begin + (end - begin) / 3]
        last = [s.mib for s in theirs if s.at >= end - (end - begin) / 3]
        if min(len(first), len(last)) >= FEWEST:
            pids = {s.pid for s in theirs}
            found[role] = Thirds(float(np.median(first)), float(np.median(last)), len(pids))
    return found


def growing(samples: list[Sample]) -> list[str]:
    """The roles whose processes take more and more memory, in words."""
    return [
        f"{role}: {of.first:.0f} MiB in the first third, {of.last:.0f} in the last"
        for role, of in thirds(samples).items()
        if not of.is_flat
    ]


@contextmanager
def sampled(service: Process) -> Iterator[list[Sample]]:
    """The resident memory of a service's processes, looked at in a thread meanwhile."""
    samples: list[Sample] = []
    ending = threading.Event()

    def look() -> None:
        while not ending.wait(EVERY_SECONDS):
            try:
                roles = service.roles()
            except (psutil.Error, OSError):  # it has just been killed
                continue
            for role, process in roles.items():
                try:
                    now = time.time()
                    if now - process.create_time() > YOUNG_SECONDS:
                        mib = process.memory_info().rss / MIB
                        samples.append(Sample(now, role, process.pid, mib))
                except psutil.Error:
                    continue

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        ending.set()
        thread.join()


def main(project: Workspace) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path, nargs="?", default=Path("runs/csv"))
    parser.add_argument("--predictions", type=int, default=1_000_000)
    parser.add_argument("--swaps", type=int, default=200)
    parser.add_argument("--readers", type=int, default=2)
    options = parser.parse_args()
    run = Workspace(project.path(options.workspace))
    with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor(1, get_context("spawn")) as client:
        workspace = copied_run(run, Path(name) / "run", workers=options.readers, champion_seconds=0.5)
        registry = load_params(workspace, "registry", RegistryParams)
        models = registry_client(workspace, registry)
        found = models.search_model_versions(f"name='{registry.model}'")
        versions = sorted(str(version.version) for version in found)
        symbols = sorted(read_parquet(workspace.window_features, ["symbol"])["symbol"].unique())
        with pitwise_serve(workspace) as service, sampled(service) as samples:
            url = f"{service.url}/v1/predict"
            requests = [prepared(url, {"symbols": [symbol]}) for symbol in symbols]
            answered = failed = swaps = 0
            began = time.perf_counter()
            while answered < options.predictions or swaps < options.swaps:
                models.set_registered_model_alias(
                    registry.model, CHAMPION, versions[swaps % len(versions)]
                )
                swaps += 1
                # As long as it takes until all swaps are due with the last prediction.
                wanted = options.predictions * swaps / options.swaps
                while answered < wanted:
                    measured = client.submit(closed_loop, url, requests, CONNECTIONS, 1.0).result()
                    answered += len(measured.milliseconds)
                    failed += measured.failed
                if swaps % 20 == 0:
                    latest = {sample.role: round(sample.mib) for sample in samples[-8:]}
                    print(f"{answered:,} predictions, {swaps} swaps, MiB: {latest}", flush=True)
            seconds = time.perf_counter() - began
    print(f"{answered:,} predictions in {seconds:.0f} s, {swaps} swaps, {failed} failed")
    for role, of in thirds(samples).items():
        print(f"{role}: {of.first:.0f} MiB in the first third, {of.last:.0f} in the last")
    wrong = growing(samples)
    print(*wrong, sep="\n")
    sys.exit(1 if wrong or failed else 0)


if __name__ == "__main__":
    run_stage(main)
