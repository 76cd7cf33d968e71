"""Weights of a portfolio: from ranks, from a covariance, and within limits.

Weights are (n_symbols,), shares of the equity, negative short; what they leave of 1 is cash. Every rule
is of one session, and uses what its arguments say alone. The covariance is scikit-learn's and the tree
scipy's, both of them here already: PyPortfolioOpt brings cvxpy and seven solvers for the two quadratic
problems that are solved here, whose feasible set has a projection in closed form.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import Field
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.optimize import brentq
from scipy.spatial.distance import squareform
from sklearn.covariance import ledoit_wolf

from pitwise.decisions.prices import Array
from pitwise.errors import DataError
from pitwise.stage import Params


class Limits(Params):
    """What a portfolio may be."""

    position: float = Field(default=1.0, gt=0, le=1)
    """Largest weight of one symbol, long or short."""
    sector: float = Field(default=1.0, gt=0)
    """Largest sum of the weights' absolute values in one sector; needs the sectors."""
    turnover: float = Field(default=1.0, gt=0)
    """Largest change of a session: half of what is bought and sold, as a share of the equity."""
    cash: float = Field(default=0.0, ge=0, lt=1)
    """Share of the equity that is never invested."""


def equal_weight(usable: Array) -> Array:
    """The same for each symbol that is usable; all cash where none is."""
    return usable / max(usable.sum(), 1)


def top_k(scores: Array, k: int) -> Array:
    """The k largest scores, in equal parts; those that tie with the last share the places left.

    A NaN score is not held. Of fewer than k scores all are held, with 1 / k each.

    Args:
        scores: (n_symbols,), or (n_sessions, n_symbols) for each session's weights.
    """
    return _places(scores, k) / k


def long_short(scores: Array, k: int) -> Array:
    """Long the k largest scores and short the k smallest, half of the equity each: gross 1, net 0.

    All cash where there are fewer than 2 k scores, or where all are the same.

    Args:
        scores: see `top_k`.
    """
    enough = np.isfinite(scores).sum(axis=-1, keepdims=True) >= 2 * k
    return np.where(enough, (_places(scores, k) - _places(-scores, k)) / (2 * k), 0.0)


def _places(scores: Array, k: int) -> Array:
    """1 for what is among the k largest of its row, a share of it for what ties with the last."""
    if k < 1:
        raise DataError(f"a portfolio of {k} symbols: hold 1 or more.")
    known = np.isfinite(scores)
    if scores.shape[-1] < k:
        return known.astype(float)
    filled = np.where(known, scores, -np.inf)
    last = np.partition(filled, -k, axis=-1)[..., [-k]]
    above, equal = filled > last, known & (filled == last)
    left = k - above.sum(axis=-1, keepdims=True)
    return above + equal * left / np.maximum(equal.sum(axis=-1, keepdims=True), 1)


def shrunk_covariance(returns: Array) -> Array:
    """Ledoit and Wolf's covariance of a session's returns; (n_symbols, n_symbols).

    It is positive definite also where there are more symbols than sessions.
    Source: Ledoit and Wolf (2004), A well-conditioned estimator for large-dimensional covariances.

    Args:
        returns: (n_sessions, n_symbols) without NaN.

    Raises:
        DataError: fewer than 20 sessions, or returns that are not numbers.
    """
    if len(returns) < 20:
        raise DataError(f"a covariance of {len(returns)} sessions: it needs 20 or more.")
    if not np.isfinite(returns).all():
        raise DataError("a covariance of returns that are not numbers: leave out symbols with gaps.")
    return ledoit_wolf(returns)[0]


def minimum_variance(covariance: Array, largest: float = 1.0) -> Array:
    """The weights of the smallest variance: long only, fully invested, none above `largest`.

    Source: Markowitz (1952), Portfolio selection.

    Raises:
        DataError: `largest` leaves no such portfolio.
    """
    return mean_variance(np.zeros(len(covariance)), covariance, 1.0, largest)


def mean_variance(
    expected: Array, covariance: Array, risk_aversion: float = 5.0, largest: float = 1.0
) -> Array:
    """The weights w of the largest w·expected - risk_aversion / 2 · w·covariance·w.

    Long only, fully invested, none above `largest`.

    Accelerated projected gradient, to where no weight moves by more than 1e-10.
    Source: Markowitz (1952); Beck and Teboulle (2009), A fast iterative shrinkage-thresholding
    algorithm; restarts by O'Donoghue and Candès (2015).

    Args:
        expected: (n_symbols,) expected simple return of a session.
        covariance: (n_symbols, n_symbols) of a session's returns, positive definite.

    Raises:
        DataError: `largest` leaves no such portfolio, or there is something that is not a number.
    """
    n = len(covariance)
    if n * largest < 1 - 1e-12:
        raise DataError(f"{n} symbols with at most {largest:g} each do not make up 1. Raise the limit.")
    if not (np.isfinite(expected).all() and np.isfinite(covariance).all()):
        raise DataError(
            "expected returns or a covariance that are not numbers: leave those symbols out."
        )
    curvature = risk_aversion * float(np.linalg.norm(covariance))  # at least its largest eigenvalue
    if not curvature > 0:
        raise DataError("the covariance is zero: the symbols' prices do not move.")
    weights = ahead = np.full(n, 1 / n)
    momentum = 1.0
    for _ in range(5000):
        gradient = risk_aversion * (covariance @ ahead) - expected
        moved = _capped_simplex(ahead - gradient / curvature, largest)
        if np.abs(moved - weights).max() < 1e-10:
            return moved
        if (ahead - moved) @ (moved - weights) > 0:  # it overshot: start anew from here
            momentum = 1.0
        after = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = moved + (momentum - 1) / after * (moved - weights)
        weights, momentum = moved, after
    return weights


