"""The registry's versions, who held the office of champion, and moving it by hand."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from feature_repo.errors import StoreError
from feature_repo.model import CONTRACT, champion_terms, move_champion, registered_version


def versions(uri: str, name: str) -> list[dict[str, Any]]:
    """Every version of a model, oldest first.

    Returns:
        version, kind (None where it says none), aliases, created (ISO, UTC), metrics (by who: the
        model's kind and each baseline; empty where its run has none), gate (what the promotion gate
        said of it last, or None), terms (since, by and reason of each time it became champion).

    Raises:
        StoreError: the registry does not answer, or has no such model.
    """
    with open_registry(uri, name) as client:
        model = client.get_registered_model(name)
        history = champion_terms(model)
        listed = []
        for version in client.search_model_versions(f"name='{name}'"):
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
                    "aliases": sorted(a for a, of in model.aliases.items() if str(of) == number),
                    "created": created.isoformat(timespec="seconds"),
                    "metrics": metrics,
                    "gate": version.tags.get("gate"),
                    "terms": [
                        {key: term[key] for key in ("since", "by", "reason")}
                        for term in history
                        if term["version"] == number
                    ],
                }
            )
    return sorted(listed, key=lambda row: int(row["version"]))


def promote(uri: str, name: str, version: str, reason: str) -> dict[str, str | None]:
    """Make a version champion, past the gate; one that is champion already stays so.

    Whether it runs is for the service to find out: it refuses one that fails its self-check.

    Returns:
        `version`, and the one `before` it or None.

    Raises:
        StoreError: there is no such version, or it does not say what it wants.
    """
    with open_registry(uri, name) as client:
        return _move(client, name, version, "promote", reason)


def rollback(uri: str, name: str) -> dict[str, str | None]:
    """Give the office back to the version that held it before; twice goes two steps back.

    Returns:
        `version`, and the one `before` it.

    Raises:
        StoreError: there is no champion, none was before it, or that one cannot be promoted.
    """
    with open_registry(uri, name) as client:
        champion = registered_version(client, name, "champion")
        if champion is None:
            raise StoreError(f"model '{name}' has no champion. Promote a version.")
        history = champion_terms(client.get_registered_model(name))
        office = str(champion.version)
        line = _line([*history, {"version": office, "by": "unknown"}])
        if len(line) < 2:
            raise StoreError(
                f"model '{name}' has had no champion before version {office}, as far as is known. "
                "Promote a version instead."
            )
        return _move(client, name, line[-2], "rollback", f"back from version {office}")


def _line(history: list[dict[str, Any]]) -> list[str]:
    """Versions in the order they came to office, less those that were rolled back."""
    line: list[str] = []
    for term in history:
        if term["by"] == "rollback":
            del line[-1:]
        if line[-1:] != [term["version"]]:
            line.append(term["version"])
    return line


def _move(client: Any, name: str, version: str, by: str, reason: str) -> dict[str, str | None]:
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
            f"model '{name}' version {version} does not say its {', '.join(missing)}: it was not "
            "registered by this pipeline and cannot be champion."
        )
    champion = registered_version(client, name, "champion")
    before = str(champion.version) if champion else None
    if before != version:
        move_champion(client, name, version, by, reason)
    return {"version": version, "before": before}


@contextmanager
def open_registry(uri: str, name: str) -> Iterator[Any]:
    """MLflow's client of a registry; what MLflow raises in the block becomes a StoreError."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    mlflow.set_tracking_uri(uri)
    try:
        yield mlflow.MlflowClient()
    except (MlflowException, SQLAlchemyError) as error:
        raise StoreError(
            f"registry.model '{name}': {' '.join(str(error).split())[:300]}. Check section registry of "
            "params.yaml, and that `dvc repro register` has run."
        ) from error
