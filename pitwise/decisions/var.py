"""Value at risk and expected shortfall of a session, from the returns before it.

Both are losses as fractions of the value: 0.02 is 2% lost. At level 0.99 a loss above the value at risk
is expected in one session of a hundred; expected shortfall is the mean loss in those.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import kurtosis, norm, skew

from pitwise.decisions.volatility import Garch


class Tail(NamedTuple):
    var: float
    es: float


def historical(returns: np.ndarray, level: float) -> Tail:
    """The quantile of the returns themselves, interpolated, and the mean of those at or below it."""
    quantile = np.quantile(returns, 1 - level)
    # Its rounding must not leave out the return that the quantile is.
    worst = np.partition(returns, n := int((len(returns) - 1) * (1 - level) + 1e-9))[: n + 1]
    return Tail(float(-quantile), float(-worst.mean()))


def normal(returns: np.ndarray, level: float) -> Tail:
    """Of the normal distribution with the returns' mean and standard deviation (over n - 1)."""
    return _moments(returns, norm.ppf(1 - level), -norm.pdf(norm.ppf(1 - level)) / (1 - level))


def cornish_fisher(returns: np.ndarray, level: float) -> Tail | None:
    """Of the normal quantile corrected for skewness S and excess kurtosis K.

    z + (z^2 - 1) S / 6 + (z^3 - 3 z) K / 24 - (2 z^3 - 5 z) S^2 / 36, whose mean over the tail is the
    expected shortfall. Source: Cornish and Fisher (1938); the range where it holds: Maillard (2012).

    Returns:
        None where the corrected quantile would fall somewhere as the probability rises: skewness is too
        large for the kurtosis, or the kurtosis itself is, from an excess of 8 on.
    """
    z = norm.ppf(1 - level)
    s, k = float(skew(returns)), float(kurtosis(returns))
    if not holds(s, k):
        return None
    quantile = z + (z**2 - 1) * s / 6 + (z**3 - 3 * z) * k / 24 - (2 * z**3 - 5 * z) * s**2 / 36
    # Moments of a normal variable below z: E[Z] = -f, E[Z^2] = 1 - z f, E[Z^3] = -(z^2 + 2) f.
    f = norm.pdf(z) / (1 - level)
    mean = -f * (1 + z * s / 6 + (z**2 - 1) * k / 24 - (2 * z**2 - 1) * s**2 / 36)
    return _moments(returns, quantile, mean)


def filtered(returns: np.ndarray, level: float, garch: Garch) -> Tail:
    """Past shocks, in standard deviations as forecast, at the standard deviation forecast for now.

    Source: Hull and White (1998); Barone-Adesi, Giannopoulos and Vosper (1999).
    """
    shocks = historical(garch.shocks(returns), level)
    deviation = float(np.sqrt(garch.variances(returns)[-1]))
    return Tail(deviation * shocks.var - garch.mean, deviation * shocks.es - garch.mean)


def simulated(paths: np.ndarray, level: float) -> Tail:
    """Of the returns over all sessions of each path, compounded."""
    return historical(np.prod(1 + paths, axis=1) - 1, level)


def scaled(tail: Tail, sessions: int) -> Tail:
    """A session's, times the root of the sessions: right where returns are independent, with mean 0."""
    return Tail(tail.var * sessions**0.5, tail.es * sessions**0.5)


def _moments(returns: np.ndarray, quantile: float, mean_below: float) -> Tail:
    mean, deviation = returns.mean(), returns.std(ddof=1)
    return Tail(float(-mean - deviation * quantile), float(-mean - deviation * mean_below))


def holds(s: float, k: float) -> bool:
    """Whether Cornish and Fisher's quantile rises with the normal one everywhere."""
    a, b, c = k / 8 - s**2 / 6, s / 3, 1 - k / 8 + 5 * s**2 / 36  # its slope: a z^2 + b z + c
    return b**2 < 4 * a * c and a > 0 if a else b == 0 and c > 0
