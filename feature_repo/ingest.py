"""Stage `ingest`: a source's bars, as they are, in one schema: `data/raw/bars.parquet`.

What was retrieved when, from where and with which content goes to `data/raw/retrievals.jsonl`.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pandas as pd

from feature_repo.artifacts import RAW_BARS, RETRIEVALS, TRUTH, sha256, write_parquet
from feature_repo.csv_files import csv_bars, typed_bars
from feature_repo.stage import Params, load_params, run_stage


class IngestParams(Params):
    source: Literal["sample", "csv", "yfinance", "synthetic"]
    path: Path


def sample_bars() -> pd.DataFrame:
    """AAPL, FB, GOOG, IBM and MSFT, 2000-2013: prices as traded, with an adjusted close.

    Source: the PyPI package `bokeh-sampledata`; needs no network.
    """
    from bokeh_sampledata import stocks

    symbols = ["AAPL", "FB", "GOOG", "IBM", "MSFT"]
    bars = pd.concat(
        [pd.DataFrame(getattr(stocks, s)).assign(symbol=s) for s in symbols], ignore_index=True
    )
    return typed_bars(bars, "bokeh-sampledata")


def retrieved(params: IngestParams) -> pd.DataFrame:
    """The bars of the source that `params` names."""
    if params.source == "sample":
        return sample_bars()
    if params.source == "csv":
        return csv_bars(params.path)
    if params.source == "yfinance":
        from feature_repo.yahoo import YahooParams, yahoo_bars

        return yahoo_bars(load_params("yfinance", YahooParams))
    from feature_repo.synthetic import SyntheticParams, synthetic_market

    market = synthetic_market(load_params("synthetic", SyntheticParams))
    write_parquet(market.truth, TRUTH)
    return market.bars


def main() -> None:
    params = load_params("ingest", IngestParams)
    bars = retrieved(params)
    write_parquet(bars, RAW_BARS)
    record = {
        "retrieved_at": datetime.now(UTC).isoformat(),
        "source": params.source,
        "path": str(params.path) if params.source == "csv" else None,
        "rows": len(bars),
        "symbols": int(bars["symbol"].nunique()),
        "sha256": sha256(RAW_BARS),
    }
    with RETRIEVALS.open("a") as log:
        log.write(json.dumps(record) + "\n")
    print(f"{len(bars):,} rows of {bars['symbol'].nunique():,} symbols from {params.source}")


if __name__ == "__main__":
    run_stage(main)
