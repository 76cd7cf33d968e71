"""What any model has to beat: forecasts that need no deep learning.

The functions are of one split. The classes are the same and more of them for a walk-forward, with one
interface: `fit` on the rows of a fold's training dates, `predict` for the rows of its test dates.
"""

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import pandas as pd

from pitwise.evaluation.ranking import Reversal, Ridge


@dataclass(frozen=True)
class Forecast:
    """One forecast of n rows, each part (n,); None for what it does not forecast."""

    log_return: np.ndarray | None = None
    p_up: np.ndarray | None = None
    up: np.ndarray | None = None
    score: np.ndarray | None = None
    """What ranks a session's symbols; None: the log return does."""


def of_model(log_return: np.ndarray, p_up: np.ndarray, score: np.ndarray | None = None) -> Forecast:
    """A model's outputs; the direction it calls is the likelier one."""
    score = log_return if score is None else score
    return Forecast(log_return.astype(float), p_up.astype(float), p_up > 0.5, score.astype(float))


def persistence(rows: int) -> Forecast:
    """Tomorrow's price is today's; no forecast of direction."""
    return Forecast(np.zeros(rows))


def drift(train_labels: np.ndarray, rows: int) -> Forecast:
    """Every stock moves by the mean return of the training dates."""
    mean = train_labels.mean()
    return Forecast(np.full(rows, mean), up=np.full(rows, mean > 0))


def always_up(train_labels: np.ndarray, rows: int) -> Forecast:
    """Every stock rises, with the probability of a rise on the training dates."""
    share = (train_labels > 0).mean()
    return Forecast(p_up=np.full(rows, share), up=np.full(rows, True))


class Baseline(Protocol):
    """A forecast that is fitted on some rows and made for others."""

    def fit(self, rows: pd.DataFrame) -> Self:
        """Fit on the training rows: `event_timestamp`, `label` and the features of each window's last
        session, as it was served.

        Raises:
            DataError: too few sessions.
        """

    def predict(self, rows: pd.DataFrame) -> pd.DataFrame:
        """`score`, `log_return` and `p_up` of each row, NaN for what is not forecast.

        A score compares the symbols of one session; all its rows are needed together.
        """


def _forecasts(rows: pd.DataFrame, forecast: Forecast) -> pd.DataFrame:
    parts = {"score": 0.0, "log_return": forecast.log_return, "p_up": forecast.p_up}
    return pd.DataFrame(parts, index=rows.index).astype(float)


class Persistence:
    """See `persistence`."""

    def fit(self, rows: pd.DataFrame) -> Self:
        return self

    def predict(self, rows: pd.DataFrame) -> pd.DataFrame:
        return _forecasts(rows, persistence(len(rows)))


class Drift:
    """See `drift`."""

    def fit(self, rows: pd.DataFrame) -> Self:
        self._labels = rows["label"].to_numpy()
        return self

    def predict(self, rows: pd.DataFrame) -> pd.DataFrame:
        return _forecasts(rows, drift(self._labels, len(rows)))


class AlwaysUp:
    """See `always_up`."""

    def fit(self, rows: pd.DataFrame) -> Self:
        self._labels = rows["label"].to_numpy()
        return self

    def predict(self, rows: pd.DataFrame) -> pd.DataFrame:
        return _forecasts(rows, always_up(self._labels, len(rows)))


def baselines(horizon: int) -> dict[str, Baseline]:
    """Every baseline by its name in the tables, not yet fitted."""
    return {
        "persistence": Persistence(),
        "drift": Drift(),
        "always_up": AlwaysUp(),
        "reversal": Reversal(),
        "ridge": Ridge(horizon),
    }
