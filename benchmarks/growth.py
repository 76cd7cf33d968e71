"""From landing to dataset as the market grows, and one evening more of 500 symbols.

`python benchmarks/growth.py` takes 50, 500 and 5,000 synthetic symbols of ten years, each stage in a
process of its own: seconds, the processor's too, and the peak memory of all processes together.
`--symbols 20000` is 50 million bars, which take 60 GB of disk; `--engine ray` is Ray on this machine.
`--evening` brings one new session into the market of 500 symbols, without training: `pitwise update` and
what it spends where. All run in runs/benchmark.
"""

import argparse
import shutil

import pandas as pd
from market import PROJECT, seconds
from pipeline import NAME, Measured, measured
from ruamel.yaml import YAML

from pitwise.bars.landing import Landing, first_to_last, land, newest_close
from pitwise.init import run_below
from pitwise.simulation.market import SyntheticParams, synthetic_market
from pitwise.stage import load_params
from pitwise.workspace import Workspace

STAGES = {
    "load": "pitwise.cli load",
    "bars": "pitwise.bars",
    "clean": "pitwise.cleaning",
    "features": "pitwise.features",
    "publish": "feature_repo.publish",
    "dataset": "training.dataset",
}
SESSIONS = 2520
FAULTS = {"split": 2, "spin_off": 1, "jump": 2, "bad_print": 2, "gap": 1}
"""Planted for every ten symbols."""


def made(symbols: int, engine: str = "local") -> Workspace:
    """A new workspace whose source is a made market of that many symbols."""
    shutil.rmtree(PROJECT.root / "runs" / NAME, ignore_errors=True)
    workspace = run_below(PROJECT, NAME, "synthetic")
    yaml = YAML()
    params = yaml.load(workspace.params)
    planted = {kind: n * symbols // 10 for kind, n in FAULTS.items()}
    params["synthetic"] |= {"symbols": symbols, "sessions": SESSIONS, "faults": planted}
    params["engine"]["kind"] = engine
    yaml.dump(params, workspace.params)
    return workspace


def run(symbols: int, engine: str) -> list[Measured]:
    """What each stage took."""
    workspace = made(symbols, engine)
    return [measured(workspace, f"python -m {module}") for module in STAGES.values()]


def landed(workspace: Workspace, bars: pd.DataFrame, history: str) -> None:
    land(
        workspace, Landing(bars, "synthetic", newest_close(bars), "traded", history, first_to_last(bars))
    )


def evening(symbols: int) -> list[tuple[str, float, float, float]]:
    """(what, seconds, of the processor, peak GiB) of one session more, after a run with all but that."""
    from serving.evening import forecast

    workspace = made(symbols)
    bars = synthetic_market(load_params(workspace, "synthetic", SyntheticParams)).bars
    last = bars["date"].max()
    landed(workspace, bars[bars["date"] < last], "assumed")
    measured(workspace, "python -m pitwise.cli run")
    landed(workspace, bars[bars["date"] == last], "observed")
    table = [("pitwise update", *measured(workspace, "python -m pitwise.cli update"))]
    table += [
        (name, *measured(workspace, f"python -m {STAGES[name]}"))
        for name in ("bars", "clean", "features", "publish")
    ]
    nan = float("nan")
    table.append(("forecasts, in process", seconds(lambda: forecast(workspace)), nan, nan))
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, nargs="+", default=[50, 500, 5000])
    parser.add_argument("--evening", action="store_true", help="one session more of 500 symbols")
    parser.add_argument("--engine", default="local", choices=["local", "ray"])
    given = parser.parse_args()
    if given.evening:
        print("\n| one session more | seconds | of the processor | peak GiB |\n|---|---|---|---|")
        for what, taken, processor, memory in evening(500):
            print(f"| {what} | {taken:.1f} | {processor:.1f} | {memory:.2f} |", flush=True)
        raise SystemExit
    print(f"\n| symbols | bars | {' | '.join(STAGES)} | all, seconds | peak GiB |")
    print("|---" * (len(STAGES) + 4) + "|")
    for symbols in given.symbols:
        stages = run(symbols, given.engine)
        cells = [
            f"{taken:.1f} s ({processor:.1f}), {memory:.2f} GiB" for taken, processor, memory in stages
        ]
        total, most = sum(stage.seconds for stage in stages), max(stage.memory for stage in stages)
        bars = f"{symbols * SESSIONS / 1e6:.2f} M"
        print(f"| {symbols:,} | {bars} | {' | '.join(cells)} | {total:.0f} | {most:.2f} |", flush=True)
