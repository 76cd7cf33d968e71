"""Stage `ingest`: a source's bars, as they are, in one schema: `data/raw/bars.parquet`.

What was retrieved when, from where and with which content goes to `data/raw/retrievals.jsonl`.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pandas as pd

from pitwise.stage import Params, load_params, run_stage
from pitwise.workspace import Workspace, sha256, write_parquet


class IngestParams(Params):
    source: Literal["sample", "csv", "yfinance", "synthetic"]
    path: Path


def retrieved(workspace: Workspace, params: IngestParams) -> pd.DataFrame:
    """The bars of the source that `params` names, in the schema of `pitwise.bars.schema`."""
    if params.source == "sample":
        from pitwise.bars.sources.sample import sample_bars

        return sample_bars()
    if params.source == "csv":
        from pitwise.bars.sources.csv_files import csv_bars

        return csv_bars(workspace.path(params.path))
    if params.source == "yfinance":
        from pitwise.bars.sources.yahoo import YahooParams, yahoo_bars

        return yahoo_bars(load_params(workspace, "yfinance", YahooParams), workspace.yahoo_cache)
    from pitwise.simulation.market import SyntheticParams, synthetic_market

    market = synthetic_market(load_params(workspace, "synthetic", SyntheticParams))
    write_parquet(market.truth, workspace.planted_truth)
    return market.bars


def main(workspace: Workspace) -> None:
    params = load_params(workspace, "ingest", IngestParams)
    bars = retrieved(workspace, params)
    write_parquet(bars, workspace.raw_bars)
    record = {
        "retrieved_at": datetime.now(UTC).isoformat(),
        "source": params.source,
        "path": str(params.path) if params.source == "csv" else None,
        "rows": len(bars),
        "symbols": int(bars["symbol"].nunique()),
        "sha256": sha256(workspace.raw_bars),
    }
    with workspace.retrievals.open("a") as log:
        log.write(json.dumps(record) + "\n")
    print(f"{len(bars):,} rows of {bars['symbol'].nunique():,} symbols from {params.source}")


if __name__ == "__main__":
    run_stage(main)
