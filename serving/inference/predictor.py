"""The champion, run on what the online store has now."""

import sqlite3
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import pandas as pd

from pitwise.errors import StoreError
from pitwise.features.windows import PACKED, unpacked
from pitwise.registry.champion import CHAMPION
from pitwise.registry.contract import OUTPUTS, run_onnx
from pitwise.registry.model import RegisteredModel, RegistryParams, load_registered
from pitwise.registry.restore import restored_champion
from pitwise.workspace import Workspace

WINDOWS_VIEW = "windows"
THREADS = 1
"""Of one run of the model: a service has other requests for its other cores."""


def load_champion(workspace: Workspace, registry: RegistryParams) -> RegisteredModel:
    """The version the alias `champion` points to; of an empty registry the last one promoted.

    Raises:
        StoreError: there is no champion, or its file is not in the workspace.
    """
    version = restored_champion(workspace, registry)
    if version is None:
        raise StoreError(
            f"model '{registry.model}' has no version with the alias '{CHAMPION}' in "
            f"{workspace.database_url(registry.tracking_uri)}. Run `dvc repro -f -s register`."
        )
    return load_registered(registry.model, version, THREADS)


class OnlineStore(Protocol):
    """What forecasts need of a `feast.FeatureStore`."""

    def get_feature_view(self, name: str) -> Any: ...

    def get_online_features(
        self, features: list[str], entity_rows: Mapping[str, Sequence[str]]
    ) -> Any: ...


@dataclass(frozen=True)
class Forecasts:
    """A model's forecasts of the session after each symbol's newest one; (n,) each."""

    model_version: str
    symbols: list[str]
    """Those that have a window, in the order of the request."""
    as_of: np.ndarray
    """datetime64[us], UTC: close of the last session seen."""
    last_close: np.ndarray
    """float64, US dollars."""
    log_return: np.ndarray
    price: np.ndarray
    """float64, US dollars: the last close moved by the return; like it to the 7 digits of a float32."""
    p_up: np.ndarray
    window_hash: list[str]
    """Of the stored window, all its features: 16 hex digits of BLAKE2b."""
    missing: list[str]
    """Requested, but the store has no window of them."""

    def frame(self) -> pd.DataFrame:
        """symbol, as_of (UTC), log_return, price, p_up, model_version, window_hash."""
        return pd.DataFrame(
            {
                "symbol": self.symbols,
                "as_of": pd.to_datetime(self.as_of, utc=True),
                "log_return": self.log_return,
                "price": self.price,
                "p_up": self.p_up,
                "model_version": self.model_version,
                "window_hash": self.window_hash,
            }
        )


@dataclass(frozen=True)
class Windows:
    """Each symbol's newest window, all features of the store."""

    symbols: list[str]
    values: np.ndarray
    """(n, window, n_features) float32."""
    as_of: np.ndarray
    hashes: list[str]
    missing: list[str]


def _store_failures() -> tuple[type[Exception], ...]:
    """What an online store raises while it is down. Where redis is the store, Feast has imported it."""
    redis = sys.modules.get("redis")
    return (sqlite3.Error, redis.RedisError) if redis else (sqlite3.Error,)


class Predictor:
    """Windows from Feast's online store through a model.

    Raises:
        StoreError: the store does not serve a feature that the model was trained on.
    """

    def __init__(self, model: RegisteredModel, store: OnlineStore):
        from feast.errors import FeatureViewNotFoundException

        try:
            tags = store.get_feature_view(WINDOWS_VIEW).tags
        except FeatureViewNotFoundException as error:
            raise StoreError(
                f"the feature store has no view '{WINDOWS_VIEW}'. Run `dvc repro -f -s publish`."
            ) from error
        served = tags.get("features", "").split(",")
        missing = [name for name in model.features if name not in served]
        if missing:
            raise StoreError(
                f"model version {model.version} wants {', '.join(missing)}, which feature view "
                f"'{WINDOWS_VIEW}' does not serve. Run `dvc repro publish` or retrain."
            )
        self.model = model
        self.store = store
        self._served = len(served)
        self._columns = [served.index(name) for name in model.features]
        self._close = served.index("close")

    def windows(self, symbols: Sequence[str]) -> Windows:
        """Each symbol's newest window.

        Raises:
            StoreError: the store's windows are not as long as the model wants, or it does not answer.
            ValueError: no symbols.
        """
        if not symbols:
            raise ValueError("no symbols to look up.")
        try:
            answer = self.store.get_online_features(
                features=[f"{WINDOWS_VIEW}:window"], entity_rows={"symbol": list(symbols)}
            ).to_dict(include_event_timestamps=True)
        except _store_failures() as error:
            raise StoreError(
                f"the online store does not answer ({error}). Once it does, so do forecasts; if it came "
                "back empty, run `dvc repro -f -s publish`."
            ) from error
        found = [i for i, window in enumerate(answer["window"]) if window is not None]
        packed = [answer["window"][i] for i in found]
        sessions = sorted({len(window) // (PACKED.itemsize * self._served) for window in packed})
        if sessions and sessions != [self.model.window]:
            raise StoreError(
                f"model version {self.model.version} wants windows of {self.model.window} sessions, the "
                f"online store holds {', '.join(map(str, sessions))}. Run `dvc repro`."
            )
        values = np.empty((0, self.model.window, self._served), PACKED)
        if packed:
            values = unpacked(packed, self._served)
        return Windows(
            [symbols[i] for i in found],
            values,
            np.array([answer["window__ts"][i] for i in found], "int64").astype("datetime64[s]"),
            [blake2b(window, digest_size=8).hexdigest() for window in packed],
            [symbol for symbol, window in zip(symbols, answer["window"], strict=True) if window is None],
        )

    def forecast(
        self, symbols: Sequence[str], seconds: Callable[[str, float], None] | None = None
    ) -> Forecasts:
        """Forecasts for the session after each symbol's newest one.

        Args:
            seconds: called with each step, `lookup` and `model`, and how long it took.

        Raises:
            StoreError: the store's windows are not as long as the model wants.
            ValueError: no symbols.
        """
        started = perf_counter()
        windows = self.windows(symbols)
        looked_up = perf_counter()
        outputs = dict.fromkeys(OUTPUTS, np.empty(0))
        if windows.symbols:
            outputs = run_onnx(self.model.session, windows.values[:, :, self._columns])
        if seconds:
            seconds("lookup", looked_up - started)
            seconds("model", perf_counter() - looked_up)
        log_return = outputs["log_return"].astype(float)
        last_close = windows.values[:, -1:, self._close].astype(float).ravel()
        price = last_close * np.exp(log_return)
        return Forecasts(
            self.model.version,
            windows.symbols,
            windows.as_of,
            _as_shown(last_close),
            log_return,
            _as_shown(price),
            outputs["p_up"].astype(float),
            windows.hashes,
            windows.missing,
        )


def _as_shown(prices: np.ndarray) -> np.ndarray:
    return np.array([float(f"{price:.7g}") for price in prices])