def _capped_simplex(point: Array, largest: float) -> Array:
    """The nearest weights from 0 to `largest` that add up to 1."""
    if len(point) * largest <= 1 + 1e-12:
        return np.full(len(point), 1 / len(point))

    def missing(shift: float) -> float:
        return float(np.clip(point - shift, 0, largest).sum()) - 1

    shift = brentq(missing, point.min() - largest, point.max(), xtol=1e-15)
    weights = np.clip(point - shift, 0, largest)
    return weights / weights.sum()


def hierarchical_risk_parity(covariance: Array) -> Array:
    """Weights by splitting along a tree of correlations, each half by the inverse of its variance.

    Single linkage, halves of the sorted symbols, as in the source: López de Prado (2016), Building
    diversified portfolios that outperform out of sample.

    Raises:
        DataError: a symbol's variance is not above 0.
    """
    variance = np.diag(covariance)
    if not (variance > 0).all():
        raise DataError("a symbol whose price does not move has no place in a tree: leave it out.")
    n = len(covariance)
    if n == 1:
        return np.ones(1)
    spread = np.sqrt(variance)
    correlation = np.clip(covariance / np.outer(spread, spread), -1, 1)
    distance = np.sqrt((1 - correlation) / 2)
    np.fill_diagonal(distance, 0.0)
    # The source clusters the distances between columns of the distances.
    squared = (distance**2).sum(axis=0)
    between = np.sqrt(np.maximum(squared[:, None] + squared - 2 * distance.T @ distance, 0))
    np.fill_diagonal(between, 0.0)
    order = leaves_list(linkage(squareform(between, checks=False), method="single"))
    weights = np.ones(n)
    parts = [order]
    while parts:
        part = parts.pop()
        if len(part) == 1:
            continue
        left, right = part[: len(part) // 2], part[len(part) // 2 :]
        of_left, of_right = _inverse_variance(covariance, left), _inverse_variance(covariance, right)
        share = of_right / (of_left + of_right)
        weights[left] *= share
        weights[right] *= 1 - share
        parts += [left, right]
    return weights


def _inverse_variance(covariance: Array, part: Array) -> float:
    """Variance of a part, weighted by the inverse of its symbols' variances."""
    block = covariance[np.ix_(part, part)]
    weights = 1 / np.diag(block)
    weights /= weights.sum()
    return float(weights @ block @ weights)


def around_halts(weights: Array, held: Array, can: Array) -> Array:
    """The weights where what cannot be traded stays as it is, so that its weight buys nothing else.

    Where the others and what stays are more than all that is wanted, the others are cut in proportion.

    Args:
        held: (n_symbols,) weights before.
        can: (n_symbols,) bool, what can be traded.
    """
    gross = np.abs(weights[can]).sum()
    room = max(np.abs(weights).sum() - np.abs(held[~can]).sum(), 0.0)
    cut = room / gross if gross > room else 1.0
    return np.where(can, cut * weights, held)


def within(
    weights: Array,
    limits: Limits,
    held: Array | None = None,
    sectors: Sequence[str] | Array | None = None,
) -> Array:
    """The weights, cut down to the limits; what is cut stays cash.

    Positions are cut first, then sectors in proportion, then all for the cash. With `held` the way from
    there is gone only as far as the turnover limit lets; it has the last word where what is held breaks
    another limit.

    Args:
        held: (n_symbols,) weights before.
        sectors: (n_symbols,) names, "" for none; without them there is no limit by sector.
    """
    result = np.clip(weights, -limits.position, limits.position)
    if sectors is not None:
        names, at = np.unique(np.asarray(sectors, dtype=str), return_inverse=True)
        gross = np.bincount(at, np.abs(result))
        share = limits.sector / np.maximum(gross, limits.sector)
        share[names == ""] = 1.0
        result *= share[at]
    gross = np.abs(result).sum()
    if gross > 1 - limits.cash:
        result *= (1 - limits.cash) / gross
    if held is not None:
        change = np.abs(result - held).sum() / 2
        if change > limits.turnover:
            result = held + (result - held) * limits.turnover / change
    return result
