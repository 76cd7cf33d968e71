"""MLflow's registry made again from the promotions: it is a cache of what Git and DVC track."""

import json
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np

from pitwise.errors import StoreError
from pitwise.registry.champion import (
    CHAMPION,
    LONGEST_TAG,
    move_champion,
    open_experiment,
    registered_version,
    registry_client,
)
from pitwise.registry.contract import CONTRACT, INPUT, open_onnx
from pitwise.registry.model import RegistryParams
from pitwise.registry.promotions import promoted_model, promotions, registry_writer
from pitwise.registry.runs import begun_in, end_abandoned_runs
from pitwise.workspace import Workspace

RECORDED = (
    "kind",
    "features",
    "window",
    "rows_sha256",
    "onnx_sha256",
    "onnx_parity",
    "fitted_last_session",
    "train_first_session",
    "horizon",
    "recipe",
)
"""A version's metadata, out of what `training.json` records of a fit."""
TAGGED = ("kind", "onnx_sha256", "onnx_parity", "fitted_last_session", "recipe")
UNPROVEN = "unproven"
"""Tag of a version that is or was champion: `true` while its recipe is not shown to beat a baseline."""
"""Of these, what is a tag of the version too."""
REQUIRED = ["onnxruntime", "numpy"]
"""Packages that `mlflow models serve` runs a version with."""
PROVIDERS = ["CPUExecutionProvider"]
"""Of onnxruntime."""
PROMOTION = "promotion"
"""Tag of a version: its newest line of the ledger."""


def signature(window: int, features: int, outputs: Sequence[str]) -> Any:
    """What goes into a model and comes out, as MLflow writes it.

    MLflow takes no array but one of the type written here. JSON numbers and pandas are float64, and its
    flavor for ONNX makes them the float32 that the file wants.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("float64"), (-1, window, features), INPUT)]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1,), name) for name in outputs]),
    )


def version_of(client: Any, name: str, identity: str) -> str | None:
    """The registered version with this ONNX file, if there is one."""
    for version in client.search_model_versions(f"name='{name}'"):
        if version.tags.get("onnx_sha256") == identity:
            return str(version.version)
    return None


def tag_promotion(client: Any, name: str, version: str, entry: dict[str, Any]) -> None:
    """Show a line of the ledger at its version."""
    client.set_model_version_tag(name, version, PROMOTION, json.dumps(entry)[:LONGEST_TAG])


def restored_champion(workspace: Workspace, registry: RegistryParams) -> Any | None:
    """The champion's version, made again from the promotions if the registry has no champion.

    Where the alias `champion` points to a version, that one is champion, whatever the ledger says: the
    registry may be a server that others use too. Models of earlier promotions that are here become
    versions again as well, so that `rollback` finds them.

    Returns:
        the version, or None: nobody was ever promoted.

    Raises:
        StoreError: the ledger's champion is not here.
    """
    name = registry.model
    client = registry_client(workspace, registry)
    found = registered_version(client, name, CHAMPION)
    if found is not None or not promotions(workspace):
        return found
    with registry_writer(workspace):
        found = registered_version(client, name, CHAMPION)
        if found is not None:
            return found
        entries = promotions(workspace)
        champion = entries[-1]
        if promoted_model(workspace, champion["onnx_sha256"]) is None:
            raise StoreError(
                f"the champion, a model of kind {champion['kind']} promoted {champion['at']} (its "
                f"file's sha256 begins {champion['onnx_sha256'][:12]}), is not in this workspace. "
                "`dvc pull` brings it; `dvc repro` trains and promotes another."
            )
        client = open_experiment(workspace, registry, name)
        experiment = client.get_experiment_by_name(name).experiment_id
        end_abandoned_runs(client, experiment, workspace)
        for entry in entries:
            version = _registered(workspace, client, name, experiment, entry)
            if version:
                move_champion(client, name, version, entry["by"], entry["reason"], entry["at"])
                tag_promotion(client, name, version, entry)
        return registered_version(client, name, CHAMPION)


def _registered(
    workspace: Workspace, client: Any, name: str, experiment: str, entry: dict[str, Any]
) -> str | None:
    """The version of a promotion, registered now if need be; None if its model is not here."""
    identity = entry["onnx_sha256"]
    version = version_of(client, name, identity)
    promoted = promoted_model(workspace, identity)
    if version or promoted is None:
        return version
    model, training = promoted
    contract = {key: training[key] for key in RECORDED if key in training}
    if not set(CONTRACT) <= set(contract):
        raise StoreError(f"{model}: its training.json lacks one of {', '.join(CONTRACT)}.")
    contract["onnx_sha256"] = identity
    run = client.create_run(experiment, run_name=training["kind"], tags=begun_in(workspace))
    status = "FAILED"
    try:
        for figure, value in entry["figures"].items():
            if isinstance(value, float):
                client.log_metric(run.info.run_id, f"{training['kind']}.{figure}", value)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            copyfile(model, folder / "model.onnx")
            _describe(folder, contract)
            client.log_artifacts(run.info.run_id, temporary, "model")
        status = "FINISHED"
    finally:
        client.set_terminated(run.info.run_id, status)
    if not client.search_registered_models(f"name='{name}'"):
        client.create_registered_model(name)
    source = f"{run.info.artifact_uri}/model"
    version = str(client.create_model_version(name, source, run.info.run_id).version)
    for key in TAGGED:
        if key in contract:
            client.set_model_version_tag(name, version, key, str(contract[key]))
    return version


def _describe(folder: Path, contract: dict[str, Any]) -> None:
    """MLflow's description of an ONNX file, without the package `onnx`, which serving does not have."""
    import mlflow.pyfunc
    import yaml
    from mlflow.models import Model

    outputs = [node.name for node in open_onnx(folder / "model.onnx").get_outputs()]
    described = Model(
        signature=signature(contract["window"], len(contract["features"]), outputs),
        metadata=contract,
        flavors={"onnx": {"data": "model.onnx", "providers": PROVIDERS}},
    )
    needs = {"python": platform.python_version(), "dependencies": ["-r requirements.txt"]}
    (folder / "python_env.yaml").write_text(yaml.safe_dump(needs))
    (folder / "requirements.txt").write_text("\n".join([f"mlflow=={mlflow.__version__}", *REQUIRED, ""]))
    mlflow.pyfunc.add_to_model(described, "mlflow.onnx", data="model.onnx", python_env="python_env.yaml")
    described.save(folder / "MLmodel")
