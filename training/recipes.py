"""What a model is made by, whatever data it is fitted on: a fit on newer bars has the same recipe."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from pitwise.stage import Params, load_params
from pitwise.workspace import Workspace, read_json, sha256

CODE = Path(__file__).absolute().parents[1]
OF_MODELS = (
    "pitwise/evaluation/ranking.py",
    "pitwise/features/daily.py",
    "pitwise/features/indicators.py",
    "pitwise/features/scale_free.py",
    "pitwise/features/windows.py",
    "training/models",
    "training/train.py",
)
"""Code that makes a model's inputs, and the model."""
OF_BASELINES = (
    "pitwise/evaluation/baselines.py",
    "pitwise/evaluation/calibration.py",
    "pitwise/evaluation/ranking.py",
    "pitwise/features/indicators.py",
)


class _AsItStands(Params):
    """A section whose keys another stage checks."""

    model_config = ConfigDict(frozen=True, extra="allow")


def identity(**depends: Any) -> str:
    """The hash of what something depends on, values that JSON has; 16 hex digits."""
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]


def code_of(paths: tuple[str, ...]) -> list[str]:
    """SHA-256 of each file of the project's code, folders file by file, in order."""
    files = [file for path in paths for file in (CODE / path, *sorted((CODE / path).rglob("*.py")))]
    return [sha256(file) for file in files if file.is_file()]


def recipe_of(workspace: Workspace, kind: str) -> str:
    """The recipe of one of `KINDS`: its params, how its inputs are chosen, and the code; 16 hex digits.

    Neither data nor seed is part of it, and which inputs were chosen is not: only how.
    """
    dataset = read_json(workspace.dataset_report)
    train = load_params(workspace, "train", _AsItStands).model_dump()
    return identity(
        kind=kind,
        window=dataset["window"],
        horizon=dataset["horizon"],
        train={key: value for key, value in train.items() if key != "seed"},
        body=load_params(workspace, kind, _AsItStands).model_dump(),
        select=load_params(workspace, "select", _AsItStands).model_dump(),
        code=code_of(OF_MODELS),
    )
