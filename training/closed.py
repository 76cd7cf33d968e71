"""Sessions that are kept closed until a release, so that nothing is made on them."""

from datetime import date

import pandas as pd
from pydantic import ConfigDict, Field

from pitwise.stage import Params, load_params
from pitwise.workspace import Workspace


class VaultFrom(Params):
    """A vault of the workspace's own bars."""

    day: date = Field(alias="from")
    """The first session that is closed; all after it are."""


class ClosedParams(Params):
    """Section evaluate, as far as it says what is closed; stage `evaluate` checks the rest."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    vault: str | VaultFrom | None = None


def closed_from(workspace: Workspace) -> pd.Timestamp | None:
    """The instant (UTC) from which on the workspace's own sessions are closed; None where none is."""
    vault = load_params(workspace, "evaluate", ClosedParams).vault
    return pd.Timestamp(vault.day, tz="UTC") if isinstance(vault, VaultFrom) else None
