"""Where a portfolio's risk comes from: betas, correlations, and what each holding adds.

Returns are simple, sessions x symbols. No covariance is inverted here, so a singular one does no harm.
"""

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

CLUSTER_CORRELATION = 0.5
"""Symbols are of one cluster where their average correlation is above this."""


def betas(returns: pd.DataFrame, market: pd.Series) -> pd.Series:
    """Slope of each symbol's returns on the market's; 0 for all where the market does not move."""
    values, by = returns.to_numpy(float), market.to_numpy(float)
    by = by - by.mean()
    variance = float(by @ by)
    slopes = (
        by @ (values - values.mean(axis=0)) / variance if variance > 0 else np.zeros(values.shape[1])
    )
    return pd.Series(slopes, index=returns.columns)


def correlation(returns: pd.DataFrame) -> pd.DataFrame:
    """Pearson's; 0 between a symbol whose price never moved and every other one."""
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.atleast_2d(np.corrcoef(returns.to_numpy(float), rowvar=False))
    values = np.clip(np.nan_to_num(values), -1, 1)
    np.fill_diagonal(values, 1)
    return pd.DataFrame(values, index=returns.columns, columns=returns.columns)


def clusters(correlations: pd.DataFrame, above: float = CLUSTER_CORRELATION) -> list[list[str]]:
    """Symbols that move together: average linkage of sqrt((1 - correlation) / 2), largest first.

    Source: Mantegna (1999), Hierarchical structure in financial markets.
    """
    names = list(correlations.index)
    if len(names) == 1:
        return [names]
    distance = np.sqrt((1 - correlations.to_numpy()) / 2)
    tree = linkage(squareform(distance, checks=False), method="average")
    labels = fcluster(tree, np.sqrt((1 - above) / 2), criterion="distance")
    found = [sorted(group.tolist()) for _, group in pd.Series(names).groupby(labels)]
    return sorted(found, key=lambda group: (-len(group), group))


def diversification_ratio(covariance: np.ndarray, weights: np.ndarray) -> float | None:
    """The holdings' own volatilities, weighted, over the portfolio's; 1 for a single one.

    None where the portfolio's volatility is 0. Source: Choueifaty and Coignard (2008).
    """
    portfolio = volatility(covariance, weights)
    own = float(np.abs(weights) @ np.sqrt(np.diag(covariance)))
    return own / portfolio if portfolio > 0 else None


def volatility(covariance: np.ndarray, weights: np.ndarray) -> float:
    """Standard deviation of a session's return of the portfolio."""
    return float(np.sqrt(max(float(weights @ covariance @ weights), 0.0)))


def volatility_contributions(covariance: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weight times the portfolio volatility's slope in it; they sum to the volatility (Euler)."""
    total = volatility(covariance, weights)
    return weights * (covariance @ weights) / total if total > 0 else np.zeros(len(weights))


def shortfall_contributions(returns: np.ndarray, weights: np.ndarray, level: float) -> np.ndarray:
    """Each holding's mean loss in the portfolio's worst sessions; they sum to its expected shortfall.

    The sessions are those of `var.historical`. Source: Tasche (1999), Risk contributions.
    """
    n = int((len(returns) - 1) * (1 - level) + 1e-9) + 1
    worst = np.argpartition(returns @ weights, n - 1)[:n]
    return -weights * returns[worst].mean(axis=0)
