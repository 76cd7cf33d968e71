"""Measures of a forecast. Each is a small function of arrays; rows of one session belong together.

Returns are log returns of the next session. `up` means a return above zero.
"""

import numpy as np
from scipy.stats import rankdata

Array = np.ndarray


def mape(predicted: Array, actual: Array) -> float:
    """Mean absolute error in percent of the actual price."""
    return float(np.mean(np.abs(predicted - actual) / actual) * 100)


def mae(predicted: Array, actual: Array) -> float:
    """Mean absolute error, in the unit of the arguments."""
    return float(np.mean(np.abs(predicted - actual)))


def rmse(predicted: Array, actual: Array) -> float:
    """Root of the mean squared error, in the unit of the arguments."""
    return float(np.sqrt(np.mean((predicted - actual) ** 2)))


def r2(predicted: Array, actual: Array) -> float | None:
    """Share of the actual values' variance explained; None where they do not vary."""
    spread = np.sum((actual - actual.mean()) ** 2)
    return float(1 - np.sum((actual - predicted) ** 2) / spread) if spread > 0 else None


def skill(predicted: Array, actual: Array, reference: Array) -> float | None:
    """1 - MSE / MSE of the reference forecast: above 0 is better than the reference.

    Source: Murphy (1988), Skill scores based on the mean square error.
    """
    error = np.sum((actual - reference) ** 2)
    return float(1 - np.sum((actual - predicted) ** 2) / error) if error > 0 else None


def direction_accuracy(predicted_up: Array, returns: Array) -> float:
    """Share of rows whose direction was called right."""
    return float(np.mean(predicted_up == (returns > 0)))


def brier(p_up: Array, returns: Array) -> float:
    """Mean squared difference between the probability of a rise and what came; 0.25 for a coin.

    Source: Brier (1950).
    """
    return float(np.mean((p_up - (returns > 0)) ** 2))


def session_groups(sessions: Array) -> list[Array]:
    """Positions of the rows of each session, in order of session."""
    order = np.argsort(sessions, kind="stable")
    _, starts = np.unique(sessions[order], return_index=True)
    return np.split(order, starts[1:])


def rank_ic(scores: Array, returns: Array, sessions: Array) -> Array:
    """Information coefficient of each session: Spearman's rank correlation over its symbols.

    A session with fewer than two symbols, or without differences to rank, is NaN; (n_sessions,).
    """
    return np.array([_spearman(scores[rows], returns[rows]) for rows in session_groups(sessions)])


def _spearman(x: Array, y: Array) -> float:
    x, y = rankdata(x), rankdata(y)
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt(np.sum(x**2) * np.sum(y**2))
    return float(np.sum(x * y) / scale) if scale > 0 else float("nan")


def mean_and_t(values: Array) -> tuple[float | None, float | None]:
    """Mean of the finite values and its t statistic; None where there are too few of them."""
    finite = values[np.isfinite(values)]
    if len(finite) < 2:
        return None, None
    spread = finite.std(ddof=1)
    t = float(finite.mean() / spread * np.sqrt(len(finite))) if spread > 0 else None
    return float(finite.mean()), t


def direction_ci95(
    predicted_up: Array, returns: Array, sessions: Array, samples: int, seed: int
) -> list[float]:
    """95% bootstrap interval of `direction_accuracy`: [2.5th, 97.5th percentile].

    Stocks move together on a day, so whole sessions are drawn with replacement, not rows.
    """
    right = predicted_up == (returns > 0)
    groups = session_groups(sessions)
    hits = np.array([right[rows].sum() for rows in groups])
    sizes = np.array([len(rows) for rows in groups])
    n = len(groups)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=samples)
    accuracy = (draws @ hits) / (draws @ sizes)
    return [float(v) for v in np.percentile(accuracy, [2.5, 97.5])]
