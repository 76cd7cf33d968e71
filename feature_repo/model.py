"""The contract between those who train a model and those who run it.

A model is one ONNX file: input `windows` (batch, window, n_features) of raw float32 feature values,
outputs `log_return` and `p_up`, each (batch,). Which features and how long a window stands beside
the file in the registry, as metadata of the MLflow model.
"""

import json
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from pydantic import Field

from feature_repo.errors import StoreError
from feature_repo.stage import Params
from feature_repo.windows import gather

INPUT = "windows"
OUTPUTS = ("log_return", "p_up")
BATCH = 2048
PIECE = 64
"""Windows in one run: what an LSTM of them needs then stays in the processor's cache."""
CHAMPION_HISTORY = "champion_history"
"""Tag of the registered model: JSON list of {version, since, by, reason}, oldest first."""
CONTRACT = ("kind", "features", "window")
"""What a version must say of itself to be run."""
LONGEST_TAG = 5000  # characters that MLflow's table has room for


class RegistryParams(Params):
    """Where the registry is, for those who write it and those who read it."""

    tracking_uri: str = Field(min_length=1)
    model: str = Field(min_length=1)


def open_onnx(path: Path, threads: int = 0) -> ort.InferenceSession:
    """A model's session, whose runs have so many threads; 0: one a core."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run_onnx(session: ort.InferenceSession, windows: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs by name, each (batch,) float32, for windows (batch, window, n_features) float32."""
    pieces = [windows[i : i + PIECE] for i in range(0, max(len(windows), 1), PIECE)]
    parts = [session.run(list(OUTPUTS), {INPUT: piece}) for piece in pieces]
    return {
        name: np.concatenate(values)
        for name, values in zip(OUTPUTS, zip(*parts, strict=True), strict=True)
    }


def run_onnx_over(
    session: ort.InferenceSession, rows: np.ndarray, ends: np.ndarray, window: int
) -> dict[str, np.ndarray]:
    """Outputs by name, each (len(ends),) float32, for the windows that end at `ends`.

    Args:
        rows: (n, n_features) values in the order the model was trained on.
        ends: positions in `rows`, as `window_ends` gives them.
    """
    rows = rows.astype("float32", copy=False)
    parts = [
        run_onnx(session, gather(rows, ends[i : i + BATCH], window)) for i in range(0, len(ends), BATCH)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in OUTPUTS}


@dataclass(frozen=True)
class RegisteredModel:
    """A version from the registry, ready to run."""

    version: str
    kind: str
    features: tuple[str, ...]
    window: int
    session: ort.InferenceSession
    metadata: dict[str, Any]


def registered_version(client: Any, name: str, alias: str) -> Any | None:
    """The version an alias of a registered model points to, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def champion_terms(model: Any) -> list[dict[str, Any]]:
    """Who held the office of champion of a registered model, see `CHAMPION_HISTORY`."""
    return json.loads(model.tags.get(CHAMPION_HISTORY, "[]"))


def move_champion(client: Any, name: str, version: str, by: str, reason: str) -> None:
    """Point the alias `champion` at a version, and note it: MLflow keeps no history of aliases.

    Args:
        by: gate | promote | rollback. One that was moved without a note is noted as `unknown` here.
    """
    history = champion_terms(client.get_registered_model(name))
    office = registered_version(client, name, "champion")
    if office and [str(office.version)] != [term["version"] for term in history[-1:]]:
        history.append({"version": str(office.version), "since": None, "by": "unknown", "reason": ""})
    now = datetime.now(UTC).isoformat(timespec="seconds")
    history.append({"version": version, "since": now, "by": by, "reason": reason[:500]})
    while len(json.dumps(history)) > LONGEST_TAG:
        history.pop(0)
    client.set_registered_model_alias(name, "champion", version)
    client.set_registered_model_tag(name, CHAMPION_HISTORY, json.dumps(history))


def load_registered(name: str, version: Any, threads: int = 0) -> RegisteredModel:
    """Fetch a version's ONNX file and contract from the registry MLflow is set to.

    Args:
        threads: of one run of the model, see `open_onnx`.

    Raises:
        StoreError: the version carries no contract.
    """
    import mlflow
    import yaml

    with tempfile.TemporaryDirectory() as folder:
        mlflow.artifacts.download_artifacts(f"models:/{name}/{version.version}", dst_path=folder)
        metadata = yaml.safe_load((Path(folder) / "MLmodel").read_text()).get("metadata") or {}
        if not set(CONTRACT) <= set(metadata):
            raise StoreError(
                f"model {name} version {version.version} does not say which features and window it "
                "wants: it was not registered by this pipeline. Point the alias at one that was."
            )
        session = open_onnx(Path(folder) / "model.onnx", threads)
    return RegisteredModel(
        str(version.version),
        metadata["kind"],
        tuple(metadata["features"]),
        metadata["window"],
        session,
        metadata,
    )
