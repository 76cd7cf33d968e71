"""How far a stated probability of a rise can be believed, judged on dates after those of the fit."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from pitwise.evaluation.figures import block_length, block_means
from pitwise.evaluation.sessions import SESSION

BINS = 10
EDGE = 1e-6
"""Stated probabilities are kept this far from 0 and 1."""


class Platt(NamedTuple):
    """calibrated = expit(intercept + slope * logit(p_up)).

    Source: Platt (1999), Probabilistic outputs for support vector machines.
    """

    intercept: float
    slope: float

    def __call__(self, p_up: np.ndarray) -> np.ndarray:
        return expit(self.intercept + self.slope * _logit(p_up))


def fit_platt(p_up: np.ndarray, rose: np.ndarray) -> Platt | None:
    """By maximum likelihood; None where all rose or none did.

    A slope below 0 becomes 0, and the probability the share of rises: a forecast that pointed the wrong
    way is worth nothing, not the opposite.

    Args:
        p_up: (n,) stated probabilities.
        rose: (n,) bool, what came.
    """
    from sklearn.linear_model import LogisticRegression

    if len(rose) == 0 or rose.all() or not rose.any():
        return None
    said = _logit(p_up)
    if np.ptp(said) > 0:
        spread = said.std()
        fitted = LogisticRegression(C=np.inf).fit((said / spread)[:, None], rose)
        slope = float(fitted.coef_[0, 0] / spread)
        if slope > 0:
            return Platt(float(fitted.intercept_[0]), slope)
    return Platt(float(logit(rose.mean())), 0.0)


def judged(table: pd.DataFrame, horizon: int) -> pd.DataFrame:
    """Each quarter's forecasts, calibrated on those whose outcome was known at its first close.

    Args:
        table: `event_timestamp`, `p_up`, `label` (log return over the horizon), all known.
        horizon: sessions that the label looks ahead.

    Returns:
        the rows of the quarters after the first, with `rose`, `calibrated`, the `intercept` and `slope`
        of that, and `base_rate`, the share of rises in what they were fitted on.
    """
    table = table.sort_values(SESSION, ignore_index=True)
    codes, sessions = pd.factorize(table[SESSION])
    quarters = pd.DatetimeIndex(sessions).tz_localize(None).to_period("Q")
    p_up, rose = table["p_up"].to_numpy(float), table["label"].to_numpy(float) > 0
    parts = []
    for quarter in quarters.unique()[1:]:
        first = int((quarters < quarter).sum())
        before = codes <= first - horizon
        fitted = fit_platt(p_up[before], rose[before])
        if fitted is None:
            continue
        now = np.flatnonzero((quarters == quarter)[codes])
        rows = table.iloc[now].assign(rose=rose[now], calibrated=fitted(p_up[now]))
        parts.append(rows.assign(**fitted._asdict(), base_rate=rose[before].mean()))
    if parts:
        return pd.concat(parts, ignore_index=True)
    return table.iloc[:0].reindex(columns=[*table, "rose", "calibrated", *Platt._fields, "base_rate"])


def reliability(
    said: pd.Series, rows: pd.DataFrame, horizon: int, samples: int, seed: int
) -> list[dict[str, Any]]:
    """What was said against what came true, by tenths of what was said.

    Args:
        said: (n,) probabilities.
        rows: (n,) `event_timestamp` and `rose`.
        samples: draws of blocks of sessions.

    Returns:
        for each tenth, lowest first: low, high, said (its mean), came (share of rises), ci95 of that,
        count, sessions. Equal probabilities are in one tenth, so there may be fewer.
    """
    if said.empty:
        return []
    tenth = pd.qcut(said, BINS, labels=False, duplicates="drop").fillna(0)  # NaN: all are equal
    codes, sessions = pd.factorize(rows[SESSION], sort=True)
    rose = rows["rose"].to_numpy(float)
    found = []
    for number in np.unique(tenth):
        own = (tenth == number).to_numpy()
        n = np.bincount(codes[own], minlength=len(sessions)).astype(float)
        ups = np.bincount(codes[own], rose[own], minlength=len(sessions))
        found.append(
            {
                "low": float(said[own].min()),
                "high": float(said[own].max()),
                "said": float(said[own].mean()),
                "came": float(rose[own].mean()),
                "ci95": ratio_interval(ups, n, horizon, samples, seed),
                "count": int(own.sum()),
                "sessions": int((n > 0).sum()),
            }
        )
    return found


def scores(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Brier score and log loss of the stated, the calibrated and the constant probability.

    Args:
        rows: see `judged`, one or more.
    """
    rose = rows["rose"].to_numpy(float)
    found = {}
    for name, column in (("stated", "p_up"), ("calibrated", "calibrated"), ("base_rate", "base_rate")):
        said = np.clip(rows[column].to_numpy(float), EDGE, 1 - EDGE)
        loss = -(rose * np.log(said) + (1 - rose) * np.log(1 - said))
        found[name] = {"brier": float(np.mean((said - rose) ** 2)), "log_loss": float(loss.mean())}
    return found


def ratio_interval(
    parts: np.ndarray, wholes: np.ndarray, horizon: int, samples: int, seed: int
) -> list[float] | None:
    """95% interval of sum(parts) / sum(wholes) over circular blocks of sessions.

    Args:
        parts, wholes: (n_sessions,).

    Returns:
        None where fewer than two sessions have any.
    """
    if np.count_nonzero(wholes) < 2:
        return None
    block = block_length(len(wholes), horizon)
    # The same seed draws the same blocks for both.
    above, below = (block_means(values, block, samples, seed) for values in (parts, wholes))
    drawn = above[below > 0] / below[below > 0]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return [float(low), float(high)]


def _logit(p_up: np.ndarray) -> np.ndarray:
    return logit(np.clip(p_up, EDGE, 1 - EDGE))
