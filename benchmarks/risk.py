"""The risk of a made portfolio of 500 symbols over ten years, and of its measures a peer's beside ours.

`python benchmarks/risk.py` times the whole report, once the returns are there. With `--peer FOLDER` the
measures that empyrical-reloaded has too are compared, and both are timed in the same run. It brings
Bottleneck, with which pandas sums in another order, so it has a folder of its own:

    pip install --target peer --no-deps empyrical-reloaded peewee
    python benchmarks/risk.py --peer peer
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from pitwise.decisions import contributions, performance, var
from pitwise.decisions.drawdown import maximum_drawdown
from pitwise.decisions.risk import risk_report

SYMBOLS, SESSIONS = 500, 2520
TIMES = 5
TOLERANCE = 1e-8


def made() -> pd.DataFrame:
    """Returns of a market whose volatility swings, and of symbols that follow it; sessions x symbols."""
    rng = np.random.default_rng(7)
    swing = 0.01 - 0.005 * np.cos(np.arange(SESSIONS) / 100)
    market = rng.standard_t(5, SESSIONS) * swing * np.sqrt(3 / 5)
    own = rng.normal(0, 0.015, (SESSIONS, SYMBOLS))
    returns = market[:, None] * rng.uniform(0.5, 1.5, SYMBOLS) + own
    days = pd.bdate_range("2008-01-02", periods=SESSIONS)
    return pd.DataFrame(returns, index=days, columns=[f"S{i:03}" for i in range(SYMBOLS)])


def best(of: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of the fastest of some calls."""
    seconds = []
    for _ in range(TIMES):
        start = clock()
        of()
        seconds.append(clock() - start)
    return min(seconds)


def compared(returns: pd.DataFrame, weights: pd.Series) -> bool:
    """Print each measure by both, with the time of each; whether all agree."""
    import empyrical

    portfolio, market = returns @ weights, returns.mean(axis=1)
    array = portfolio.to_numpy()
    pairs: dict[str, tuple[Callable[[], float], Callable[[], float]]] = {
        "maximum drawdown": (
            lambda: maximum_drawdown(portfolio).depth,
            lambda: empyrical.max_drawdown(portfolio),
        ),
        "volatility a year": (
            lambda: float(
                np.sqrt(252) * contributions.volatility(np.cov(returns, rowvar=False), weights)
            ),
            lambda: empyrical.annual_volatility(portfolio),
        ),
        "beta": (
            lambda: float(contributions.betas(returns, market) @ weights),
            lambda: empyrical.beta(portfolio, market),
        ),
    }
    for name in ("annual_return", "sharpe", "sortino", "calmar"):
        ours = getattr(performance, name)
        theirs = getattr(empyrical, name if name == "annual_return" else f"{name}_ratio")
        pairs[name.replace("_", " ")] = (
            lambda ours=ours: ours(array),
            lambda theirs=theirs: theirs(array),
        )
    for level, cutoff in ((0.95, 0.05), (0.99, 0.01)):
        pairs[f"VaR {level:.0%}"] = (
            lambda level=level: var.historical(array, level).var,
            lambda cutoff=cutoff: -empyrical.value_at_risk(portfolio, cutoff),
        )
        pairs[f"ES {level:.0%}"] = (
            lambda level=level: var.historical(array, level).es,
            lambda cutoff=cutoff: -empyrical.conditional_value_at_risk(portfolio, cutoff),
        )
    agree = True
    for name, (ours, peer) in pairs.items():
        apart = abs(ours() - peer())
        agree = agree and apart < TOLERANCE
        print(
            f"{name:18} {ours():.10f}, apart {apart:.0e}; "
            f"{1e6 * best(ours):6.0f} us, empyrical {1e6 * best(peer):6.0f} us"
        )
    return agree


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peer", type=Path, help="folder that empyrical-reloaded was installed into")
    peer = parser.parse_args().peer
    returns = made()
    weights = pd.Series(1 / SYMBOLS, index=returns.columns)
    for sessions in (1006, SESSIONS):
        past = returns[-sessions:]

        def report(past: pd.DataFrame = past) -> object:
            return risk_report(past, weights, 1e6)

        print(
            f"risk of {SYMBOLS} symbols over {sessions} sessions: {best(report):.2f} s, "
            f"{best(report, time.process_time):.2f} s of all cores"
        )
    if peer:
        sys.path.append(str(peer))
        sys.exit(0 if compared(returns, weights) else 1)
