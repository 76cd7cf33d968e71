"""A registered version of a model: where the registry is, and fetching one to run it."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort
from pydantic import Field

from pitwise.errors import StoreError
from pitwise.registry.contract import CONTRACT, open_onnx
from pitwise.stage import Params


class RegistryParams(Params):
    """Where the registry is, for those who write it and those who read it."""

    tracking_uri: str = Field(min_length=1)
    model: str = Field(min_length=1)


@dataclass(frozen=True)
class RegisteredModel:
    """A version from the registry, ready to run."""

    version: str
    kind: str
    features: tuple[str, ...]
    window: int
    session: ort.InferenceSession
    metadata: dict[str, Any]


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
                f"model {name} version {version.version} does not name its features and window: "
                "it was not registered by this pipeline. Point the alias at one that was."
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
