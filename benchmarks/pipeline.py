"""The cold pipeline, stage by stage, on the sample or on the whole market: seconds and peak memory.

`python benchmarks/pipeline.py` or `python benchmarks/pipeline.py --market`; it runs in runs/benchmark.
"""

import argparse
import os
import shutil
import subprocess
import sys
import threading
import time
from typing import NamedTuple

import psutil
import yaml
from market import PROJECT, market_path

from pitwise.init import run_below
from pitwise.workspace import Workspace

NAME = "benchmark"
"""Of the workspace below runs/."""


def stages(document: dict) -> dict[str, str]:
    """Command of each stage, in the order of the file, which is the order in which they run."""
    commands = {}
    for name, stage in document["stages"].items():
        for item in stage.get("foreach", [None]):
            command = stage.get("do", stage)["cmd"]
            commands[f"{name}@{item}" if item else name] = command.replace("${item}", str(item))
    return commands


class Measured(NamedTuple):
    """What a command took, and all processes that it started."""

    seconds: float
    processor: float
    """Seconds of the processor; of processes that their parents have waited for, as Ray does not."""
    memory: float
    """Peak GiB of all processes together, pages that they share counted once (PSS)."""


def measured(workspace: Workspace, command: str) -> Measured:
    """What one command took in a workspace."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command.split()[1:]], cwd=workspace.root)
    started = psutil.Process(process.pid)
    peaks: list[int] = []
    watch = threading.Thread(target=lambda: peaks.append(_peak_memory(started)))
    watch.start()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    watch.join()
    if status:
        sys.exit(f"error: {command} failed")
    return Measured(seconds, usage.ru_utime + usage.ru_stime, peaks[0] / 2**30)


def _peak_memory(process: psutil.Process) -> int:
    """Bytes, looked at twice a second until the process has ended."""
    peak = 0
    while True:
        try:
            memory = [_pss(each) for each in (process, *process.children(recursive=True))]
        except psutil.Error:
            return peak
        if not memory[0]:
            return peak
        peak = max(peak, sum(memory))
        time.sleep(0.5)  # each look takes the kernel milliseconds for every GiB


def _pss(process: psutil.Process) -> int:
    """Bytes; 0 of a process that has ended meanwhile."""
    try:
        return process.memory_full_info().pss
    except psutil.Error:
        return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--market", action="store_true", help="the whole market of PITWISE_SP500_CSV")
    market = parser.parse_args().market
    source, data = ("csv", market_path()) if market else ("sample", None)
    shutil.rmtree(PROJECT.root / "runs" / NAME, ignore_errors=True)
    workspace = run_below(PROJECT, NAME, source, data)
    document = yaml.safe_load((PROJECT.root / "dvc.yaml").read_text())
    table = []
    for stage, command in stages(document).items():
        table.append((stage, *measured(workspace, command)))
    print("\n| stage | seconds | of the processor | peak GiB |\n|---|---|---|---|")
    for stage, taken, processor, memory in table:
        print(f"| {stage} | {taken:.1f} | {processor:.1f} | {memory:.2f} |")
    total, spent = (sum(row[column] for row in table) for column in (1, 2))
    print(f"| all | {total:.1f} | {spent:.1f} | {max(row[3] for row in table):.2f} |")
