"""What a score is made of: a contribution of each feature, held against the session's median symbol.

Contributions add up to the score less the baseline's. `serving/attribution.py` computes them.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pitwise.errors import StoreError
from pitwise.features.scale_free import scale_free
from pitwise.features.windows import UNITS
from pitwise.registry.contract import run_onnx
from serving.attribution import contributions
from serving.inference.predictor import WINDOWS_VIEW, Predictor


class FeatureShare(NamedTuple):
    """What one feature has to do with a score."""

    feature: str
    value: float
    """Of the window's last session, as the store has it."""
    rank: int
    """Of that value free of the stock's price and size, among the session's symbols; 1: the largest."""
    contribution: float
    """To the score, of the feature's values in all sessions of the window."""


@dataclass(frozen=True)
class Explanation:
    """Why a symbol's newest score is what it is."""

    symbol: str
    as_of: np.datetime64
    """UTC: close of the last session seen."""
    model_version: str
    kind: str
    method: str
    """See `serving.attribution.contributions`."""
    score: float
    rank: int
    """Of the score among the session's symbols; 1 is the largest."""
    symbols: int
    """With a window that ends in the session."""
    baseline: float
    """The score of the session's median symbol, at this one's price and volume."""
    unexplained: float
    """The score less the baseline, less all contributions: rounding, and the steps of the line."""
    features: list[FeatureShare]
    """The largest contribution first, whatever its sign."""
    window: np.ndarray
    """(window, n_features) float32, what the model saw, in the order of the model's features."""


def explain(predictor: Predictor, file: Path, symbol: str, symbols: list[str]) -> Explanation:
    """Explain a symbol's newest score.

    Args:
        file: the predictor's model.
        symbols: all that have a window, to hold it against.

    Raises:
        StoreError: there is no window of the symbol, or it is not finite, or no other one ends with it.
    """
    model = predictor.model
    found = predictor.windows(sorted({*symbols, symbol}))
    if symbol not in found.symbols:
        raise StoreError(f"the online store has no window of {symbol}.")
    at = found.symbols.index(symbol)
    same = found.as_of == found.as_of[at]
    if same.sum() < 2:
        raise StoreError(f"{symbol}: no other symbol has a window that ends at {found.as_of[at]} UTC.")
    served = predictor.store.get_feature_view(WINDOWS_VIEW).tags["features"].split(",")
    columns = [served.index(name) for name in model.features]
    windows = found.values[same][:, :, columns]
    windows = windows[np.isfinite(windows).all(axis=(1, 2))]
    window = found.values[at][:, columns]
    if not np.isfinite(window).all():
        raise StoreError(f"{symbol}: its window has a NaN or an infinity. `pitwise predict` says more.")
    free = relative(windows, model.features)
    baseline = median_window(free, window, model.features)
    scores = run_onnx(model.session, windows)["score"]
    ours, theirs = (float(s) for s in run_onnx(model.session, np.stack([window, baseline]))["score"])

    made_of, method = contributions(file, model.features.index("close"), window, baseline)
    last = relative(window[None], model.features)[0, -1]
    ranks = 1 + (free[:, -1] > last).sum(axis=0)
    shares = zip(model.features, window[-1], ranks, made_of, strict=True)
    features = [FeatureShare(name, float(v), int(rank), float(c)) for name, v, rank, c in shares]
    return Explanation(
        symbol,
        found.as_of[at],
        model.version,
        model.kind,
        method,
        ours,
        int(1 + (scores > ours).sum()),
        len(windows),
        theirs,
        ours - theirs - float(made_of.sum()),
        sorted(features, key=lambda one: -abs(one.contribution)),
        window,
    )


def explained(name: str, predictor: Predictor, symbol: str, symbols: list[str]) -> Explanation:
    """`explain`, with the model's file fetched from the registry MLflow is set to.

    Args:
        name: of the registered model.
    """
    import mlflow

    with tempfile.TemporaryDirectory() as folder:
        version = f"models:/{name}/{predictor.model.version}"
        mlflow.artifacts.download_artifacts(version, dst_path=folder)
        return explain(predictor, Path(folder) / "model.onnx", symbol, symbols)


def relative(windows: np.ndarray, features: tuple[str, ...]) -> np.ndarray:
    """Windows free of each stock's price level and share count; (n, window, n_features) float64."""
    close = windows[:, -1:, features.index("close")].astype("float64")
    free = np.empty(windows.shape)
    for column, name in enumerate(features):
        free[:, :, column] = scale_free(windows[:, :, column].astype("float64"), UNITS[name], close)
        if UNITS[name] == "shares":
            free[:, :, column] -= free[:, :, column].mean(axis=1, keepdims=True)
    return free


def median_window(free: np.ndarray, window: np.ndarray, features: tuple[str, ...]) -> np.ndarray:
    """A window whose every value is the symbols' median, at the price and the volume of another one.

    Args:
        free: see `relative`.
        window: (window, n_features), the other one.
    """
    close = float(window[-1, features.index("close")])
    median = np.median(free, axis=0)
    for column, name in enumerate(features):
        if UNITS[name] == "price":
            median[:, column] = np.exp(median[:, column]) * close
        elif UNITS[name] == "price_change":
            median[:, column] *= close
        elif UNITS[name] == "shares":
            median[:, column] = np.expm1(median[:, column] + np.log1p(window[:, column]).mean())
    return median.astype("float32")
