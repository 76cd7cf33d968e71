"""The full market the benchmarks run on, and how they time: medians of several runs."""

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from pitwise.bars.sources.csv_files import csv_bars
from pitwise.cleaning.clean import CleanParams, clean
from pitwise.stage import load_params
from pitwise.workspace import Workspace

PROJECT = Workspace(Path(__file__).resolve().parent.parent)
"""Whose params the benchmarks take."""


def market_path() -> Path:
    """`PITWISE_SP500_CSV`, or an exit with a message that describes it."""
    path = os.environ.get("PITWISE_SP500_CSV")
    if not path or not Path(path).exists():
        sys.exit(
            "error: set PITWISE_SP500_CSV to the S&P 500 file (symbol,date,open,high,low,close,volume)"
        )
    return Path(path)


def clean_bars() -> pd.DataFrame:
    bars, _, _ = clean(csv_bars(market_path()), load_params(PROJECT, "clean", CleanParams))
    return bars


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(
    name: str, ours: Callable[[], object], peer: str, theirs: Callable[[], object], runs: int
) -> None:
    """Time both in turn, after a warm-up each, and print medians and their ratio."""
    ours(), theirs()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(runs)]
    mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(
        f"{name}: {mine:.2f} s; {peer}: {other:.2f} s; ratio {ratio:.2f} (medians of {runs})", flush=True
    )
