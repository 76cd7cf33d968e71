"""A finished run's test figures on one stock, beside persistence: `python benchmarks/one_stock.py ZTS`.

Run it in the workspace whose results it should read, such as runs/csv.
"""

import argparse
from functools import partial

import numpy as np
import pandas as pd

from pitwise.errors import DataError
from pitwise.evaluation.baselines import of_model, persistence
from pitwise.stage import load_params, run_stage
from pitwise.workspace import Workspace, read_parquet
from training import KINDS
from training.evaluate import EvaluateParams, measure


def main(workspace: Workspace, symbol: str) -> None:
    answers = read_parquet(workspace.test_predictions)
    stock = answers[answers["symbol"] == symbol].reset_index(drop=True)
    if stock.empty:
        raise DataError(
            f"{workspace.test_predictions}: has no '{symbol}'. Run in the workspace that forecast it."
        )
    params = load_params(workspace, "evaluate", EvaluateParams)
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("symbol")
    run_stage(partial(main, symbol=parser.parse_args().symbol))
