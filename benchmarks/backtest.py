"""Ten years of 500 symbols, traded daily after costs: our engine and vectorbt's on the same targets.

    python -m venv peer && peer/bin/pip install vectorbt
    python benchmarks/backtest.py peer/bin/python

vectorbt wants newer libraries than ours, so it has an environment of its own, and takes the arrays from
a file. Times are the best of three, in seconds of the processor, its compilation left out; both pay
10 bp of what is traded, and the equities have to agree to 1e-8. Without a peer ours is timed alone, with
impact and borrow too; so are the portfolios of 500 symbols.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from pitwise.decisions.backtest import Costs, backtest
from pitwise.decisions.portfolios import (
    hierarchical_risk_parity,
    mean_variance,
    minimum_variance,
    shrunk_covariance,
)
from pitwise.decisions.prices import Prices

SESSIONS, SYMBOLS, HELD = 2520, 500, 50
LINEAR = Costs(commission_bp=10, half_spread_bp=0, impact=0, borrow_bp=0)
PEER = """
import sys, time
import numpy as np, pandas as pd, vectorbt as vbt
given = np.load(sys.argv[1])
opens, closes, targets = (pd.DataFrame(given[name]) for name in ("opens", "closes", "targets"))
def run():
    return vbt.Portfolio.from_orders(
        closes, size=targets.shift(1), size_type="targetpercent", price=opens, val_price=opens,
        fees=0.001, init_cash=1e6, group_by=True, cash_sharing=True, call_seq="auto", freq="1D",
    ).value().to_numpy()
run()
times = []
for _ in range(3):
    start = time.process_time()
    equity = run()
    times.append(time.process_time() - start)
np.savez(sys.argv[2], equity=equity, seconds=min(times), version=vbt.__version__)
"""


def best(run: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def made() -> tuple[Prices, np.ndarray]:
    """Prices of a random walk, and targets that hold 90% of the equity in another fifty each session."""
    rng = np.random.default_rng(7)
    shape = SESSIONS, SYMBOLS
    closes = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, shape), axis=0))
    opens = closes * np.exp(rng.normal(0, 0.005, shape))
    targets = np.zeros(shape)
    for row in targets:
        row[rng.choice(SYMBOLS, HELD, replace=False)] = 0.9 / HELD
    sessions = pd.bdate_range("2008-01-01", periods=SESSIONS)
    ones = np.ones(shape)
    prices = Prices(sessions, pd.RangeIndex(SYMBOLS), opens, closes, 1e8 * ones, ones, 0 * ones)
    return prices, targets


def main() -> None:
    prices, targets = made()
    seconds = best(lambda: backtest(prices, targets, LINEAR))
    print(f"ours, commission alone: {seconds:.2f} s")
    print(f"ours, all costs: {best(lambda: backtest(prices, targets, Costs())):.2f} s")
    if len(sys.argv) > 1:
        with tempfile.TemporaryDirectory() as folder:
            given, made_by_peer = Path(folder, "given.npz"), Path(folder, "peer.npz")
            np.savez(given, opens=prices.open, closes=prices.close, targets=targets)
            subprocess.run([sys.argv[1], "-c", PEER, str(given), str(made_by_peer)], check=True)
            peer = np.load(made_by_peer)
            ours = backtest(prices, targets, LINEAR).equity
            apart = np.abs(ours / peer["equity"] - 1).max()
            print(
                f"vectorbt {peer['version']}: {peer['seconds']:.2f} s, ratio "
                f"{seconds / peer['seconds']:.2f}; equities apart by at most {apart:.1e}"
            )
            assert apart < 1e-8
    returns = prices.total_returns()[1:505]
    covariance = shrunk_covariance(returns)
    expected = np.random.default_rng(7).normal(0, 1e-3, SYMBOLS)
    for name, run in (
        ("shrunk covariance", lambda: shrunk_covariance(returns)),
        ("hierarchical risk parity", lambda: hierarchical_risk_parity(covariance)),
        ("minimum variance", lambda: minimum_variance(covariance)),
        ("mean-variance", lambda: mean_variance(expected, covariance)),
    ):
        print(f"{name}, {SYMBOLS} symbols: {best(run):.2f} s")


if __name__ == "__main__":
    main()
