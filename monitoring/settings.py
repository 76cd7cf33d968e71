"""Section `monitor` of params.yaml, and where the prediction log is."""

from typing import Literal

from pydantic import ConfigDict, Field

from pitwise.stage import Params


class MonitorParams(Params):
    reference_sessions: int = Field(ge=20)
    """Sessions before the week that it is held against."""
    min_reference_sessions: int = Field(ge=20)
    min_sessions: int = Field(ge=1, le=5)
    """Of the week; fewer give no verdict on drift."""
    false_alarms_per_year: float = Field(gt=0, le=26)
    accuracy_sessions: int = Field(ge=2)
    loss: float = Field(gt=0)
    importance_windows: int = Field(ge=2)
    served_share: float = Field(gt=0, le=1)
    signal_turnover: float = Field(0.5, ge=0, le=1)
    metrics_url: str | None = None
    alert: str | None
    retrain: Literal["propose", "auto"]
    samples: int = Field(ge=100)
    seed: int = Field(ge=0)


class LogParams(Params):
    """Of section `predict`, where the prediction log is; the rest is serving's."""

    model_config = ConfigDict(extra="ignore")

    log_url: str
