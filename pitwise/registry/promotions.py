"""The promotions: an append-only file that Git tracks, and the promoted models, which DVC tracks.

A model is known by the SHA-256 of its ONNX file. MLflow's registry can be made again from these two.
"""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from pitwise.workspace import Workspace, append_lines, read_lines, replacing, sha256, write_json

LEDGER = "ledger/promotions.jsonl"
"""In the workspace: one JSON object a promotion, oldest first, never changed."""
PROMOTED = "data/promoted"
"""In the workspace: `SHA256/model.onnx` and `SHA256/training.json` of each model that was champion."""


def registry_writer(workspace: Workspace) -> FileLock:
    """Held by whoever writes to the ledger or makes the registry anew."""
    path = workspace.origin.root / "data/registry.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path, is_singleton=True)


def promotions(workspace: Workspace) -> list[dict[str, Any]]:
    """The promotions, oldest first; see `record_promotion` for what each holds.

    A last line without its end was cut off by a power loss: it has not been written.

    Raises:
        StoreError: a line is no promotion.
    """
    return read_lines(workspace.root / LEDGER, lambda entry: "onnx_sha256" in entry, "promotion")


def record_promotion(
    workspace: Workspace,
    model: Path,
    training: dict[str, Any],
    by: str,
    reason: str,
    figures: dict[str, Any] | None = None,
    unproven: bool | None = None,
) -> dict[str, Any] | None:
    """Keep a promoted model, then add its line to the ledger, on disk when this returns.

    A model that the newest line names already is champion: nothing is added, so that a run that comes
    to the same champion leaves the file as Git has it.

    Args:
        model: its ONNX file.
        training: what was recorded of its fit: at least the contract, kind, features and window.
        by: gate | promote | rollback.
        figures: those of the test dates.
        unproven: whether its recipe is not shown to beat the best baseline; None where nobody looked.

    Returns:
        the line: at (ISO, UTC), by, kind, onnx_sha256, rows_sha256 (of the data set it was fitted on),
        previous (the champion before, its sha256 or None), unproven, figures, reason; None if none was
        added. Lines of before have `metric`, the figure that decided then, and no `unproven`.
    """
    identity = sha256(model)
    with registry_writer(workspace):
        _keep(workspace, model, training, identity)
        earlier = promotions(workspace)
        previous = earlier[-1]["onnx_sha256"] if earlier else None
        if previous == identity:
            return None
        entry = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "by": by,
            "kind": training["kind"],
            "onnx_sha256": identity,
            "rows_sha256": training.get("rows_sha256"),
            "previous": previous,
            "unproven": unproven,
            "figures": figures or {},
            "reason": reason,
        }
        append_lines([entry], workspace.root / LEDGER)
    return entry


def promoted_model(workspace: Workspace, identity: str) -> tuple[Path, dict[str, Any]] | None:
    """The ONNX file of a model and what was recorded of its fit, or None where it is not here.

    A champion that was just trained again, to the byte, is found among the fitted models too.
    """
    fitted = workspace.models.glob("*/model.onnx") if workspace.models.is_dir() else ()
    for path in (_folder(workspace, identity) / "model.onnx", *sorted(fitted)):
        training = path.with_name("training.json")
        if path.exists() and training.exists() and sha256(path) == identity:
            return path, json.loads(training.read_text())
    return None


def _folder(workspace: Workspace, identity: str) -> Path:
    return workspace.root / PROMOTED / identity


def _keep(workspace: Workspace, model: Path, training: dict[str, Any], identity: str) -> None:
    """Copy the model to the promoted ones; who is there stays, to the byte."""
    folder = _folder(workspace, identity)
    target = folder / "model.onnx"
    if target.exists() and sha256(target) == identity and (folder / "training.json").exists():
        return
    write_json(training, folder / "training.json")
    with replacing(target) as temporary:
        shutil.copyfile(model, temporary)
