"""What a score is worth: the return and the probability of a rise that go with it."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from pitwise.evaluation.sessions import SESSION


@dataclass(frozen=True)
class Calibration:
    """log_return = mean + slope * s; p_up = 1 / (1 + exp(-(logit(share) + steepness * s))).

    s is the score less the mean score of its session: a score compares the symbols of a session, and
    says nothing of the market.
    """

    mean: float
    """Log return of all training rows."""
    share: float
    """Share of rises in them."""
    slope: float
    steepness: float

    def forecast(self, scores: np.ndarray, rows: pd.DataFrame) -> pd.DataFrame:
        """`score`, `log_return`, `p_up` of rows with a column `event_timestamp`, whole sessions."""
        s = _centred(scores, rows[SESSION])
        p_up = expit(logit(self.share) + self.steepness * s)
        parts = {"score": scores, "log_return": self.mean + self.slope * s, "p_up": p_up}
        return pd.DataFrame(parts, index=rows.index)


def fit_calibration(scores: np.ndarray, held: pd.DataFrame, labels: pd.Series) -> Calibration:
    """Least squares within sessions for the return, logistic regression for the rise.

    Neither slope is below 0: a score that pointed the wrong way is worth nothing, not the opposite.

    Args:
        scores: (n,) of rows that the score was not fitted on.
        held: those rows: `event_timestamp`, `label`.
        labels: of all training rows, for the mean return and the share of rises.
    """
    s = _centred(scores, held[SESSION])
    returns = held["label"].to_numpy(float)
    spread = s.std()
    slope = steepness = 0.0
    if spread > 0:
        slope = max(0.0, float(s @ _centred(returns, held[SESSION]) / (s @ s)))
        steepness = max(0.0, _logistic_slope(s / spread, returns > 0) / float(spread))
    return Calibration(float(labels.mean()), float((labels > 0).mean()), slope, steepness)


def _logistic_slope(s: np.ndarray, up: np.ndarray) -> float:
    from sklearn.linear_model import LogisticRegression

    if up.all() or not up.any():
        return 0.0
    # Its usual penalty is nothing beside thousands of rows, and keeps a slope finite where a few are
    # told apart without an error.
    return float(LogisticRegression().fit(s[:, None], up).coef_[0, 0])


def _centred(values: np.ndarray, sessions: pd.Series) -> np.ndarray:
    codes = pd.factorize(sessions)[0]
    return values - (np.bincount(codes, values) / np.bincount(codes))[codes]
