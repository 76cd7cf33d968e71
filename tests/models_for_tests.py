"""Small markets, small models and a small workspace for the tests of the rooms that use them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn.ensemble  # noqa: F401  # loads the pool that is limited below
import torch
import yaml
from threadpoolctl import threadpool_limits

from feature_repo.artifacts import write_json, write_parquet
from feature_repo.features import daily_features
from feature_repo.revisions import merge
from feature_repo.sessions import is_session
from training.dataset import DatasetParams, build
from training.evaluate import EvaluateParams
from training.export import export_onnx
from training.fit import Fit, TrainParams, fit, fit_scaling
from training.models import AnnParams, Forecaster, LstmParams
from training.windows import WindowDataset

# Models this small gain nothing from threads, and lose fifty times over when other work holds the cores.
torch.set_num_threads(1)
threadpool_limits(1, user_api="openmp")

PROJECT = Path(__file__).resolve().parent.parent
FEATURES = ("open", "close", "volume", "price_change", "daily_return", "price_to_sma_5", "rsi_14")
WINDOW = 10
SPLIT = {"validation_fraction": 0.15, "test_fraction": 0.2, "embargo_sessions": 2}
BODIES = {
    "ann": AnnParams(hidden=(32, 16), dropout=(0.1, 0.1)),
    "lstm": LstmParams(hidden=(16, 8), dropout=(0.1, 0.1), dense=8),
}
EVALUATION = {
    "bootstrap_samples": 200,
    "bootstrap_seed": 0,
    "gradient_boosting": {"iterations": 50, "learning_rate": 0.1, "max_leaf_nodes": 8, "seed": 0},
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
            "segment": np.int32(0),
        }
    )
    return bars.astype({"symbol": "string", "date": "datetime64[us]"})


def dataset_rows(bars: pd.DataFrame, window: int = WINDOW) -> pd.DataFrame:
    """What stage `dataset` makes of the bars, without a feature store between."""
    daily = daily_features(bars)
    return build(daily.drop(columns="segment"), daily, DatasetParams(**SPLIT), window)


def part(rows: pd.DataFrame, name: str) -> WindowDataset:
    return WindowDataset(rows, np.flatnonzero(rows["split"] == name), FEATURES, WINDOW)


def all_windows(dataset: WindowDataset) -> torch.Tensor:
    return dataset[list(range(len(dataset)))][0]


def train_params(**changed) -> TrainParams:
    settings = {
        "seed": 1,
        "batch_size": 64,
        "learning_rate": 0.005,
        "weight_decay": 0.0,
        "return_weight": 1.0,
        "direction_weight": 1.0,
        "max_batches": 240,
        "batches_per_check": 40,
        "patience": 3,
    }
    return TrainParams(**settings | changed)


def small_model(kind: str, seed: int = 1) -> Forecaster:
    torch.manual_seed(seed)
    return Forecaster(kind, FEATURES, WINDOW, BODIES[kind])


def small_fit(kind: str, rows: pd.DataFrame, seed: int = 1, **changed) -> Fit:
    model = small_model(kind, seed)
    return fit(model, part(rows, "train"), part(rows, "validation"), train_params(**changed))


def evaluate_params() -> EvaluateParams:
    return EvaluateParams(**EVALUATION)


def make_workspace(folder: Path, bars: pd.DataFrame, **sections: dict) -> None:
    """A project in `folder`, up to what stage `select` leaves, with small models in its params.

    Args:
        sections: keys of `params.yaml` to change, by section.
    """
    params = yaml.safe_load((PROJECT / "params.yaml").read_text())
    params["publish"]["window"] = WINDOW
    params["dataset"] = SPLIT
    params["select"] |= {"method": "fixed", "features": list(FEATURES)}
    params["train"] = train_params().model_dump()
    params |= {kind: body.model_dump(mode="json") for kind, body in BODIES.items()}
    params["evaluate"] = EVALUATION
    params["registry"]["tracking_uri"] = f"sqlite:///{folder}/mlflow.db"
    for section, changed in sections.items():
        params[section] |= changed
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    write_parquet(bars, folder / "data/clean/bars.parquet")
    history = merge(None, daily_features(bars), pd.Timestamp.now("UTC"))
    write_parquet(history, folder / "data/features/daily.parquet")
    write_parquet(dataset_rows(bars), folder / "data/dataset/rows.parquet")
    write_json({"window": WINDOW}, folder / "metrics/dataset.json")
    write_json({"features": list(FEATURES)}, folder / "metrics/selection.json")


def change_params(folder: Path, section: str, **changed) -> None:
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params[section] |= changed
    path.write_text(yaml.safe_dump(params))


def register_champion(folder: Path, rows: pd.DataFrame, kind: str = "ann") -> str:
    """A model that knows the scaling and nothing else, into the workspace's registry; its version."""
    import mlflow
    import onnx

    model = small_model(kind)
    fit_scaling(model, part(rows, "train"))
    export_onnx(model, all_windows(part(rows, "train"))[:2], folder / "model.onnx")
    contract = {"kind": kind, "features": list(FEATURES), "window": WINDOW}
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.set_experiment("pitwise")
    with mlflow.start_run():
        info = mlflow.onnx.log_model(
            onnx.load(folder / "model.onnx"),
            name="model",
            registered_model_name="pitwise",
            metadata=contract,
            pip_requirements=["onnxruntime"],
        )
    version = str(info.registered_model_version)
    mlflow.MlflowClient().set_registered_model_alias("pitwise", "champion", version)
    return version


def copy_rooms(folder: Path) -> None:
    """The rooms' code into `folder`: Feast's definitions look for the data beside their own file."""
    for room in ("feature_repo", "training", "serving", "monitoring"):
        shutil.copytree(PROJECT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))


def run_python(folder: Path, code: str) -> str:
    """Run code in a fresh interpreter whose project is `folder`; what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
