"""How good a track of returns was, with what its measures could as well have been.

Returns are simple ones of a session, costs out. The rate without risk is 0. A year has 252 sessions.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pitwise.decisions.backtest import BASIS_POINT, SESSIONS_A_YEAR
from pitwise.decisions.prices import Array
from pitwise.evaluation.figures import block_length
from pitwise.evaluation.luck import expected_max_sharpe_ratio, probabilistic_sharpe_ratio, track
from pitwise.extras import require

COLUMNS = ["ret", "cost", "traded", "gross", "net"]
"""Of `backtest.Result.of_equity`, in the order that `measures` wants."""
MEASURES = (
    "annual_return",
    "volatility",
    "sharpe",
    "sortino",
    "calmar",
    "max_drawdown",
    "turnover",
    "cost_bp",
    "hit_rate",
    "exposure",
    "net_exposure",
    "psr",
    "dsr",
)


class Trials(NamedTuple):
    """All that was tried before the best of it was looked at."""

    n: int
    variance: float
    """Of the tries' Sharpe ratios, a session's."""

    @property
    def best(self) -> float:
        """The Sharpe ratio to be expected of the best of them, were none worth anything."""
        return expected_max_sharpe_ratio(self.n, self.variance)


def trials(sharpes: Sequence[float]) -> Trials:
    """Each Sharpe ratio a try of its own: an upper bound, since tries are alike."""
    known = np.asarray([sharpe for sharpe in sharpes if np.isfinite(sharpe)], dtype=float)
    return Trials(len(known), float(known.var(ddof=1)) if len(known) > 1 else 0.0)


def annual_return(returns: Array) -> float:
    """(product of (1 + r)) ** (252 / n) - 1; -1 where all was lost."""
    growth = np.prod(1 + returns)
    return float(growth ** (SESSIONS_A_YEAR / len(returns)) - 1) if growth > 0 else -1.0


def volatility(returns: Array) -> float:
    """Standard deviation, over n - 1, times the root of 252."""
    return float(returns.std(ddof=1) * np.sqrt(SESSIONS_A_YEAR))


def sharpe(returns: Array) -> float:
    """Mean over standard deviation, times the root of 252; NaN where returns do not vary.

    Source: Sharpe (1994), The Sharpe ratio.
    """
    return _over(returns.mean(), returns.std(ddof=1)) * np.sqrt(SESSIONS_A_YEAR)


def sortino(returns: Array) -> float:
    """Mean over the root of the mean squared loss, all sessions counted, times the root of 252.

    Source: Sortino and Price (1994), Performance measurement in a downside risk framework.
    """
    loss = np.sqrt(np.mean(np.minimum(returns, 0) ** 2))
    return _over(returns.mean(), loss) * np.sqrt(SESSIONS_A_YEAR)


def max_drawdown(returns: Array) -> float:
    """The deepest fall from a high of the equity, its start included; 0 or below."""
    equity = np.append(1.0, np.cumprod(1 + returns))
    return float((equity / np.maximum.accumulate(equity) - 1).min())


def calmar(returns: Array) -> float:
    """Annual return over the depth of the deepest fall. Source: Young (1991), Calmar ratio."""
    return _over(annual_return(returns), -max_drawdown(returns))


def hit_rate(returns: Array) -> float:
    """Share of the sessions with a gain, of those with a gain or a loss."""
    moved = returns != 0
    return float((returns[moved] > 0).mean()) if moved.any() else np.nan


def measures(values: Array, best: float = 0.0) -> Array:
    """(13,) the `MEASURES` of a track.

    Args:
        values: (n_sessions, 5) of a session: return, cost, dollars traded, exposure long and short
            together, and long less short, each as a share of the equity.
        best: the Sharpe ratio of a session that luck alone gives, see `Trials.best`.

    Returns:
        turnover: half of what is bought and sold, a session. cost_bp: basis points of the equity, a
        year. hit_rate: see there. exposure, net_exposure: means. psr, dsr: the probability that the true
        Sharpe ratio is above 0, and above `best`. NaN where there is none.
    """
    returns, cost, traded, gross, net = values.T
    of = track(returns)
    return np.array(
        [
            annual_return(returns),
            volatility(returns),
            sharpe(returns),
            sortino(returns),
            calmar(returns),
            max_drawdown(returns),
            traded.mean() / 2,
            cost.mean() * SESSIONS_A_YEAR / BASIS_POINT,
            hit_rate(returns),
            gross.mean(),
            net.mean(),
            np.nan if of is None else probabilistic_sharpe_ratio(of),
            np.nan if of is None else probabilistic_sharpe_ratio(of, best),
        ]
    )


def summary(sessions: pd.DataFrame, tried: Trials, samples: int, seed: int) -> dict[str, dict]:
    """The measures, each with a 95% interval.

    Args:
        sessions: see `backtest.Result.of_equity`, two or more.

    Returns:
        by measure: value, and ci95 (see `interval`); None where there is none.

    Raises:
        StoreError: the extra `evaluation` is not installed.
    """
    best = tried.best
    return _with_interval(
        sessions[COLUMNS].to_numpy(float),
        MEASURES,
        lambda values: measures(values, best),
        samples,
        seed,
    )


def _with_interval(
    values: Array,
    names: Sequence[str],
    figures: Callable[[Array], Array],
    samples: int,
    seed: int,
) -> dict[str, dict]:
    found = figures(values)
    low, high = interval(values, figures, samples, seed)
    return {name: stated(found[i], low[i], high[i]) for i, name in enumerate(names)}


def interval(
    values: Array, figure: Callable[[Array], Array], samples: int, seed: int, horizon: int = 1
) -> tuple[Array, Array]:
    """The 2.5th and 97.5th percentile of figures of circular block bootstrap draws of the sessions.

    Blocks keep together what neighbours share; see `evaluation.figures.block_length`. As `arch` has it;
    source: Politis and Romano (1992), A circular block-resampling procedure for stationary data. Draws
    in which a figure is not a number are left out.

    Args:
        values: (n_sessions, n_columns).
        figure: of such an array; (n_figures,).
        horizon: sessions that the labels behind the values look ahead.
    """
    require("evaluation", "the backtest")
    from arch.bootstrap import CircularBlockBootstrap

    bootstrap = CircularBlockBootstrap(block_length(len(values), horizon), values, seed=seed)
    draws = bootstrap.apply(figure, samples)
    draws[~np.isfinite(draws)] = np.nan
    some = np.isfinite(draws).any(axis=0)
    edges = np.full((2, draws.shape[1]), np.nan)
    edges[:, some] = np.nanpercentile(draws[:, some], [2.5, 97.5], axis=0)
    return edges[0], edges[1]


def defined(found: Any) -> Any:
    """What a JSON document has of it: None for each number that is none."""
    if isinstance(found, dict):
        return {key: defined(value) for key, value in found.items()}
    if isinstance(found, list):
        return [defined(value) for value in found]
    return None if isinstance(found, float) and not np.isfinite(found) else found


def stated(value: float, low: float, high: float) -> dict:
    """A figure and its interval as a document has them; None for what is not a number."""
    has = np.isfinite([low, high]).all()
    return {
        "value": float(value) if np.isfinite(value) else None,
        "ci95": [float(low), float(high)] if has and np.isfinite(value) else None,
    }


def excess(
    sessions: pd.DataFrame,
    capital: float,
    samples: int,
    seed: int,
    other: pd.Series | float = 0.0,
) -> dict[str, dict]:
    """What is earned above another's return, and what it bears, each with a 95% interval.

    Args:
        sessions: see `backtest.Result.of_equity`.
        capital: dollars that were traded with.
        other: simple returns of the same sessions, costs out.

    Returns:
        return: mean of a session's return less the other's, times 252.
        break_even_bp: basis points of each dollar bought or sold that leave none of it: (mean return
        before costs less the other's) / mean of what is traded; below 0 where there is nothing to leave,
        None where nothing is traded.
        capacity: dollars at which impact eats it. As a share of the equity impact grows with the root of
        the capital, the trades being the same shares of it: capital x ((mean return before impact less
        the other's) / mean impact) ** 2; 0 where nothing is left even without impact, None where there
        is none.
    """
    columns = ["ret", "cost", "impact", "traded"]
    values = sessions[columns].to_numpy(float)
    values[:, 0] -= other

    def figures(drawn: Array) -> Array:
        above, cost, impact, traded = drawn.mean(axis=0)
        share = max(above + impact, 0.0) / impact if impact > 0 else np.nan
        return np.array(
            [
                above * SESSIONS_A_YEAR,
                (above + cost) / traded / BASIS_POINT if traded > 0 else np.nan,
                capital * share**2,
            ]
        )

    names = ("return", "break_even_bp", "capacity")
    return _with_interval(values, names, figures, samples, seed)


def _over(figure: float, spread: float) -> float:
    return float(figure / spread) if spread > 1e-15 else np.nan
