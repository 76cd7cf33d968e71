"""One fit of a walk-forward: a kind of model or baseline, fitted in one fold with one seed.

Everything that is fitted sees the fold's training sessions alone: weights, scaling, calibration, the
stopping of a fit, and which features a model gets.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from pitwise.evaluation.baselines import baselines
from pitwise.evaluation.sessions import PARTS
from pitwise.evaluation.walk_forward import Fold
from pitwise.features.daily import FACTORS
from pitwise.features.history import KEYS
from pitwise.features.indicators import NAMES
from pitwise.features.served import ENDS, ServedWindows, last_sessions
from pitwise.registry.contract import ALL_OUTPUTS
from pitwise.stage import load_params
from pitwise.workspace import Workspace, read_parquet
from training.groups import symbol_filters
from training.select import GROUP_ROWS, SelectParams, seen_in_training, select
from training.train import fitted

if TYPE_CHECKING:
    from training.models.inputs import KindParams

COLUMNS = [*KEYS, *NAMES, *FACTORS, ENDS, "label"]
BATCH = 2048
"""Windows in one forecast of a model."""


class Recipe(NamedTuple):
    """What a fit is made by, beside the fold and the seed; equal recipes give equal forecasts."""

    kind: str
    data: str
    """Which data set; hashes of its files."""
    window: int
    horizon: int
    embargo: int
    validation_fraction: float
    """Of a fold's training sessions, the last ones; calibration, or the end of a fit, is by these."""


def forecast_fold(root: str, recipe: Recipe, fold: Fold, seed: int) -> pd.DataFrame:
    """Fit a kind on the fold's training sessions and forecast its test sessions.

    All that it needs it reads from the workspace, so that it may run in another process.

    Args:
        root: the workspace's folder.
        seed: what draws weights, batches and columns; of no meaning to those that draw nothing.

    Returns:
        `symbol`, `event_timestamp`, `score`, `log_return`, `p_up` of every window with a label in the
        test sessions; NaN for what is not forecast. Of a model also `scale`, and the same of its
        validation sessions; `split` tells the two apart.

    Raises:
        DataError: too little to fit on.
    """
    workspace = Workspace(root)
    known = baselines(recipe.horizon)
    if recipe.kind not in known:
        return _model_forecast(workspace, recipe, fold, seed)
    rows = _last_sessions(root, recipe.data)
    train, test = (rows[_in(rows, sessions)] for sessions in (fold.train, fold.test))
    said = known[recipe.kind].fit(train).predict(test)
    return pd.concat([test[KEYS], said[PARTS]], axis=1).assign(split="test").reset_index(drop=True)


def _in(rows: pd.DataFrame, sessions: pd.DatetimeIndex) -> np.ndarray:
    """(n,) bool: which rows end a window with a label in one of the sessions."""
    usable = rows[ENDS] & rows["label"].notna()
    return (usable & rows["event_timestamp"].isin(sessions)).to_numpy()


@lru_cache(maxsize=1)  # a process makes many fits of one data set
def _dataset(root: str, data: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The set and its rows as served."""
    workspace = Workspace(root)
    return read_parquet(workspace.dataset_rows, COLUMNS), read_parquet(workspace.served_rows)


@lru_cache(maxsize=1)
def _last_sessions(root: str, data: str) -> pd.DataFrame:
    """The last session of every window with a label, as it was served."""
    rows, served = _dataset(root, data)
    ends = np.flatnonzero(rows[ENDS] & rows["label"].notna())
    return last_sessions(rows, served, ends)


def _model_forecast(workspace: Workspace, recipe: Recipe, fold: Fold, seed: int) -> pd.DataFrame:
    params, body = _params(workspace, recipe.kind)
    train, held = fold.held_out(recipe.validation_fraction, recipe.embargo, recipe.horizon)
    features = inputs_of(workspace, body.inputs, train, recipe.window, recipe.horizon)
    rows, served = _dataset(str(workspace.root), recipe.data)
    parts = fold_parts(rows, served, features, (train, held, fold.test), recipe.window)
    params = params.model_copy(update={"seed": seed})
    model = fitted(recipe.kind, features, body, params, *parts[:2]).model
    return pd.concat(
        [
            _said(model, rows, part).assign(split=split)
            for split, part in (("validation", parts[1]), ("test", parts[2]))
        ],
        ignore_index=True,
    )


def fold_parts(
    rows: pd.DataFrame,
    served: pd.DataFrame,
    features: list[str],
    sessions: tuple[pd.DatetimeIndex, ...],
    window: int,
) -> list[Any]:
    """For each group of sessions, the `WindowDataset` of the windows with a label that end in them."""
    from training.models.windows import WindowDataset

    windows = ServedWindows(rows, served, features)
    return [WindowDataset(windows, rows, np.flatnonzero(_in(rows, some)), window) for some in sessions]


def fit_and_forecast(
    kind: str,
    rows: pd.DataFrame,
    features: list[str],
    body: "KindParams",
    train: Any,
    parts: list[Any],
) -> pd.DataFrame:
    """Fit a model on the first of a fold's parts, calibrate it on the second, and forecast the third.

    Args:
        train: section `train`, with the seed.
        parts: of `rows`, see `fold_parts`: training, validation, test.
    """
    return _said(fitted(kind, features, body, train, *parts[:2]).model, rows, parts[2])


def _said(model: Any, rows: pd.DataFrame, part: Any) -> pd.DataFrame:
    """A fitted model's forecasts of a part of the rows: keys and `ALL_OUTPUTS`."""
    import torch

    from training.models.windows import batches

    with torch.no_grad():
        outputs = [torch.stack(model(batch.windows)).numpy() for batch in batches(part, BATCH)]
    values = np.concatenate(outputs, axis=1).astype("float64")
    said = rows[KEYS].iloc[part.ends].reset_index(drop=True)
    return said.assign(**dict(zip(ALL_OUTPUTS, values, strict=True)))


def params_of(workspace: Workspace, kind: str) -> dict[str, Any]:
    """The sections of `params.yaml` that a model's fits depend on, but for the seeds."""
    train, body = _params(workspace, kind)
    chosen = load_params(workspace, "select", SelectParams)
    return {
        "train": train.model_dump(exclude={"seed"}),
        kind: body.model_dump(exclude={"seeds"}),
        "select": chosen.model_dump(),
    }


def _params(workspace: Workspace, kind: str) -> tuple[Any, "KindParams"]:
    from training.models.fit import TrainParams
    from training.models.forecaster import BODIES

    train = load_params(workspace, "train", TrainParams)
    return train, load_params(workspace, kind, BODIES[kind][1])


def inputs_of(
    workspace: Workspace, inputs: str, train: pd.DatetimeIndex, window: int, horizon: int
) -> list[str]:
    """A model's features; those that are selected are chosen as stage `select` does, on these sessions.

    Args:
        inputs: the key of that name in the kind's own section.
    """
    if inputs == "all":
        return NAMES
    params = load_params(workspace, "select", SelectParams)
    if params.method == "fixed":
        return [name for name in NAMES if name in params.features]

    def groups() -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
        for symbols in symbol_filters(workspace.dataset_rows, GROUP_ROWS):
            rows = read_parquet(workspace.dataset_rows, columns=COLUMNS, filters=symbols)
            served = read_parquet(workspace.served_rows, filters=symbols)
            yield rows.assign(split=np.where(_in(rows, train), "train", "")), served

    return select(*seen_in_training(groups(), window), params, horizon)["features"]
