"""Measures of a forecast. Each is a small function of arrays; rows of one session belong together.

Returns are log returns of the sessions that the forecast looks ahead. `up` means a return above zero.
"""

import numpy as np

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


def ranks(values: Array, sessions: Array) -> Array:
    """Rank of each row among those of its session, from 1; equal values share their mean rank; (n,)."""
    first, last, order = ties(values, sessions)
    result = np.empty(len(values))
    result[order] = (first + last + 1) / 2
    return result


def ties(values: Array, sessions: Array) -> tuple[Array, Array, Array]:
    """Where each row stands among those of its session when they are sorted, smallest first.

    Returns:
        the rows sorted by session and value: the first position of those equal to each, and the
        position after the last of them, counted from 0 in each session; and the order that sorts; (n,)
        each.
    """
    order = np.lexsort((values, sessions))
    value, session = values[order], sessions[order]
    position = np.arange(len(order))
    new_session = np.append(True, session[1:] != session[:-1])[: len(order)]
    new_value = new_session | np.append(True, value[1:] != value[:-1])[: len(order)]
    begins = np.flatnonzero(new_value)
    group = new_value.cumsum() - 1
    start = position[new_session][new_session.cumsum() - 1]
    after = np.append(begins[1:], len(order))
    return begins[group] - start, after[group] - start, order


def rank_ic(scores: Array, returns: Array, sessions: Array) -> Array:
    """Information coefficient of each session: Spearman's rank correlation over its symbols.

    A session with fewer than two symbols, or without differences to rank, is NaN; (n_sessions,).
    """
    unknown = np.isnan(scores) | np.isnan(returns)
    x, y = (np.where(unknown, np.nan, ranks(values, sessions)) for values in (scores, returns))
    return ic(x, y, sessions)


def ic(scores: Array, returns: Array, sessions: Array) -> Array:
    """Pearson's correlation of scores and returns in each session, NaN as `rank_ic`; (n_sessions,)."""
    days, codes = np.unique(sessions, return_inverse=True)
    size = np.bincount(codes)
    both_vary = np.full(len(days), True)
    centred = []
    for values in (scores, returns):
        low, high = np.full(len(days), np.inf), np.full(len(days), -np.inf)
        with np.errstate(invalid="ignore"):  # a NaN makes its session's result NaN
            np.minimum.at(low, codes, values)
            np.maximum.at(high, codes, values)
        both_vary &= high > low
        centred.append(values - (np.bincount(codes, values) / size)[codes])
    x, y = centred
    scale = np.sqrt(np.bincount(codes, x**2) * np.bincount(codes, y**2))
    both_vary &= scale > 0
    result = np.full(len(days), np.nan)
    return np.divide(np.bincount(codes, x * y), scale, out=result, where=both_vary)


def mean_and_t(values: Array, lag: int = 0) -> tuple[float | None, float | None]:
    """Mean of the finite values and its t statistic; None where there are too few of them.

    Args:
        values: (n,) in order of time; those that are not finite are left out.
        lag: 0: the plain t statistic, of independent values. Above: Newey and West's, of values whose
            neighbours share something, as the returns over h sessions from one session to the next
            share all but one of them: h - 1.

    Source: Newey and West (1987), A simple, positive semi-definite, heteroskedasticity and
    autocorrelation consistent covariance matrix; Bartlett weights, n / (n - 1) for small samples.
    """
    finite = values[np.isfinite(values)]
    n = len(finite)
    if n < 2:
        return None, None
    mean, spread = finite.mean(), finite.std(ddof=1)
    if not spread > 0:
        return float(mean), None
    off = finite - mean
    likeness = np.array([off[i:] @ off[:-i] for i in range(1, min(lag, n - 1) + 1)]) / (off @ off)
    weights = 1 - np.arange(1, len(likeness) + 1) / (lag + 1)
    inflation = 1 + 2 * float(weights @ likeness)
    t = float(mean / spread * np.sqrt(n) / np.sqrt(inflation)) if inflation > 1e-12 else None
    return float(mean), t


def interval_coverage(low: Array, high: Array, returns: Array) -> float:
    """Share of the returns within the forecast interval, its ends included."""
    return float(np.mean((low <= returns) & (returns <= high)))


def direction_ci95(
    predicted_up: Array, returns: Array, sessions: Array, samples: int, seed: int, block: int = 1
) -> list[float]:
    """95% bootstrap interval of `direction_accuracy`: [2.5th, 97.5th percentile].

    Stocks move together on a day, so whole sessions are drawn with replacement, not rows.

    Args:
        block: sessions drawn together, the first after the last: more than 1 where neighbours' labels
            overlap.
    """
    right = predicted_up == (returns > 0)
    groups = session_groups(sessions)
    hits = np.array([right[rows].sum() for rows in groups])
    sizes = np.array([len(rows) for rows in groups])
    n = len(groups)
    if block > 1:
        hits, sizes = (np.append(of, of[: block - 1]).cumsum() for of in (hits, sizes))
        hits, sizes = (of[block - 1 :] - np.append(0, of[:-block]) for of in (hits, sizes))
    drawn = -(-n // block)
    draws = np.random.default_rng(seed).multinomial(drawn, np.full(n, 1 / n), size=samples)
    accuracy = (draws @ hits) / (draws @ sizes)
    return [float(v) for v in np.percentile(accuracy, [2.5, 97.5])]
