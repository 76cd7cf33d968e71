"""Baselines that rank the symbols of a session, and say what return goes with a rank.

Each is fitted on rows of a fold's training dates and forecasts others, see `baselines.Baseline`.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
import pandas as pd
from pydantic import Field

from pitwise.errors import DataError
from pitwise.evaluation import metrics
from pitwise.evaluation.calibration import fit_calibration
from pitwise.evaluation.sessions import SESSION
from pitwise.features.indicators import BY_NAME, NAMES
from pitwise.features.scale_free import scale_free
from pitwise.stage import Params

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Ridge penalties to choose from, each times the number of rows."""
HELD_OUT = 0.25
"""Share of the training sessions, the last ones, that penalty and calibration are chosen on."""


class Reversal:
    """What fell today rises tomorrow: the score is minus the day's return, in percent.

    Source: Jegadeesh (1990), Evidence of predictable behavior of security returns.
    """

    def fit(self, rows: pd.DataFrame) -> Self:
        self._calibration = fit_calibration(self._score(rows), rows, rows["label"])
        return self

    def predict(self, rows: pd.DataFrame) -> pd.DataFrame:
        return self._calibration.forecast(self._score(rows), rows)

    @staticmethod
    def _score(rows: pd.DataFrame) -> np.ndarray:
        return -rows["daily_return"].to_numpy(float)


class Ridge:
    """Ridge regression of the label's rank on the features' ranks, all of them within the session.

    The penalty is the one with the best mean rank IC on the last quarter of the training sessions, after
    a fit on those before; then all are fitted again.

    Args:
        horizon: sessions that the label looks ahead.
        features: of `NAMES`; share counts take no part, see `tree_inputs`.
    """

    def __init__(self, horizon: int, features: Sequence[str] = NAMES):
        self._horizon, self._features = horizon, features

    def fit(self, rows: pd.DataFrame) -> Self:
        from sklearn.linear_model import Ridge as Regression

        x, y = self._inputs(rows), session_ranks(rows["label"], rows)
        before, after = hold_out(rows, self._horizon)
        held = rows[after]

        def fitted(penalty: float, part: np.ndarray | slice):
            return Regression(alpha=penalty * len(y[part])).fit(x[part], y[part])

        scores = {penalty: fitted(penalty, before).predict(x[after]) for penalty in PENALTIES}
        self.penalty = max(PENALTIES, key=lambda penalty: _mean_rank_ic(scores[penalty], held))
        self._calibration = fit_calibration(scores[self.penalty], held, rows["label"])
        self._model = fitted(self.penalty, slice(None))
        return self

    def predict(self, rows: pd.DataFrame) -> pd.DataFrame:
        return self._calibration.forecast(self._model.predict(self._inputs(rows)), rows)

    def _inputs(self, rows: pd.DataFrame) -> np.ndarray:
        columns = tree_inputs(rows, self._features).T
        return np.column_stack([session_ranks(column, rows) for column in columns])


class TreesParams(Params):
    iterations: int = Field(default=100, ge=1)
    learning_rate: float = Field(default=0.04, gt=0)
    max_leaf_nodes: int = Field(default=15, ge=2)
    rows_per_leaf: int = Field(default=2000, ge=1)
    l2: float = Field(default=50.0, ge=0)
    columns: float = Field(default=0.5, gt=0, le=1)
    """Share of the features that each split is chosen from."""
    seed: int = Field(default=7, ge=0)


class BoostedTrees:
    """Boosted trees of the label's rank within the session on the features as they are.

    Return and probability are calibrated on the last quarter of the training sessions, after a fit on
    those before; then all are fitted again.

    Args:
        horizon: sessions that the label looks ahead.
        features: of `NAMES`; share counts take no part, see `tree_inputs`.
    """

    def __init__(self, horizon: int, params: TreesParams, features: Sequence[str] = NAMES):
        self._horizon, self._params, self._features = horizon, params, features

    def fit(self, rows: pd.DataFrame) -> Self:
        x, y = tree_inputs(rows, self._features), session_ranks(rows["label"], rows)
        before, after = hold_out(rows, self._horizon)
        scores = self._new().fit(x[before], y[before]).predict(x[after])
        self._calibration = fit_calibration(scores, rows[after], rows["label"])
        self._model = self._new().fit(x, y)
        return self

    def predict(self, rows: pd.DataFrame) -> pd.DataFrame:
        return self._calibration.forecast(self._model.predict(tree_inputs(rows, self._features)), rows)

    def _new(self):
        from sklearn.ensemble import HistGradientBoostingRegressor

        return HistGradientBoostingRegressor(
            max_iter=self._params.iterations,
            learning_rate=self._params.learning_rate,
            max_leaf_nodes=self._params.max_leaf_nodes,
            min_samples_leaf=self._params.rows_per_leaf,
            l2_regularization=self._params.l2,
            max_features=self._params.columns,
            random_state=self._params.seed,
            early_stopping=False,  # scikit-learn's own would hold out rows at random, across dates
        )


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


def hold_out(rows: pd.DataFrame, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Which rows are of the earlier sessions, and which of the last quarter of the sessions; (n,) bool.

    The `horizon` sessions between are in neither: their labels are known within the quarter only.

    Raises:
        DataError: too few sessions for both.
    """
    sessions = pd.DatetimeIndex(rows[SESSION].unique()).sort_values()
    n = len(sessions)
    held = round(n * HELD_OUT)
    if held < 1 or n - held - horizon < 1:
        raise DataError(
            f"{n} training sessions are too few for a fit and a quarter of them held out, {horizon} "
            "sessions apart. Use more data, or a later first test date."
        )
    before = rows[SESSION].isin(sessions[: n - held - horizon]).to_numpy()
    after = rows[SESSION].isin(sessions[n - held :]).to_numpy()
    return before, after


def session_ranks(values: np.ndarray | pd.Series, rows: pd.DataFrame) -> np.ndarray:
    """Ranks among the rows of the same session, evenly spaced between -0.5 and 0.5; (n,)."""
    codes = pd.factorize(rows[SESSION])[0]
    return (metrics.ranks(np.asarray(values), codes) - 0.5) / np.bincount(codes)[codes] - 0.5


def _mean_rank_ic(scores: np.ndarray, rows: pd.DataFrame) -> float:
    """-1 where there is nothing to rank."""
    ic = metrics.rank_ic(scores, rows["label"].to_numpy(), pd.factorize(rows[SESSION])[0])
    mean = metrics.mean_and_t(ic)[0]
    return -1.0 if mean is None else mean
