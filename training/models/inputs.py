"""What the params of every kind have."""

from typing import Literal

from pydantic import Field

from pitwise.stage import Params


class KindParams(Params):
    inputs: Literal["all", "selected"]
    """all: every feature of the table | selected: those that stage `select` chose."""
    seeds: int = Field(default=1, ge=1)
    """Fits whose scores are averaged in the one graph: `train.seed` and those after it."""
