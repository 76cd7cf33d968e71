"""Ingest to features as the market grows: 50, 500 and 5,000 synthetic symbols of ten years.

Each stage in a process of its own: seconds and peak memory. It runs in runs/benchmark.
"""

import argparse
import shutil

from market import PROJECT
from pipeline import NAME, measured
from ruamel.yaml import YAML

from pitwise.init import run_below

STAGES = {"ingest": "pitwise.ingest", "clean": "pitwise.cleaning", "features": "pitwise.features"}
SESSIONS = 2520
FAULTS = {"split": 2, "spin_off": 1, "jump": 2, "bad_print": 2, "gap": 1}
"""Planted for every ten symbols."""


def run(symbols: int) -> list[tuple[float, float]]:
    """Seconds and peak GiB of each stage."""
    shutil.rmtree(PROJECT.root / "runs" / NAME, ignore_errors=True)
    workspace = run_below(PROJECT, NAME, "synthetic")
    yaml = YAML()
    params = yaml.load(workspace.params)
    planted = {kind: n * symbols // 10 for kind, n in FAULTS.items()}
    params["synthetic"] |= {"symbols": symbols, "sessions": SESSIONS, "faults": planted}
    yaml.dump(params, workspace.params)
    return [measured(workspace, f"python -m {module}") for module in STAGES.values()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, nargs="+", default=[50, 500, 5000])
    table = [(n, run(n)) for n in parser.parse_args().symbols]
    print(f"\n| symbols | bars | {' | '.join(STAGES)} | all, seconds | peak GiB |")
    print("|---" * (len(STAGES) + 4) + "|")
    for symbols, stages in table:
        cells = [f"{seconds:.1f} s, {memory:.2f} GiB" for seconds, memory in stages]
        total, most = sum(s for s, _ in stages), max(m for _, m in stages)
        bars = f"{symbols * SESSIONS / 1e6:.2f} M"
        print(f"| {symbols:,} | {bars} | {' | '.join(cells)} | {total:.0f} | {most:.2f} |")
