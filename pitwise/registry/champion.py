"""Who is champion of a registered model, and who was before."""

import json
import logging
import os
from datetime import UTC, datetime
from typing import Any

from pitwise.registry.model import RegistryParams
from pitwise.workspace import SQLITE, Workspace

CHAMPION = "champion"
"""The alias of the version that forecasts."""
CHALLENGER = "challenger"
"""The alias of the version that is compared with it."""
CHAMPION_HISTORY = "champion_history"
"""Tag of the registered model: JSON list of {version, since, by, reason}, oldest first."""
LONGEST_TAG = 5000  # characters that MLflow's table has room for


def registry_client(workspace: Workspace, registry: RegistryParams) -> Any:
    """An `mlflow.MlflowClient` of the workspace's registry, which MLflow is set to from here on."""
    import mlflow

    url = workspace.origin.database_url(registry.tracking_uri)  # an experiment's trials stay on record
    if url.startswith(SQLITE):
        # A pooled connection would read on in a file that was deleted, and never see the new one.
        os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # or it tells of the pool
    mlflow.set_tracking_uri(url)
    return mlflow.MlflowClient()


def open_experiment(workspace: Workspace, registry: RegistryParams, name: str) -> Any:
    """MLflow's client, set to the experiment; a database's files of models lie in the workspace."""
    import mlflow

    client = registry_client(workspace, registry)
    if client.get_experiment_by_name(name) is None:
        # A server has a place of its own for files; with a database MLflow takes the working directory.
        database = not registry.tracking_uri.startswith(("http:", "https:"))
        client.create_experiment(name, str(workspace.origin.mlflow_artifacts) if database else None)
    mlflow.set_experiment(name)
    return client


def registered_version(client: Any, name: str, alias: str) -> Any | None:
    """The version an alias of a registered model points to, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def champion_history(model: Any) -> list[dict[str, Any]]:
    """The champions of a registered model, oldest first, see `CHAMPION_HISTORY`."""
    return json.loads(model.tags.get(CHAMPION_HISTORY, "[]"))


def move_champion(
    client: Any, name: str, version: str, by: str, reason: str, since: str | None = None
) -> None:
    """Point the alias `champion` at a version, and record it: MLflow keeps no history of aliases.

    Args:
        by: gate | promote | rollback. One that was moved past this function is recorded as `unknown`.
        since: ISO, UTC; now, if it is not given.
    """
    history = champion_history(client.get_registered_model(name))
    current = registered_version(client, name, CHAMPION)
    if current and [str(current.version)] != [entry["version"] for entry in history[-1:]]:
        history.append({"version": str(current.version), "since": None, "by": "unknown", "reason": ""})
    since = since or datetime.now(UTC).isoformat(timespec="seconds")
    history.append({"version": version, "since": since, "by": by, "reason": reason[:500]})
    while len(json.dumps(history)) > LONGEST_TAG:
        history.pop(0)
    client.set_registered_model_alias(name, CHAMPION, version)
    client.set_registered_model_tag(name, CHAMPION_HISTORY, json.dumps(history))
