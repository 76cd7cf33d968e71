"""The champion, run on what the online store has now."""

import sqlite3
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import pandas as pd

from pitwise.errors import StoreError
from pitwise.features.errors import (
    EmptyStoreError,
    NonFiniteForecastError,
    NonFiniteWindowError,
    UnreachableStoreError,
    WindowSchemaError,
    some_of,
)
from pitwise.features.windows import (
    HEADER,
    PACKED,
    packed_sessions,
    unpacked,
    window_hash,
    window_header,
)
from pitwise.registry.champion import CHAMPION
from pitwise.registry.contract import ALL_OUTPUTS, run_onnx
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
    """A model's forecasts of the `horizon`-th session after each symbol's newest one; (n,) each."""

    model_version: str
    horizon: int
    symbols: list[str]
    """Those that have a window, in the order of the request."""
    as_of: np.ndarray
    """datetime64[us], UTC: close of the last session seen."""
    last_close: np.ndarray
    """float64, US dollars."""
    score: np.ndarray
    """float64, as all below: what ranks the symbols of a session, in the model's own unit."""
    log_return: np.ndarray
    price: np.ndarray
    """US dollars: the last close moved by the return; like it to the 7 digits of a float32."""
    p_up: np.ndarray
    scale: np.ndarray
    """Of the logistic distribution of the log return; NaN where the model has none."""
    window_hash: list[str]
    """Of the stored window, all its features: 16 hex digits of BLAKE2b."""
    missing: list[str]
    """Requested, but the store has no window of them."""

    def frame(self) -> pd.DataFrame:
        """symbol, as_of (UTC), horizon, score, log_return, price, p_up, scale, model_version,
        window_hash."""
        return pd.DataFrame(
            {
                "symbol": self.symbols,
                "as_of": pd.to_datetime(self.as_of, utc=True),
                "horizon": self.horizon,
                "score": self.score,
                "log_return": self.log_return,
                "price": self.price,
                "p_up": self.p_up,
                "scale": self.scale,
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

    Args:
        published: symbols that are known to have a window online; a store that has none of one of them
            has lost its data.

    Raises:
        StoreError: the store does not serve a feature that the model was trained on.
    """

    def __init__(self, model: RegisteredModel, store: OnlineStore, published: Collection[str] = ()):
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
        self._published = frozenset(published)
        self._served = served
        self._columns = [served.index(name) for name in model.features]
        self._close = served.index("close")

    def windows(self, symbols: Sequence[str]) -> Windows:
        """Each symbol's newest window.

        Raises:
            UnreachableStoreError: the store does not answer.
            EmptyStoreError: it has no window of a published symbol.
            WindowSchemaError: its windows are not as long as the model wants, or not of the features
                that the view names, in their order.
            ValueError: no symbols.
        """
        if not symbols:
            raise ValueError("no symbols to look up.")
        windows, instants = self._look_up(list(symbols))
        rows = list(zip(symbols, windows, instants, strict=True))
        found = [(symbol, window, as_of) for symbol, window, as_of in rows if window is not None]
        missing = [symbol for symbol, window, _ in rows if window is None]
        lost = [symbol for symbol in missing if symbol in self._published]
        if lost:
            raise _empty(f"has no window of {some_of(lost)}, of which one is published", lost)
        of_found = [symbol for symbol, _, _ in found]
        return Windows(
            of_found,
            self._unpacked(of_found, [window for _, window, _ in found]),
            np.array([as_of for _, _, as_of in found], "int64").astype("datetime64[s]"),
            [window_hash(window) for _, window, _ in found],
            missing,
        )

    def _look_up(self, symbols: list[str]) -> tuple[list[bytes | None], list[int]]:
        """Each symbol's packed window, and the second since 1970 that it is of."""
        try:
            answer = self.store.get_online_features(
                features=[f"{WINDOWS_VIEW}:window"], entity_rows={"symbol": symbols}
            ).to_dict(include_event_timestamps=True)
        except _store_failures() as error:
            if isinstance(error, sqlite3.OperationalError) and "no such table" in str(error):
                raise _empty(f"has no view '{WINDOWS_VIEW}' ({error})", symbols) from error
            raise UnreachableStoreError(
                f"the online store does not answer ({error}). Once it does, so do forecasts."
            ) from error
        return answer["window"], answer["window__ts"]

    def _unpacked(self, symbols: list[str], packed: list[bytes]) -> np.ndarray:
        """(n, window, n_features) float32 of the windows of these symbols."""
        header = window_header(self._served)
        strange = [
            symbol for symbol, window in zip(symbols, packed, strict=True) if window[:HEADER] != header
        ]
        if strange:
            raise WindowSchemaError(
                f"the online store's windows of {some_of(strange)} are not of the {len(self._served)} "
                f"features that view '{WINDOWS_VIEW}' names, in their order, or an older version has "
                "written them. Run `dvc repro publish`; if it finds nothing to do, "
                "`dvc repro -f -s publish`."
            )
        sessions = sorted({packed_sessions(window, len(self._served)) for window in packed})
        if sessions and sessions != [self.model.window]:
            raise WindowSchemaError(
                f"model version {self.model.version} wants windows of {self.model.window} sessions, the "
                f"online store holds {', '.join(map(str, sessions))}. Run `dvc repro`."
            )
        if not packed:
            return np.empty((0, self.model.window, len(self._served)), PACKED)
        return unpacked(packed, self._served)

    def forecast(
        self, symbols: Sequence[str], seconds: Callable[[str, float], None] | None = None
    ) -> Forecasts:
        """Forecasts for the session after each symbol's newest one, or as far ahead as the model looks.

        Args:
            seconds: called with each step, `lookup` and `model`, and how long it took.

        Raises:
            UnreachableStoreError, EmptyStoreError, WindowSchemaError: as `windows`.
            NonFiniteWindowError: a window has a NaN or an infinity in a feature of the model, or in its
                last close; the error names the symbols.
            NonFiniteForecastError: what the model makes of a window is none; likewise.
            ValueError: no symbols.
        """
        started = perf_counter()
        windows = self.windows(symbols)
        looked_up = perf_counter()
        inputs = windows.values[:, :, self._columns]
        last_close = windows.values[:, -1, self._close].astype(float)
        bad = ~(np.isfinite(inputs).all(axis=(1, 2)) & np.isfinite(last_close))
        if bad.any():
            names = _at(windows.symbols, bad)
            raise NonFiniteWindowError(
                f"the online store's windows of {some_of(names)} have a NaN or an infinity, so there is "
                "no forecast of them. Correct their bars, or run `dvc repro -f -s publish`.",
                names,
            )
        outputs = dict.fromkeys(ALL_OUTPUTS, np.empty(0))
        if windows.symbols:
            outputs = run_onnx(self.model.session, inputs)
        if seconds:
            seconds("lookup", looked_up - started)
            seconds("model", perf_counter() - looked_up)
        score, log_return, p_up, scale = (outputs[name].astype(float) for name in ALL_OUTPUTS)
        with np.errstate(over="ignore"):
            price = last_close * np.exp(log_return)
        bad = ~(np.isfinite(score) & np.isfinite(log_return) & np.isfinite(p_up) & np.isfinite(price))
        if bad.any():
            names = _at(windows.symbols, bad)
            raise NonFiniteForecastError(
                f"model version {self.model.version} forecasts a NaN or an infinity for "
                f"{some_of(names)}. Promote another version, or correct their bars.",
                names,
            )
        return Forecasts(
            self.model.version,
            self.model.horizon,
            windows.symbols,
            windows.as_of,
            _as_shown(last_close),
            score,
            log_return,
            _as_shown(price),
            p_up,
            scale,
            windows.hashes,
            windows.missing,
        )


def _empty(what: str, symbols: list[str]) -> EmptyStoreError:
    return EmptyStoreError(
        f"the online store {what}: it has lost its data. Run `dvc repro -f -s publish`.", symbols
    )


def _at(symbols: list[str], where: np.ndarray) -> list[str]:
    return [symbols[i] for i in np.flatnonzero(where)]


def _as_shown(prices: np.ndarray) -> np.ndarray:
    return np.array([float(f"{price:.7g}") for price in prices])
