"""What every stage shares: its section of `params.yaml`, and how it fails."""

import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from feature_repo.errors import ParamsError, PitwiseError

PARAMS_PATH = Path("params.yaml")


class Params(BaseModel):
    """A section of `params.yaml`: frozen, and refusing unknown keys and impossible values."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


P = TypeVar("P", bound=Params)


def load_params(section: str, kind: type[P], path: Path = PARAMS_PATH) -> P:
    """Read one section of the params file.

    Raises:
        ParamsError: the file or the section is missing, or a key is unknown or impossible.
    """
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ParamsError(
            f"{path}: cannot be read ({error.strerror}). Run from the project's root."
        ) from error
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path}: is not UTF-8 text: {error}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that no calendar has
        raise ParamsError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict) or section not in document:
        raise ParamsError(f"{path}: has no section '{section}'.")
    try:
        return kind.model_validate(document[section] or {})
    except ValidationError as error:
        lines = [_explain(section, kind, issue) for issue in error.errors()]
        raise ParamsError(f"{path}: " + "; ".join(lines)) from error


def _explain(section: str, kind: type[Params], issue) -> str:
    key = ".".join([section, *(str(part) for part in issue["loc"])])
    if issue["type"] == "extra_forbidden":
        return f"{key} is not a known key; known keys are {', '.join(kind.model_fields)}"
    if issue["type"] == "missing":
        return f"{key} is missing"
    return f"{key}: {issue['msg'][0].lower()}{issue['msg'][1:]} (it is {issue['input']!r})"


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage's `main`; an error a person can mend becomes one message and exit code 1."""
    try:
        main()
    except (PitwiseError, OSError, sqlite3.OperationalError) as error:
        # The last two are the disk's: full, or not to be written; Feast's databases meet it too.
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
