"""Small markets, small models and a small workspace for the tests of the packages that use them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import sklearn.ensemble  # noqa: F401  # loads the pool that is limited below
import torch
import yaml
from support.models_by_hand import FEATURES, WINDOW, contract, make_champion, register
from threadpoolctl import threadpool_limits

from pitwise.bars import __main__ as stage_bars
from pitwise.bars.calendar import is_session, session_close
from pitwise.bars.landing import Landing, first_to_last, land, newest_close
from pitwise.bars.schema import COLUMNS
from pitwise.bars.versions import read_versions
from pitwise.cleaning.cross_section import cross_section, tape, write_cross_section
from pitwise.features.daily import daily_features
from pitwise.features.history import CREATED
from pitwise.features.served import ServedWindows
from pitwise.workspace import Workspace, write_json, write_parquet
from training.dataset import DatasetParams, build
from training.evaluate import EvaluateParams
from training.models.export import export_onnx
from training.models.fit import Fit, TrainParams, fit, fit_scaling
from training.models.forecaster import (
    AnnParams,
    Forecaster,
    GradientBoostingParams,
    LstmParams,
    TransformerParams,
)
from training.models.windows import WindowDataset

WITHOUT_TORCH = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
"""
"""Before other code for `run_python`: what it finds where only serving is installed."""

# Models this small gain nothing from threads, and lose fifty times over when other work holds the cores.
torch.set_num_threads(1)
threadpool_limits(1, user_api="openmp")

PROJECT = Path(__file__).resolve().parents[2]
SPLIT = {"validation_fraction": 0.15, "test_fraction": 0.2, "embargo_sessions": 2}
BODIES = {
    "gradient_boosting": GradientBoostingParams(
        inputs="selected", iterations=40, learning_rate=0.1, max_leaf_nodes=8, rows_per_leaf=40, l2=1.0
    ),
    "ann": AnnParams(inputs="selected", hidden=(32, 16), dropout=(0.1, 0.1)),
    "lstm": LstmParams(inputs="selected", hidden=(16, 8), dropout=(0.1, 0.1), dense=8, skip=True),
    "transformer": TransformerParams(
        inputs="selected", width=8, layers=1, heads=2, feedforward=16, dropout=0.1, dense=8, skip=True
    ),
}
EVALUATION = {
    "bootstrap_samples": 200,
    "bootstrap_seed": 0,
}


def market(symbols: int, sessions: int, seed: int, momentum: float = 0.0) -> pd.DataFrame:
    """Clean bars whose log returns follow r[t] = momentum * r[t-1] + noise (sd 0.02).

    At 0 the closes are random walks and nothing can be known. At 0.5 the best forecast explains
    a quarter of the next return's variance (skill 0.25) and calls 2/3 of the directions right.
    """
    rng = np.random.default_rng(seed)
    days = pd.Series(pd.date_range("2014-01-02", periods=2 * sessions))
    days = days[is_session(days)].iloc[:sessions]
    returns = rng.normal(0, 0.02, (symbols, sessions))
    for t in range(1, sessions):
        returns[:, t] += momentum * returns[:, t - 1]
    close = rng.uniform(5, 500, (symbols, 1)) * np.exp(returns.cumsum(axis=1))
    opening = close * np.exp(rng.normal(0, 0.005, close.shape))
    bars = pd.DataFrame(
        {
            "symbol": np.repeat([f"S{i:03d}" for i in range(symbols)], sessions),
            "date": np.tile(days, symbols),
            "open": opening.ravel(),
            "high": (np.maximum(opening, close) * 1.005).ravel(),
            "low": (np.minimum(opening, close) * 0.995).ravel(),
            "close": close.ravel(),
            "volume": rng.integers(10**5, 10**7, close.size).astype(float),
            "price_factor": 1.0,
            "share_factor": 1.0,
            "segment": np.int32(0),
        }
    )
    return bars.astype({"symbol": "string", "date": "datetime64[us]"})


def dataset_rows(bars: pd.DataFrame, window: int = WINDOW, horizon: int = 1) -> pd.DataFrame:
    """What stage `dataset` makes of the bars, without a feature store between."""
    daily = daily_features(bars)
    return build(daily.drop(columns="segment"), daily, DatasetParams(**SPLIT), window, horizon)


def windows_of(rows: pd.DataFrame, features: Sequence[str] = FEATURES) -> ServedWindows:
    """The windows of a set of which every one was served as it is known now."""
    return ServedWindows(rows, rows[:0], features)


def at_ends(rows: pd.DataFrame, ends: np.ndarray, features: Sequence[str] = FEATURES) -> WindowDataset:
    return WindowDataset(windows_of(rows, features), rows, ends, WINDOW)


def part(rows: pd.DataFrame, name: str) -> WindowDataset:
    return at_ends(rows, np.flatnonzero(rows["split"] == name))


