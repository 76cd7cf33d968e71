"""Stage `features`: daily features of every symbol and session, every version that was known."""

import sys

import pandas as pd

from pitwise.features.load import load_bars
from pitwise.stage import run_stage
from pitwise.workspace import Workspace, read_parquet


def main(workspace: Workspace) -> None:
    bars = read_parquet(workspace.clean_bars)
    print(load_bars(workspace, bars, pd.Timestamp.now("UTC"), progress=sys.stderr.isatty()))


if __name__ == "__main__":
    run_stage(main)
