"""Sections of `params.yaml` for serving, in a module that imports nothing heavy."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from pitwise.stage import Params

Suspect = Literal["mark", "withhold"]
"""What becomes of the forecast of a symbol on whose newest bars a verdict is provisional."""


class ServeParams(Params):
    """Section `serve`: the HTTP service and live bars."""

    host: str = Field(min_length=1)
    port: int = Field(ge=0, le=65535)
    hosts: list[str] | None = None
    workers: int = Field(1, ge=1, le=64)
    keys: Path
    requests_per_minute: int = Field(ge=1)
    max_symbols: int = Field(ge=1)
    max_bars: int = Field(ge=1)
    max_body_bytes: int = Field(ge=1)
    max_waiting: int = Field(16, ge=1)
    bars_seconds: float = Field(30, gt=0, le=600)
    ttl_sessions: int = Field(ge=0)
    clock: Literal["market", "wall"]
    champion_seconds: float = Field(gt=0, le=10)
    drain_seconds: int = Field(ge=1)
    correction_sessions: int = Field(ge=1)


class PredictParams(Params):
    """Section `predict`: stage `predict` and the prediction log."""

    log_url: str
    suspect: Suspect
    retention_days: int | None = Field(730, ge=1)