def all_windows(dataset: WindowDataset) -> torch.Tensor:
    return dataset[list(range(len(dataset)))].windows


def known_at_their_close(daily: pd.DataFrame) -> pd.DataFrame:
    """The history of features of which each was known at its session's close, and never corrected."""
    history = daily.copy()
    history.insert(2, CREATED, history["event_timestamp"])
    return history


def sealed_at_their_close(bars: pd.DataFrame) -> pd.DataFrame:
    """The seals of a history of which all bars of a session were known at its close."""
    dates = bars["date"].drop_duplicates().sort_values(ignore_index=True)
    return pd.DataFrame({"date": dates, "sealed_at": session_close(dates)})


def train_params(**changed) -> TrainParams:
    settings = {
        "seed": 1,
        "label": "return",
        "batch_size": 64,
        "learning_rate": 0.005,
        "weight_decay": 0.0,
        "return_weight": 1.0,
        "direction_weight": 1.0,
        "passes": 1000,
        "max_batches": 240,
        "batches_per_check": 40,
        "average": None,
        "patience": 3,
    }
    return TrainParams(**settings | changed)


def small_model(kind: str, seed: int = 1) -> Forecaster:
    torch.manual_seed(seed)
    return Forecaster(kind, FEATURES, WINDOW, BODIES[kind])


def small_fit(kind: str, rows: pd.DataFrame, seed: int = 1, **changed) -> Fit:
    build = partial(small_model, kind, seed)
    return fit(build, part(rows, "train"), part(rows, "validation"), train_params(seed=seed, **changed))


def evaluate_params() -> EvaluateParams:
    return EvaluateParams(**EVALUATION)


def new_workspace(folder: Path, **sections: dict) -> Workspace:
    """The project's params and Feast's settings in a folder; no data yet.

    Args:
        sections: keys of `params.yaml` to change, by section.
    """
    workspace = Workspace(folder)
    workspace.feast_repo.mkdir(parents=True)
    shutil.copy(PROJECT / "feature_repo/feature_store.yaml", workspace.feast_repo)
    shutil.copy(PROJECT / "params.yaml", workspace.params)
    change_params(workspace, **{"engine": {"n_jobs": 1}, **sections})
    return workspace


def change_params(workspace: Workspace, **sections: dict) -> None:
    """Change keys of `params.yaml`, by section."""
    params = yaml.safe_load(workspace.params.read_text())
    for section, changed in sections.items():
        params[section] |= changed
    workspace.params.write_text(yaml.safe_dump(params))


def make_workspace(folder: Path, bars: pd.DataFrame, **sections: dict) -> Workspace:
    """A workspace up to what stage `select` leaves, with small models in its params.

    Args:
        sections: keys of `params.yaml` to change, by section.
    """
    workspace = new_workspace(
        folder,
        publish={"window": WINDOW},
        dataset=SPLIT,
        select={"method": "fixed", "features": list(FEATURES)},
        train=train_params().model_dump(),
        evaluate=EVALUATION,
        **{kind: body.model_dump(mode="json") for kind, body in BODIES.items()},
    )
    change_params(workspace, **sections)
    write_parquet(bars, workspace.clean_bars)
    write_parquet(known_at_their_close(daily_features(bars)), workspace.daily_features)
    rows = dataset_rows(bars)
    write_parquet(rows, workspace.dataset_rows)
    write_parquet(rows[:0].assign(begins=False), workspace.served_rows)
    write_parquet(sealed_at_their_close(bars), workspace.seals)
    write_json([], workspace.bar_landings)
    write_json({"window": WINDOW, "horizon": 1}, workspace.dataset_report)
    write_json({"features": list(FEATURES)}, workspace.selection_report)
    return workspace


def published_workspace(folder: Path) -> Workspace:
    """Five symbols, S000 to S004, delivered once, in a Feast store; the registry is still empty."""
    from feature_repo import publish

    bars = market(5, 120, seed=21)
    workspace = make_workspace(folder, bars)
    delivered = bars[COLUMNS]
    land(
        workspace,
        Landing(
            delivered, "csv", newest_close(delivered), history="assumed", covers=first_to_last(delivered)
        ),
    )
    stage_bars.main(workspace)
    write_cross_section(workspace, cross_section(tape(read_versions(workspace))))
    publish.main(workspace)
    return workspace


def register_champion(workspace: Workspace, rows: pd.DataFrame, kind: str = "ann") -> str:
    """A model that knows the scaling and nothing else becomes the champion; its version."""
    model, file = small_model(kind), workspace.root / "model.onnx"
    fit_scaling(model, part(rows, "train"))
    export_onnx(model, all_windows(part(rows, "train"))[:2], file)
    version = register(workspace, onnx.load(file), contract(kind=kind))
    make_champion(workspace, version)
    return version


def run_python(workspace: Workspace, code: str) -> str:
    """Run code in an interpreter of its own in the workspace's folder; what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=workspace.root,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
