"""Volatility that changes: EWMA, GARCH(1,1) and GJR-GARCH with Student's t, and what they forecast.

Returns are simple, as fractions, one a session, oldest first. `arch` fits; it is imported where it does.
"""

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from pitwise.extras import require

DECAY = 0.94
"""RiskMetrics' factor for daily returns."""
YEAR = 252
"""Sessions of a year, for volatilities a year."""
PERCENT = 100
"""arch's optimiser wants variances near 1."""


@dataclass(frozen=True)
class Garch:
    """A fitted variance: var(t+1) = omega + (alpha + gamma [e(t) < 0]) e(t)^2 + beta var(t).

    Source: Bollerslev (1986); with gamma Glosten, Jagannathan and Runkle (1993).
    """

    mean: float
    omega: float
    alpha: float
    gamma: float
    beta: float
    start: float
    """Variance of the first session that it was fitted on."""
    degrees: float | None = None
    """Of Student's t; None where shocks are normal."""

    @property
    def persistence(self) -> float:
        """Share of a shock to the variance that is left a session later."""
        return self.alpha + self.gamma / 2 + self.beta

    def variances(self, returns: np.ndarray) -> np.ndarray:
        """Variance of each session, each from the ones before it, and of the one that comes: n + 1."""
        shock = returns - self.mean
        added = self.omega + (self.alpha + self.gamma * (shock < 0)) * shock**2
        return lfilter([1.0], [1.0, -self.beta], np.concatenate([[self.start], added]))

    def forecast(self, returns: np.ndarray, sessions: int) -> np.ndarray:
        """Expected variance of each of the coming sessions."""
        ahead = np.empty(sessions)
        ahead[0] = self.variances(returns)[-1]
        for i in range(1, sessions):
            ahead[i] = self.omega + self.persistence * ahead[i - 1]
        return ahead

    def shocks(self, returns: np.ndarray) -> np.ndarray:
        """Each session's return, less the mean, in standard deviations as forecast the session before.

        0 where the forecast is 0: nothing has moved yet.
        """
        deviation = np.sqrt(self.variances(returns)[:-1])
        moved = deviation > 0
        return np.divide(returns - self.mean, deviation, out=np.zeros(len(returns)), where=moved)

    def paths(self, returns: np.ndarray, sessions: int, n: int, rng: np.random.Generator) -> np.ndarray:
        """Returns of the coming sessions, drawn from the past shocks: filtered historical simulation.

        Source: Barone-Adesi, Giannopoulos and Vosper (1999).

        Returns:
            n x sessions.
        """
        drawn = rng.choice(self.shocks(returns), size=(n, sessions))
        drawn_returns = np.empty((n, sessions))
        variance = np.full(n, self.variances(returns)[-1])
        for i in range(sessions):
            shock = np.sqrt(variance) * drawn[:, i]
            drawn_returns[:, i] = self.mean + shock
            variance = (
                self.omega + (self.alpha + self.gamma * (shock < 0)) * shock**2 + self.beta * variance
            )
        return drawn_returns


def ewma(returns: np.ndarray, decay: float = DECAY) -> Garch:
    """RiskMetrics' variance, (1 - decay) r(t)^2 + decay var(t): a GARCH that nothing is fitted of.

    The first variance is the first squared return (where that is 0, the mean of all squares).
    Source: J.P. Morgan (1996), RiskMetrics, technical document.
    """
    start = float(returns[0] ** 2) or float(np.mean(returns**2))
    return Garch(mean=0.0, omega=0.0, alpha=1 - decay, gamma=0.0, beta=decay, start=start)


def fit_garch(returns: np.ndarray, asymmetric: bool = False) -> Garch | None:
    """Fit a GARCH(1,1) with normal shocks, or a GJR-GARCH(1,1,1) with Student's t, by `arch`.

    Returns:
        None where the optimiser does not converge, or what it found has no long-run variance.

    Raises:
        StoreError: arch is not installed.
    """
    try:
        from arch import arch_model
    except ImportError:
        require("evaluation", "a GARCH model")
        raise
    if not np.ptp(returns) > 0:
        return None
    model = arch_model(
        PERCENT * returns,
        mean="Constant",
        vol="GARCH",
        p=1,
        o=int(asymmetric),
        q=1,
        dist="t" if asymmetric else "normal",
        rescale=False,
    )
    fit = model.fit(disp="off", show_warning=False)
    found = fit.params.to_dict()
    garch = Garch(
        mean=found["mu"] / PERCENT,
        omega=found["omega"] / PERCENT**2,
        alpha=found["alpha[1]"],
        gamma=found.get("gamma[1]", 0.0),
        beta=found["beta[1]"],
        start=float(fit.conditional_volatility[0] / PERCENT) ** 2,
        degrees=found.get("nu"),
    )
    usable = fit.convergence_flag == 0 and garch.persistence < 1 and garch.omega > 0
    return garch if usable else None


def annual(variance: float | np.ndarray) -> float | np.ndarray:
    """Volatility of a year of sessions that have this variance each."""
    return np.sqrt(YEAR * variance)


def fan(paths: np.ndarray, quantiles: tuple[float, ...]) -> np.ndarray:
    """Quantiles of the compounded return up to each coming session: quantiles x sessions."""
    return np.quantile(np.cumprod(1 + paths, axis=1) - 1, quantiles, axis=0)
