"""The registry's versions, which of them were champion, and moving the champion by hand."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pitwise.errors import StoreError, one_line
from pitwise.registry.champion import (
    CHAMPION,
    champion_history,
    move_champion,
    registered_version,
    registry_client,
)
from pitwise.registry.contract import CONTRACT
from pitwise.registry.model import RegistryParams
from pitwise.registry.promotions import record_promotion
from pitwise.registry.restore import RECORDED, tag_promotion
from pitwise.workspace import Workspace


def versions(workspace: Workspace, registry: RegistryParams) -> list[dict[str, Any]]:
    """Every version of a model, oldest first.

    Returns:
        version, kind (None where it has none), unproven (in office without a test that it won), aliases,
        created (ISO, UTC), metrics (by the model's kind and each baseline; empty where its run has
        none), gate (the promotion gate's last reason, or None), terms (since, by and reason of each time
        it became champion).

    Raises:
        StoreError: the registry does not answer, or has no such model.
    """
    with open_registry(workspace, registry) as client:
        model = client.get_registered_model(registry.model)
        history = champion_history(model)
        listed = []
        for version in client.search_model_versions(f"name='{registry.model}'"):
            number = str(version.version)
            figures = client.get_run(version.run_id).data.metrics if version.run_id else {}
            metrics: dict[str, dict[str, float]] = {}
            for key, value in figures.items():
                who, dot, figure = key.partition(".")
                if dot:
                    metrics.setdefault(who, {})[figure] = value
            created = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
            listed.append(
                {
                    "version": number,
                    "kind": version.tags.get("kind"),
                    "unproven": version.tags.get("unproven") == "true",
                    "aliases": sorted(a for a, of in model.aliases.items() if str(of) == number),
                    "created": created.isoformat(timespec="seconds"),
                    "metrics": metrics,
                    "gate": version.tags.get("gate"),
                    "terms": [
                        {key: entry[key] for key in ("since", "by", "reason")}
                        for entry in history
                        if entry["version"] == number
                    ],
                }
            )
    return sorted(listed, key=lambda row: int(row["version"]))


def card(workspace: Workspace, registry: RegistryParams, version: str | None = None) -> str:
    """The model card of a version, of the champion where none is named; markdown.

    Raises:
        StoreError: there is no such version, or it has no card.
    """
    with open_registry(workspace, registry) as client:
        if version is None:
            found = registered_version(client, registry.model, CHAMPION)
            if found is None:
                raise StoreError(f"model '{registry.model}' has no champion. Name a version.")
        else:
            found = client.get_model_version(registry.model, version)
    if not found.description:
        raise StoreError(
            f"model '{registry.model}' version {found.version} has no card: it was registered before "
            "there were any, or restored. `dvc repro -f register` writes those of the newest run."
        )
    return found.description


def promote(
    workspace: Workspace, registry: RegistryParams, version: str, reason: str
) -> dict[str, str | None]:
    """Make a version champion, past the gate; one that is champion already stays so.

    Whether it runs is for the service to find out: it refuses one that fails its self-check.

    Returns:
        `version`, and the one `before` it or None.

    Raises:
        StoreError: there is no such version, or it lacks the contract's metadata.
    """
    with open_registry(workspace, registry) as client:
        return _move(workspace, client, registry.model, version, "promote", reason)


def rollback(workspace: Workspace, registry: RegistryParams) -> dict[str, str | None]:
    """Make the version before the champion champion again; twice goes two steps back.

    Returns:
        `version`, and the one `before` it.

    Raises:
        StoreError: there is no champion, none was before it, or that one cannot be promoted.
    """
    with open_registry(workspace, registry) as client:
        name = registry.model
        champion = registered_version(client, name, CHAMPION)
        if champion is None:
            raise StoreError(f"model '{name}' has no champion. Promote a version.")
        history = champion_history(client.get_registered_model(name))
        current = str(champion.version)
        line = _line([*history, {"version": current, "by": "unknown"}])
        if len(line) < 2:
            raise StoreError(
                f"model '{name}' has had no champion before version {current}, as far as is known. "
                "Promote a version instead."
            )
        return _move(workspace, client, name, line[-2], "rollback", f"back from version {current}")


def _line(history: list[dict[str, Any]]) -> list[str]:
    """Versions in the order they became champion, less those that were rolled back."""
    line: list[str] = []
    for entry in history:
        if entry["by"] == "rollback":
            del line[-1:]
        if line[-1:] != [entry["version"]]:
            line.append(entry["version"])
    return line


def _move(
    workspace: Workspace, client: Any, name: str, version: str, by: str, reason: str
) -> dict[str, str | None]:
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        contract = mlflow.models.get_model_info(f"models:/{name}/{version}").metadata or {}
    except (MlflowException, OSError) as error:
        raise StoreError(
            f"model '{name}' has no version {version} that can be read. "
            "`pitwise model show` lists those there are."
        ) from error
    missing = [key for key in CONTRACT if key not in contract]
    if missing:
        raise StoreError(
            f"model '{name}' version {version} has no {', '.join(missing)}: it was not "
            "registered by this pipeline and cannot be champion."
        )
    champion = registered_version(client, name, CHAMPION)
    before = str(champion.version) if champion else None
    if before != version:
        _record(workspace, client, name, version, contract, by, reason)
        move_champion(client, name, version, by, reason)
    return {"version": version, "before": before}


def _record(
    workspace: Workspace, client: Any, name: str, version: str, contract: dict, by: str, reason: str
) -> None:
    """Keep the version's model and write its promotion to the ledger."""
    import mlflow
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as folder:
        try:
            model = mlflow.artifacts.download_artifacts(
                f"models:/{name}/{version}/model.onnx", dst_path=folder
            )
        except (MlflowException, OSError) as error:
            raise StoreError(f"model '{name}' version {version}: its file is gone.") from error
        training = {key: contract[key] for key in RECORDED if key in contract}
        entry = record_promotion(workspace, Path(model), training, by, reason)
    if entry:
        tag_promotion(client, name, version, entry)


@contextmanager
def open_registry(workspace: Workspace, registry: RegistryParams) -> Iterator[Any]:
    """MLflow's client of a registry; what MLflow raises in the block becomes a StoreError."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    try:
        yield registry_client(workspace, registry)
    except (MlflowException, SQLAlchemyError) as error:
        raise StoreError(
            f"registry.model '{registry.model}': {one_line(error)[:300]}. Check section registry "
            "of params.yaml, and that `dvc repro register` has run."
        ) from error
