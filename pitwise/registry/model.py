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
from pitwise.workspace import sha256


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
    identity: str = ""
    """SHA-256 of its ONNX file."""
    entry: tuple = ()
    """See `registry_entry`."""

    @property
    def horizon(self) -> int:
        """Sessions that its forecasts look ahead."""
        return self.metadata.get("horizon", 1)


def registry_entry(version: Any) -> tuple:
    """What tells a version of MLflow's from another one that had its number, without fetching its file.

    A registry that was made anew counts from 1 again.
    """
    tags = version.tags or {}
    number, file = str(version.version), tags.get("onnx_sha256")
    return number, version.creation_timestamp, version.run_id, version.source, file


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
        file = Path(folder) / "model.onnx"
        session, identity = open_onnx(file, threads), sha256(file)
    return RegisteredModel(
        str(version.version),
        metadata["kind"],
        tuple(metadata["features"]),
        metadata["window"],
        session,
        metadata,
        identity,
        registry_entry(version),
    )
