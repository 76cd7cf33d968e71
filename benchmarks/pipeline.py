"""The cold pipeline, stage by stage: seconds and peak memory. On the sample, or on the whole market.

`python benchmarks/pipeline.py` or `python benchmarks/pipeline.py --market`; it runs in runs/benchmark.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time

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


def measured(workspace: Workspace, command: str) -> tuple[float, float]:
    """Seconds and peak resident GiB of one command in a workspace."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command.split()[1:]], cwd=workspace.root)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"error: {command} failed")
    return time.perf_counter() - start, usage.ru_maxrss * 1024 / 2**30


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
    print("\n| stage | seconds | peak GiB |\n|---|---|---|")
    for stage, taken, memory in table:
        print(f"| {stage} | {taken:.1f} | {memory:.2f} |")
    total, most = sum(row[1] for row in table), max(row[2] for row in table)
    print(f"| all | {total:.1f} | {most:.2f} |")
