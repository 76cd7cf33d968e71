"""What any model has to beat: forecasts that need no deep learning.

The functions are of one split. The classes are the same and more of them for a walk-forward, with one
interface: `fit` on the rows of a fold's training dates, `predict` for the rows of its test dates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import pandas as pd
from pydantic import Field

from pitwise.evaluation.ranking import BoostedTrees, Reversal, Ridge, TreesParams, tree_inputs
from pitwise.stage import Params


class GradientBoostingParams(Params):
    iterations: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    max_leaf_nodes: int = Field(ge=2)
    seed: int = Field(ge=0)


@dataclass(frozen=True)
class Forecast:
    """One forecast of n rows, each part (n,); None for what it does not forecast."""

    log_return: np.ndarray | None = None
    p_up: np.ndarray | None = None
    up: np.ndarray | None = None


def of_model(log_return: np.ndarray, p_up: np.ndarray) -> Forecast:
    """A model's outputs; the direction it calls is the likelier one."""
    return Forecast(log_return.astype(float), p_up.astype(float), p_up > 0.5)


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


def gradient_boosting(
    train: pd.DataFrame, test: pd.DataFrame, features: Sequence[str], params: GradientBoostingParams
) -> Forecast:
    """Boosted trees on the last session's features: one for the return, one for the direction."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    settings = {
        "max_iter": params.iterations,
        "learning_rate": params.learning_rate,
        "max_leaf_nodes": params.max_leaf_nodes,
        "random_state": params.seed,
        "early_stopping": False,  # scikit-learn's own would hold out rows at random, across dates
    }
    x, x_test = tree_inputs(train, features), tree_inputs(test, features)
    labels = train["label"].to_numpy()
    regressor = HistGradientBoostingRegressor(**settings).fit(x, labels)
    classifier = HistGradientBoostingClassifier(**settings).fit(x, labels > 0)
    rises = list(classifier.classes_).index(True) if True in classifier.classes_ else None
    p_up = np.zeros(len(test)) if rises is None else classifier.predict_proba(x_test)[:, rises]
    return of_model(regressor.predict(x_test), p_up)


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


def baselines(horizon: int, trees: TreesParams) -> dict[str, Baseline]:
    """Every baseline by its name in the tables, not yet fitted."""
    return {
        "persistence": Persistence(),
        "drift": Drift(),
        "always_up": AlwaysUp(),
        "reversal": Reversal(),
        "ridge": Ridge(horizon),
        "gradient_boosting": BoostedTrees(horizon, trees),
    }
