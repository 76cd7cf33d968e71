"""A finished run's test figures on one stock, beside persistence: `python benchmarks/one_stock.py ZTS`.

Run it in the workspace whose results it should read, such as runs/csv.
"""

import argparse

import numpy as np
import pandas as pd

from feature_repo.artifacts import TEST_PREDICTIONS, read_parquet
from feature_repo.errors import DataError
from feature_repo.stage import load_params, run_stage
from training import KINDS
from training.baselines import of_model, persistence
from training.evaluate import EvaluateParams, measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("symbol")
    symbol = parser.parse_args().symbol
    answers = read_parquet(TEST_PREDICTIONS)
    stock = answers[answers["symbol"] == symbol].reset_index(drop=True)
    if stock.empty:
        raise DataError(f"{TEST_PREDICTIONS}: has no '{symbol}'. Run in the workspace that forecast it.")
    params = load_params("evaluate", EvaluateParams)
    forecasts = {
        kind: of_model(stock[f"{kind}_log_return"].to_numpy(), stock[f"{kind}_p_up"].to_numpy())
        for kind in KINDS
    }
    forecasts["persistence"] = persistence(len(stock))
    table = pd.DataFrame(
        {name: measure(forecast, stock, params) for name, forecast in forecasts.items()}
    )
    first, last = stock["event_timestamp"].min(), stock["event_timestamp"].max()
    print(f"{symbol}: {len(stock)} sessions, {first:%Y-%m-%d} to {last:%Y-%m-%d}")
    print(f"share of rises: {np.mean(stock['label'] > 0):.1%}")
    print(table.loc[["mape", "r2_price", "direction_accuracy"]].to_string())


if __name__ == "__main__":
    run_stage(main)
