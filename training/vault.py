"""Bars that no fit and no choice has seen: opened once a release, each opening on record."""

import getpass
from datetime import UTC, datetime
from typing import Any

from filelock import FileLock

from pitwise.errors import ParamsError, StoreError
from pitwise.registry.model import RegistryParams
from pitwise.registry.restore import restored_champion
from pitwise.stage import load_params
from pitwise.workspace import Workspace, append_lines, read_lines
from training.closed import VaultFrom
from training.evaluate import EvaluateParams
from training.unseen import evaluate, evaluate_from

LEDGER = "ledger/vault.jsonl"
"""In the workspace: one JSON object an opening, oldest first, never changed."""


def openings(workspace: Workspace) -> list[dict[str, Any]]:
    """The openings, oldest first; see `open_vault` for what each holds.

    Raises:
        StoreError: a line of the file is none.
    """
    return read_lines(workspace.root / LEDGER, lambda entry: "release" in entry, "opening of the vault")


def open_vault(workspace: Workspace, release: str) -> dict[str, Any]:
    """Score the champion and the baselines on the vault, for one release.

    A second opening for the same release shows what the first one found: nothing is computed again.

    Returns:
        release, at (ISO, UTC), by (the user), onnx_sha256 (of the champion), and report, see
        `training.unseen.evaluate`.

    Raises:
        ParamsError: there is no vault, or it is not where the param says.
        StoreError: there is no champion, or the release was opened by another one.
        DataError: its bars cannot be used, or the champion has seen them all.
    """
    given = load_params(workspace, "evaluate", EvaluateParams).vault
    if given is None:
        raise ParamsError(
            "evaluate.vault: is null. Name a file or a folder with prices that nothing is made on, or "
            "the first of this workspace's own sessions that is none of theirs: {from: 2017-07-01}."
        )
    if isinstance(given, str) and not workspace.path(given).exists():
        raise ParamsError(f"evaluate.vault: there is no file or folder {workspace.path(given)}.")
    lock = workspace.root / "data/vault.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        champion = restored_champion(workspace, load_params(workspace, "registry", RegistryParams))
        identity = champion.tags.get("onnx_sha256") if champion else None
        for entry in openings(workspace):
            if entry["release"] == release and entry["onnx_sha256"] == identity:
                return entry
            if entry["release"] == release:
                raise StoreError(
                    f"{workspace.root / LEDGER}: the vault was opened for release {release} at "
                    f"{entry['at']}, by another champion (its file's sha256 begins "
                    f"{entry['onnx_sha256'][:12]}). A vault that is asked until it agrees proves "
                    "nothing: the next release opens it again."
                )
        if isinstance(given, VaultFrom):
            report = evaluate_from(workspace, given.day)
        else:
            report = evaluate(workspace, workspace.path(given)) | {"data": given}
        entry = {
            "release": release,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "by": getpass.getuser(),
            "onnx_sha256": report["champion"]["onnx_sha256"],
            "report": report,
        }
        append_lines([entry], workspace.root / LEDGER)
    return entry
