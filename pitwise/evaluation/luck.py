"""How much of a good figure is luck: the best of many tries looks good whatever it is worth.

Sharpe ratios are of one period (mean / standard deviation of the session's returns), never annualised.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from scipy.stats import norm

from pitwise.evaluation.figures import block_length
from pitwise.extras import require


@dataclass(frozen=True)
class Track:
    """What the luck of a series of returns depends on, all of one period."""

    sharpe: float
    skewness: float
    kurtosis: float
    """Of the normal distribution 3."""
    n: int
    """Periods."""


def track(returns: pd.Series | np.ndarray) -> Track | None:
    """The track of the finite returns; None where they are fewer than two or do not vary.

    The standard deviation is over n - 1, skewness and kurtosis are moments over n.
    """
    values = np.asarray(returns, dtype=float)
    values = values[np.isfinite(values)]
    if len(values) < 2 or not np.ptp(values) > 0:
        return None
    off = values - values.mean()
    spread = np.sqrt(np.mean(off**2))
    return Track(
        sharpe=float(values.mean() / values.std(ddof=1)),
        skewness=float(np.mean(off**3) / spread**3),
        kurtosis=float(np.mean(off**4) / spread**4),
        n=len(values),
    )


def probabilistic_sharpe_ratio(of: Track, benchmark: float = 0.0) -> float:
    """Probability that the true Sharpe ratio is above the benchmark, given the one that was seen.

    Source: Bailey and López de Prado (2012), The Sharpe ratio efficient frontier.
    """
    variance = 1 - of.skewness * of.sharpe + (of.kurtosis - 1) / 4 * of.sharpe**2
    return float(norm.cdf((of.sharpe - benchmark) * np.sqrt((of.n - 1) / variance)))


def expected_max_sharpe_ratio(trials: float, variance: float) -> float:
    """The Sharpe ratio to be expected of the best of so many independent tries that are worth nothing.

    Args:
        trials: how many, see `effective_trials`; up to 1 there was no choice and it is 0.
        variance: of the tries' Sharpe ratios.

    Source: Bailey and López de Prado (2014), The deflated Sharpe ratio.
    """
    if trials <= 1:
        return 0.0
    first, second = norm.ppf(1 - 1 / trials), norm.ppf(1 - 1 / (trials * np.e))
    return float(np.sqrt(variance) * ((1 - np.euler_gamma) * first + np.euler_gamma * second))


def deflated_sharpe_ratio(of: Track, trials: float, variance: float) -> float:
    """Probability that the true Sharpe ratio is above 0, given that it is the best of so many tries.

    Args:
        trials, variance: see `expected_max_sharpe_ratio`.

    Source: Bailey and López de Prado (2014), The deflated Sharpe ratio.
    """
    return probabilistic_sharpe_ratio(of, expected_max_sharpe_ratio(trials, variance))


def effective_trials(returns: pd.DataFrame, alike: float = 0.5) -> int:
    """How many different things were tried: clusters of tries whose returns move together.

    Average linkage; two clusters are one where their tries' correlation, on average, is at least
    `alike`. The number of clusters follows from that one limit and not from silhouettes, as in the
    source, which can say neither that all tries are one nor that each is its own.
    Source of the idea: López de Prado and Lewis (2019), Detection of false investment strategies using
    unsupervised learning methods.

    Args:
        returns: (n_sessions, n_trials), NaN where a try has none; correlations are over what two share.
    """
    n = returns.shape[1]
    if n < 2:
        return n
    likeness = returns.corr().fillna(0.0).to_numpy()  # a series without variation is like no other
    distance = 1 - (likeness + likeness.T) / 2
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(distance, checks=False), method="average")
    return int(fcluster(tree, 1 - alike + 1e-9, criterion="distance").max())


def minimum_detectable_ic(
    sessions: int, ic_std: float, horizon: int = 1, level: float = 0.05, power: float = 0.8
) -> float:
    """The smallest mean IC that so many sessions would show, with the given power, two-sided.

    (z[1 - level / 2] + z[power]) * ic_std / sqrt(sessions / horizon): of overlapping labels, only those
    of every `horizon`-th session are independent.

    Args:
        ic_std: standard deviation of a session's IC; 0.12 is usual for 500 stocks.
    """
    z = norm.ppf(1 - level / 2) + norm.ppf(power)
    return float(z * ic_std / np.sqrt(sessions / horizon))


def model_confidence_set(
    ic: pd.DataFrame, horizon: int, samples: int, seed: int, level: float = 0.1
) -> dict[str, dict[str, float | bool]]:
    """The kinds among which the best is, with confidence 1 - level: none of them is shown to be worse.

    Circular block bootstrap over sessions, blocks as in `figures.paired`; statistic T_R.
    Source: Hansen, Lunde and Nason (2011), The model confidence set; as `arch` has it.

    Args:
        ic: (n_sessions, n_kinds) rank IC or another figure, larger is better. Kinds without any are left
            out, and then sessions that lack one.

    Returns:
        by kind: p_value, and included (p_value > level); empty where fewer than two sessions are left.

    Raises:
        StoreError: the extra `evaluation` is not installed.
    """
    require("evaluation", "the model confidence set")
    from arch.bootstrap import MCS

    ic = ic.dropna(axis="columns", how="all").dropna()
    if len(ic) < 2 or ic.shape[1] == 0:
        return {}
    distinct = ic.T.drop_duplicates().T  # arch divides by the variance of their difference
    if distinct.shape[1] == 1:
        p_values = pd.Series(1.0, index=distinct.columns)
    else:
        test = MCS(
            -distinct,
            size=level,
            reps=samples,
            block_size=block_length(len(ic), horizon),
            bootstrap="circular",
            seed=seed,
        )
        test.compute()
        p_values = test.pvalues["Pvalue"]
    result = {}
    for kind in ic.columns:
        same = next(other for other in distinct.columns if ic[other].equals(ic[kind]))
        p_value = float(p_values[same])
        result[str(kind)] = {"p_value": p_value, "included": p_value > level}
    return result
