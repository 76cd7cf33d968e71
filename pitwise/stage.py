"""What every stage shares: its section of `params.yaml`, and how it fails."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from pitwise.errors import ParamsError, one_line, shown_as_message
from pitwise.workspace import Workspace


class Params(BaseModel):
    """A section of `params.yaml`: frozen, and refusing unknown keys and impossible values.

    Validators find the workspace in `info.context`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


P = TypeVar("P", bound=Params)


def load_params(workspace: Workspace, section: str, kind: type[P]) -> P:
    """Read one section of a workspace's `params.yaml`.

    Raises:
        ParamsError: the file or the section is missing, or a key is unknown or impossible.
    """
    path = workspace.params
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ParamsError(
            f"{path}: cannot be read ({error.strerror}). Run in a workspace: the project's root, or a "
            "folder that `pitwise init` made."
        ) from error
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path}: is not UTF-8 text: {error}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that no calendar has
        raise ParamsError(f"{path}: is not valid YAML: {one_line(error)}") from error
    if not isinstance(document, dict) or section not in document:
        raise ParamsError(f"{path}: has no section '{section}'.")
    try:
        return kind.model_validate(document[section] or {}, context=workspace)
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


def run_stage(main: Callable[[Workspace], None]) -> None:
    """Run a stage in the workspace that the shell stands in.

    An error a person can mend becomes one message and exit code 1.
    """
    with shown_as_message():
        main(Workspace(Path.cwd()))
