"""From forecasts and prices to the target weights of each session, strategy by strategy."""

from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field

from pitwise.bars.calendar import session_days
from pitwise.decisions.backtest import Costs
from pitwise.decisions.portfolios import (
    Limits,
    equal_weight,
    hierarchical_risk_parity,
    long_short,
    mean_variance,
    minimum_variance,
    shrunk_covariance,
    top_k,
    within,
)
from pitwise.decisions.prices import Array, Prices
from pitwise.errors import DataError
from pitwise.stage import Params

RANKED = {"top": top_k, "long_short": long_short}
ALLOCATED = ("minimum_variance", "hierarchical_risk_parity", "mean_variance")


class BacktestParams(Params):
    kind: str | None
    """Whose forecasts the claims and mean-variance are of; None: the champion's kind."""
    k: int = Field(ge=1)
    """Symbols in a leg of the portfolios by rank."""
    trade_at: Literal["open", "close"]
    capital: float = Field(gt=0)
    rebalance_sessions: int | None = Field(ge=1)
    """Between two decisions of the portfolios by rank; None: what the forecasts look ahead."""
    allocation_sessions: int = Field(ge=1)
    """Between two decisions of equal weight and of the portfolios by covariance."""
    covariance_sessions: int = Field(ge=20)
    risk_aversion: float = Field(gt=0)
    costs: Costs
    limits: Limits
    random_signals: int = Field(ge=2)
    bootstrap_samples: int = Field(ge=100)
    seed: int = Field(ge=0)


def wide(forecasts: pd.DataFrame, prices: Prices, column: str) -> Array:
    """(n_sessions, n_symbols) a column of one kind's forecasts; NaN where there is none.

    Args:
        forecasts: `symbol`, `event_timestamp` and the column, one row a symbol and session.
    """
    row = prices.sessions.get_indexer(session_days(forecasts["event_timestamp"]))
    at = prices.symbols.get_indexer(forecasts["symbol"].astype(str))
    if (row < 0).any() or (at < 0).any():
        raise DataError(
            "forecasts of sessions or symbols without bars: they are of other data. Run "
            "`dvc repro walk_forward/dvc.yaml` again."
        )
    result = np.full(prices.close.shape, np.nan)
    result[row, at] = forecasts[column].to_numpy(float)
    return result


def ranked(
    scores: Array,
    strategy: str,
    params: BacktestParams,
    horizon: int = 1,
    sectors: Array | None = None,
) -> Array:
    """Targets of a portfolio by rank, within the limits; NaN rows are no decision.

    The turnover limit counts from the last target, not from what its prices have made of it.

    Args:
        horizon: sessions that the scores look ahead.
        sectors: see `sectors_of`, of the sessions of the scores.
    """
    targets = np.full(scores.shape, np.nan)
    decided = np.flatnonzero(np.isfinite(scores).any(axis=1))
    decided = decided[:: params.rebalance_sessions or horizon]
    targets[decided] = RANKED[strategy](scores[decided], params.k)
    if params.limits != Limits():
        held = np.zeros(scores.shape[1])
        for i in decided:
            of = None if sectors is None else sectors[i]
            targets[i] = held = within(targets[i], params.limits, held, of)
    return targets


def random_scores(scores: Array, rng: np.random.Generator) -> Array:
    """Scores without any meaning, where there are scores."""
    return np.where(np.isfinite(scores), rng.standard_normal(scores.shape), np.nan)


def candidates(prices: Prices, scores: Array) -> Array:
    """(n_sessions, n_symbols) bool: what may be held whatever its score, for a comparison that is fair.

    The symbols that are forecast, so members of the universe alone; in a session without any, those with
    a bar.
    """
    forecast = np.isfinite(scores)
    return np.where(forecast.any(axis=1, keepdims=True), forecast, np.isfinite(prices.close))


def equal(usable: Array, params: BacktestParams, once: bool = False) -> Array:
    """Targets of equal weight; `once`: bought in the first session, then left to drift.

    Args:
        usable: see `candidates`.
    """
    targets = np.full(usable.shape, np.nan)
    rows = [0] if once else range(0, len(targets), params.allocation_sessions)
    for i in rows:
        targets[i] = within(equal_weight(usable[i]), Limits(cash=params.limits.cash))
    return targets


def allocated(
    history: Prices,
    first: pd.Timestamp,
    usable: Array,
    expected: Array,
    strategy: str,
    params: BacktestParams,
    sectors: Array | None = None,
) -> Array:
    """Targets by covariance for the sessions from `first` on; NaN rows are no decision.

    The covariance is of the `covariance_sessions` up to the decision. Symbols without a bar in it, with
    a gap in those, or (mean-variance) without a forecast are not held.

    Args:
        history: prices from before `first`, to estimate by.
        usable: (n_sessions from first on, n_symbols) see `candidates`.
        expected: of the same shape, expected simple return of a session.
        sectors: of the same shape, see `sectors_of`.
    """
    start = int(history.sessions.searchsorted(first))
    returns, closes = history.total_returns(), history.close
    targets = np.full(expected.shape, np.nan)
    held = np.zeros(expected.shape[1])
    for i in range(0, len(expected), params.allocation_sessions):
        end = start + i + 1
        window = returns[max(0, end - params.covariance_sessions) : end]
        chosen = (
            usable[i]
            & np.isfinite(window).all(axis=0)
            & np.isfinite(closes[end - 1])
            & (window.std(axis=0) > 0)
        )
        if strategy == "mean_variance":
            chosen &= np.isfinite(expected[i])
        if len(window) < params.covariance_sessions or chosen.sum() < 2:
            continue
        wanted = np.zeros(expected.shape[1])
        wanted[chosen] = allocate(strategy, window[:, chosen], expected[i, chosen], params)
        of = None if sectors is None else sectors[i]
        targets[i] = held = within(wanted, params.limits, held, of)
    return targets


def allocate(strategy: str, returns: Array, expected: Array, params: BacktestParams) -> Array:
    """The weights of one session by covariance; returns are (n_sessions, n_symbols)."""
    covariance = shrunk_covariance(returns)
    largest = max(params.limits.position, 1 / len(covariance))
    if strategy == "minimum_variance":
        return minimum_variance(covariance, largest)
    if strategy == "hierarchical_risk_parity":
        return hierarchical_risk_parity(covariance)
    return mean_variance(expected, covariance, params.risk_aversion, largest)


def sectors_of(intervals: pd.DataFrame | None, prices: Prices) -> Array | None:
    """(n_sessions, n_symbols) the sector on the session's day, "" for none; None without intervals.

    Args:
        intervals: see `universe.read_sectors`.
    """
    if intervals is None:
        return None
    result = np.full(prices.close.shape, "", dtype=object)
    columns = prices.symbols.get_indexer(intervals["symbol"])
    first, after = (prices.sessions.searchsorted(intervals[name]) for name in ("from", "to"))
    after = np.where(intervals["to"].isna(), len(result), after)  # it still holds
    for column, start, end, sector in zip(columns, first, after, intervals["value"], strict=True):
        if column >= 0:
            result[start:end, column] = sector
    return result
