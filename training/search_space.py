"""What a search may change: keys of `params.yaml`, each with a range or choices."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator

from pitwise.errors import ParamsError
from pitwise.evaluation.walk_forward import Step
from pitwise.stage import Params

P = TypeVar("P", bound=Params)
Values = dict[str, Any]
"""By key of `params.yaml`, dots between the levels."""


class Range(Params):
    """Whole numbers where both ends are; both are included."""

    low: int | float
    high: int | float
    log: bool = False
    """Drawn evenly on the logarithm."""

    @model_validator(mode="after")
    def _drawable(self) -> "Range":
        if not self.low < self.high:
            raise ValueError("'low' should be below 'high'")
        if self.log and not self.low > 0:
            raise ValueError("'low' should be above 0 where 'log' is true")
        return self

    def suggest(self, trial: Any, key: str) -> int | float:
        """What an Optuna trial draws."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(key, self.low, self.high, log=self.log)
        return trial.suggest_float(key, self.low, self.high, log=self.log)

    def stored(self, value: Any) -> Any:
        """The value as Optuna stores it, or None if it is out of the range."""
        return value if self.low <= value <= self.high else None


class Choices(Params):
    """Values that YAML has, such as lists of layers."""

    choices: tuple[Any, ...] = Field(min_length=2)

    def suggest(self, trial: Any, key: str) -> Any:
        return json.loads(trial.suggest_categorical(key, [json.dumps(one) for one in self.choices]))

    def stored(self, value: Any) -> Any:
        text = json.dumps(value)
        return text if text in [json.dumps(one) for one in self.choices] else None


Space = dict[str, Range | Choices]


class SearchParams(Params):
    trials: int = Field(ge=1)
    """In all, those before a search was stopped included."""
    first_test: float = Field(gt=0, lt=1)
    """Share of the sessions before the first inner fold."""
    step: Step
    """Of the inner folds."""
    seeds: int = Field(ge=1)
    """Fits in each fold, whose forecasts are averaged."""
    seed: int = Field(ge=0)
    """Of the draws, and of the first fit."""
    at_once: int = Field(ge=1)
    """Trials that are drawn together, and so without each other's results, and fitted side by side."""
    pruning: bool
    """Whether a trial ends after a fold in which it is below the median of those before."""
    experiment: str = Field(min_length=1)
    """MLflow's."""
    space: dict[str, Space]
    """What is searched, by kind."""


def space_of(params: SearchParams, kind: str, known: Mapping[str, Params]) -> Space:
    """The space of a kind.

    Args:
        known: the params of each of its sections.

    Raises:
        ParamsError: it has none, or names what is no key of these sections.
    """
    if not params.space.get(kind):
        there = ", ".join(params.space) or "none"
        raise ParamsError(f"search.space: has nothing to search for '{kind}'; it has {there}.")
    allowed = [
        f"{section}.{key}" for section, of in known.items() for key in of.model_dump() if key != "seed"
    ]
    if unknown := sorted(set(params.space[kind]) - set(allowed)):
        raise ParamsError(
            f"search.space.{kind}: {', '.join(unknown)} cannot be searched; {', '.join(allowed)} can."
        )
    return params.space[kind]


def changed(params: P, section: str, values: Values) -> P:
    """The params of a section with those of the values that are its own.

    Raises:
        ParamsError: an impossible value.
    """
    ours = {
        key.removeprefix(f"{section}."): value
        for key, value in values.items()
        if key.startswith(f"{section}.")
    }
    try:
        return type(params).model_validate(params.model_dump(mode="json") | ours)
    except ValidationError as error:
        problem = error.errors()[0]
        raise ParamsError(
            f"search.space: {section} with {ours} is impossible: {problem['msg']}. Narrow the space."
        ) from error


def current(known: Mapping[str, Params], space: Space) -> dict[str, Any] | None:
    """Today's values as Optuna stores them, or None if one of them is outside of the space."""
    found = {}
    for key, of in space.items():
        section, _, name = key.rpartition(".")
        found[key] = of.stored(known[section].model_dump(mode="json")[name])
    return None if None in found.values() else found


def as_yaml(values: Values) -> str:
    """Lines to paste into `params.yaml`."""
    document: dict[str, Any] = {}
    for key, value in values.items():
        *sections, name = key.split(".")
        inner = document
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[name] = value
    return yaml.safe_dump(document, sort_keys=False, default_flow_style=None).rstrip()


def as_command(values: Values) -> str:
    """The command that tries the values as an experiment of DVC's."""
    settings = (
        f"-S '{key}={json.dumps(value, separators=(',', ':'))}'" for key, value in values.items()
    )
    return "dvc exp run " + " ".join(settings)
