"""What the params of every kind have."""

from typing import Literal

from pitwise.stage import Params


class KindParams(Params):
    inputs: Literal["all", "selected"]
    """all: every feature of the table | selected: those that stage `select` chose."""
