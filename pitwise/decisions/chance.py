"""Random signals, traded like the forecasts: what chance alone would have earned."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pitwise.decisions.backtest import SESSIONS_A_YEAR, Result
from pitwise.decisions.performance import sharpe
from pitwise.decisions.prices import Array
from pitwise.decisions.strategies import BacktestParams, random_scores, ranked

PERCENTILES = (2.5, 25, 50, 75, 97.5)


@dataclass(frozen=True)
class Chance:
    figures: pd.DataFrame
    """A row a signal, see `compared`."""
    band: Array
    """(2, n_sessions) 2.5th and 97.5th percentile of the equity before costs, the capital being 1."""

    def percentiles(self) -> dict[str, dict[str, float]]:
        """Of each figure over the signals, those of `PERCENTILES`."""
        return {
            name: {f"p{at:g}": float(np.percentile(self.figures[name], at)) for at in PERCENTILES}
            for name in self.figures
        }

    def below(self, sessions: pd.DataFrame) -> dict[str, float]:
        """Share of the random signals whose figure is below a portfolio's."""
        return {
            name: float((self.figures[name] < value).mean())
            for name, value in compared(sessions).items()
        }


def compared(sessions: pd.DataFrame) -> dict[str, float]:
    """What random signals are compared by; means are of a year of 252 sessions, not compounded.

    Args:
        sessions: see `backtest.Result.of_equity`.
    """
    mean = SESSIONS_A_YEAR * sessions[["ret", "cost"]].mean()
    return {
        "mean_return": mean["ret"],
        "mean_return_before_costs": mean["ret"] + mean["cost"],
        "sharpe": sharpe(sessions["ret"].to_numpy(float)),
    }


def chance(
    scores: Array,
    strategy: str,
    params: BacktestParams,
    horizon: int,
    sectors: Array | None,
    trade: Callable[[Array], Result],
) -> Chance:
    """Trade `params.random_signals` random scores, where there are scores, by a strategy."""
    rng = np.random.default_rng(params.seed)
    rows, equities = [], []
    for _ in range(params.random_signals):
        drawn = random_scores(scores, rng)
        sessions = trade(ranked(drawn, strategy, params, horizon, sectors)).of_equity().iloc[1:]
        rows.append(compared(sessions))
        equities.append(np.cumprod(1 + sessions["ret"] + sessions["cost"]))
    return Chance(pd.DataFrame(rows), np.percentile(equities, [2.5, 97.5], axis=0))
