"""The champion, run on what the online store knows now."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from feature_repo.errors import StoreError
from feature_repo.model import RegisteredModel, load_registered, registered_version, run_onnx

WINDOWS_VIEW = "windows"


def load_champion(tracking_uri: str, name: str) -> RegisteredModel:
    """The version the alias `champion` points to.

    Raises:
        StoreError: there is no champion.
    """
    import mlflow

    mlflow.set_tracking_uri(tracking_uri)
    version = registered_version(mlflow.MlflowClient(), name, "champion")
    if version is None:
        raise StoreError(
            f"model '{name}' has no version with the alias 'champion' in {tracking_uri}. "
            "Run `dvc repro -f -s register`."
        )
    return load_registered(name, version)


def open_store(repo: Path) -> Any:
    """Feast's store of a repo, without torch in the process.

    Feast 0.67 imports torch wherever it finds it, for tensors that serving never asks for. It takes
    a torch that will not import for none, so for the length of its import there is none.
    """
    hide = "torch" not in sys.modules
    if hide:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        from feast import FeatureStore
    finally:
        if hide:
            del sys.modules["torch"]
    return FeatureStore(str(repo))


class Predictor:
    """Windows from Feast's online store through a model.

    Raises:
        StoreError: the store does not serve a feature that the model was trained on.
    """

    def __init__(self, model: RegisteredModel, store: Any):
        from feast.errors import FeatureViewNotFoundException

        try:
            served = {field.name for field in store.get_feature_view(WINDOWS_VIEW).features}
        except FeatureViewNotFoundException as error:
            raise StoreError(
                f"the feature store has no view '{WINDOWS_VIEW}'. Run `dvc repro -f -s publish`."
            ) from error
        missing = [name for name in model.features if name not in served]
        if missing:
            raise StoreError(
                f"model version {model.version} wants {', '.join(missing)}, which feature view "
                f"'{WINDOWS_VIEW}' does not serve. Run `dvc repro publish` or retrain."
            )
        self.model = model
        self.store = store

    def windows(self, symbols: Sequence[str]) -> tuple[np.ndarray, pd.Series]:
        """Each symbol's newest window.

        Returns:
            (n, window, n_features) float32 in the order of `symbols`, and the instants (UTC) of the
            windows' last sessions.

        Raises:
            StoreError: a symbol is unknown, or its window is not as long as the model wants.
            ValueError: no symbols.
        """
        if not symbols:
            raise ValueError("no symbols to look up.")
        answer = self.store.get_online_features(
            features=[f"{WINDOWS_VIEW}:{name}" for name in self.model.features],
            entity_rows=[{"symbol": symbol} for symbol in symbols],
        ).to_dict(include_event_timestamps=True)
        first = self.model.features[0]
        unknown = [s for s, values in zip(symbols, answer[first], strict=True) if values is None]
        if unknown:
            raise StoreError(f"the online store has no window for {', '.join(unknown)}.")
        lengths = {len(values) for values in answer[first]}
        if lengths != {self.model.window}:
            raise StoreError(
                f"model version {self.model.version} wants windows of {self.model.window} sessions, the "
                f"online store holds {', '.join(map(str, sorted(lengths)))}. Run `dvc repro`."
            )
        windows = np.stack([np.asarray(answer[f], "float32") for f in self.model.features], axis=2)
        instants = pd.to_datetime(pd.Series(answer[f"{first}__ts"]), unit="s", utc=True)
        return windows, instants

    def predict(self, symbols: Sequence[str]) -> pd.DataFrame:
        """Forecasts for the session after each symbol's newest one.

        Returns:
            symbol, as_of (instant of the last session seen, UTC), log_return, price (the last close
            moved by it, to float32's 7 digits), p_up, model_version.
        """
        windows, instants = self.windows(symbols)
        outputs = run_onnx(self.model.session, windows)
        last_close = windows[:, -1, self.model.features.index("close")].astype(float)
        price = last_close * np.exp(outputs["log_return"].astype(float))
        return pd.DataFrame(
            {
                "symbol": list(symbols),
                "as_of": instants,
                "log_return": outputs["log_return"].astype(float),
                "price": [float(f"{value:.7g}") for value in price],
                "p_up": outputs["p_up"].astype(float),
                "model_version": self.model.version,
            }
        )
