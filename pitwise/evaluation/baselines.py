"""What any model has to beat: forecasts that need no deep learning."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pydantic import Field

from pitwise.features.indicators import BY_NAME
from pitwise.features.scale_free import scale_free
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


def tree_inputs(rows: pd.DataFrame, features: Sequence[str]) -> np.ndarray:
    """The window's last session alone, free of price level; (n, n_features) float32.

    Share counts have no meaning without the symbol's own level and are left out (volume_ratio carries
    it). Prices are taken without their log: trees ask for the order of values alone.
    """
    columns = []
    for name in features:
        unit = BY_NAME[name].unit
        if unit != "shares":
            without_log = "price_change" if unit == "price" else unit
            columns.append(scale_free(rows[name], without_log, rows["close"]))
    return np.column_stack(columns).astype("float32")


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
