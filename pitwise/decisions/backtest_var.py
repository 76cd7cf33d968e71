"""Was the value at risk right? Each past session's, from the sessions before it, against what came."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import xlogy
from scipy.stats import binom, chi2, kurtosis, norm, skew

from pitwise.decisions import var
from pitwise.decisions.volatility import Garch, ewma, fit_garch

METHODS = ("historical", "normal", "cornish_fisher", "filtered")
REFIT = 63
"""Sessions after which the GARCH model is fitted anew: a quarter."""
BASEL_SESSIONS = 250
YELLOW, RED = 0.95, 0.9999
"""Chance of at most so many exceptions, were the value at risk right, from which on the light is so."""

Result = dict[str, float | int | str]


class Fit(NamedTuple):
    """A variance fitted on the window before session `first`, and used up to `last` (exclusive)."""

    first: int
    last: int
    garch: Garch


def past_fits(returns: np.ndarray, window: int, refit: int = REFIT) -> list[Fit]:
    """A fit on the window before every `refit`-th session; EWMA where the GARCH model does not converge.

    Args:
        returns: simple returns, oldest first: n.
    """
    found = []
    for first in range(window, len(returns), refit):
        before = returns[first - window : first]
        garch = fit_garch(before) or ewma(before)
        found.append(Fit(first, min(first + refit, len(returns)), garch))
    return found


def past_vars(
    returns: np.ndarray,
    window: int,
    levels: Sequence[float],
    refit: int = REFIT,
    fits: Sequence[Fit] | None = None,
) -> dict[tuple[str, float], np.ndarray]:
    """What each method said before each session that has `window` sessions before it.

    Nothing is from the session itself or later: the GARCH model is fitted on the window before every
    `refit`-th session, and filters what comes until the next fit.

    Args:
        returns: simple returns, oldest first: n.
        fits: see `past_fits`, where they are at hand.

    Returns:
        for each method and level n - window values at risk, of the sessions from `window` on.
    """
    before = sliding_window_view(returns, window)[:-1]
    found: dict[tuple[str, float], np.ndarray] = {}
    mean, deviation = before.mean(axis=1), before.std(axis=1, ddof=1)
    quantiles = -np.quantile(before, [1 - level for level in levels], axis=1)
    moments = zip(skew(before, axis=1), kurtosis(before, axis=1), strict=True)
    s, k = np.array(list(moments)).T
    for level, quantile in zip(levels, quantiles, strict=True):
        z = norm.ppf(1 - level)
        found["historical", level] = quantile
        found["normal", level] = -mean - z * deviation
        corrected = z + (z**2 - 1) * s / 6 + (z**3 - 3 * z) * k / 24 - (2 * z**3 - 5 * z) * s**2 / 36
        holds = np.array([var.holds(*each) for each in zip(s, k, strict=True)], bool)
        found["cornish_fisher", level] = np.where(holds, -mean - deviation * corrected, quantile)
        found["filtered", level] = np.empty(len(before))
    for first, last, garch in past_fits(returns, window, refit) if fits is None else fits:
        seen = returns[first - window : last]
        ahead = np.sqrt(garch.variances(seen)[window : len(seen)])
        shocks = garch.shocks(seen[:window])
        for level in levels:
            said = ahead * var.historical(shocks, level).var - garch.mean
            found["filtered", level][first - window : last - window] = said
    return found


def past_simulated(
    returns: np.ndarray,
    window: int,
    horizon: int,
    levels: Sequence[float],
    paths: int,
    rng: np.random.Generator,
    fits: Sequence[Fit],
) -> dict[float, np.ndarray]:
    """What simulated paths said before each block of `horizon` sessions, from the first window on.

    As in `past_vars` nothing is from the block itself or later.

    Args:
        paths: drawn for each block.
        fits: see `past_fits`.

    Returns:
        for each level a value at risk of every whole block.
    """
    starts = range(window, len(returns) - horizon + 1, horizon)
    found = {level: np.empty(len(starts)) for level in levels}
    of_session = {session: fit for fit in fits for session in range(fit.first, fit.last)}
    for i, start in enumerate(starts):
        fit = of_session[start]
        ahead = fit.garch.paths(returns[fit.first - window : start], horizon, paths, rng)
        for level in levels:
            found[level][i] = var.simulated(ahead, level).var
    return found


def judged(exceptions: np.ndarray, level: float) -> Result:
    """All tests of the sessions, oldest first, whose loss was above the value at risk (True) or not."""
    return {
        "sessions": len(exceptions),
        "exceptions": int(exceptions.sum()),
        "expected": (1 - level) * len(exceptions),
        **kupiec(len(exceptions), int(exceptions.sum()), level),
        **christoffersen(exceptions, level),
        "traffic_light": traffic_light(exceptions[-BASEL_SESSIONS:], level),
    }


def kupiec(n: int, exceptions: int, level: float) -> Result:
    """Likelihood ratio of the share of exceptions being 1 - level, and its p-value (chi-squared, 1).

    Source: Kupiec (1995), Techniques for verifying the accuracy of risk measurement models.
    """
    said = _likelihood(n - exceptions, exceptions, 1 - level)
    ratio = 2 * (_likelihood(n - exceptions, exceptions, exceptions / n) - said)
    return {"kupiec": ratio, "kupiec_p": float(chi2.sf(ratio, 1))}


def christoffersen(exceptions: np.ndarray, level: float) -> Result:
    """Likelihood ratios: is an exception as likely after one as after none, and is the share right too.

    Source: Christoffersen (1998), Evaluating interval forecasts.

    Returns:
        independence (chi-squared, 1) and conditional coverage, its sum with Kupiec's (chi-squared, 2).
    """
    was, now = exceptions[:-1], exceptions[1:]
    n00, n01, n10, n11 = ((a & b).sum() for a in (~was, was) for b in (~now, now))
    share = (n01 + n11) / max(len(now), 1)
    free = _likelihood(n00, n01, n01 / max(n00 + n01, 1)) + _likelihood(
        n10, n11, n11 / max(n10 + n11, 1)
    )
    independence = max(2 * (free - _likelihood(n00 + n10, n01 + n11, share)), 0.0)
    coverage = independence + float(kupiec(len(exceptions), int(exceptions.sum()), level)["kupiec"])
    return {
        "independence": independence,
        "independence_p": float(chi2.sf(independence, 1)),
        "conditional_coverage": coverage,
        "conditional_coverage_p": float(chi2.sf(coverage, 2)),
    }


def traffic_light(exceptions: np.ndarray, level: float) -> str:
    """green, yellow or red: of 250 sessions at 0.99 up to 4 exceptions, up to 9, and more.

    Source: Basel Committee (1996), Supervisory framework for the use of backtesting.
    """
    chance = binom.cdf(int(exceptions.sum()), len(exceptions), 1 - level)
    return "green" if chance < YELLOW else "yellow" if chance < RED else "red"


def _likelihood(without: int, with_: int, probability: float) -> float:
    """Logarithm of the chance of so many sessions without and with an exception."""
    return float(xlogy(without, 1 - probability) + xlogy(with_, probability))
