"""What is forecast of the market at a moment, whoever has made the forecasts: rows that pages show."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from serving.http.rendered import Rendered
from serving.log.history import PastForecast
from serving.web.walked import WalkedForecast

Source = Literal["live", "served", "walked", "none"]
LEVELS = (0.5, 0.9)
"""Of the intervals shown."""
LOGISTIC = math.pi / math.sqrt(3)
"""Standard deviation of a logistic distribution of scale 1."""


@dataclass(frozen=True)
class Outlook:
    """One symbol's forecast."""

    symbol: str
    as_of: str
    """ISO 8601 day of the last session seen."""
    for_session: str | None
    """ISO 8601 day of the session forecast; None where the walk-forward made it."""
    last_close: float | None
    """US dollars, as `price`."""
    price: float | None
    log_return: float
    p_up: float
    score: float
    horizon: int
    """Sessions."""
    scale: float | None
    """Of the logistic predictive distribution of the log return; None where nothing tells it."""
    is_stated: bool
    """Whether the model states `scale`; otherwise it is that of the last 20 sessions."""
    marks: tuple[str, ...] = ()
    """What is to be known of its newest bars."""
    signal: Mapping[str, Any] = field(default_factory=dict)
    """`serving.http.schemas.Signal` of it; empty where there are no signals."""

    @property
    def simple_return(self) -> float:
        return math.expm1(self.log_return)

    @property
    def stated(self) -> float:
        """The model's own probability of the direction that it calls."""
        return max(self.p_up, 1 - self.p_up)

    def quantile(self, q: float) -> float | None:
        """Log return that is not exceeded with probability q; None where the scale is not known."""
        return None if self.scale is None else self.log_return + self.scale * math.log(q / (1 - q))

    def interval(self, level: float) -> tuple[float, float] | None:
        """Central interval of the simple return."""
        low, high = self.quantile((1 - level) / 2), self.quantile((1 + level) / 2)
        return None if low is None or high is None else (math.expm1(low), math.expm1(high))


def scale_of(stated: float | None, volatility: float | None, horizon: int) -> tuple[float | None, bool]:
    """The scale that a model states, or else the one that has a symbol's volatility (a session's).

    Returns:
        the scale, and whether it is stated.
    """
    if stated is not None and math.isfinite(stated) and stated > 0:
        return stated, True
    return (volatility * math.sqrt(horizon) / LOGISTIC if volatility else None), False


def of_live(row: Rendered, volatility: float | None, signal: Mapping[str, Any] | None) -> Outlook:
    """What the service answers now."""
    forecast = row.forecast
    scale, is_stated = scale_of(forecast.scale, volatility, forecast.horizon)
    marks = []
    if row.age:
        marks.append(f"{row.age} sessions old" if row.age > 1 else "1 session old")
    if forecast.provisional:
        marks.append("provisional")
    if forecast.unusual:
        marks.append("unusual bar")
    if forecast.suspect:
        marks.append(f"suspect: {forecast.suspect.replace('_', ' ')}")
    return Outlook(
        forecast.symbol,
        forecast.as_of[:10],
        forecast.for_session,
        forecast.last_close,
        forecast.price,
        forecast.log_return,
        forecast.p_up,
        forecast.score,
        forecast.horizon,
        scale,
        is_stated,
        tuple(marks),
        signal or {},
    )


def of_served(past: PastForecast, volatility: float | None) -> Outlook:
    """What was answered then."""
    scale, is_stated = scale_of(past.scale, volatility, past.horizon)
    return Outlook(
        past.symbol,
        past.as_of[:10],
        past.for_session,
        past.price / math.exp(past.log_return),
        past.price,
        past.log_return,
        past.p_up,
        past.score,
        past.horizon,
        scale,
        is_stated,
    )


def of_walked(
    walked: WalkedForecast, last_close: float | None, volatility: float | None, horizon: int
) -> Outlook:
    """What the walk-forward says would have been answered then."""
    scale, is_stated = scale_of(walked.scale, volatility, horizon)
    price = last_close * math.exp(walked.log_return) if last_close else None
    return Outlook(
        walked.symbol,
        walked.day,
        None,
        last_close,
        price,
        walked.log_return,
        walked.p_up,
        walked.score,
        horizon,
        scale,
        is_stated,
    )


def reach(rows: Sequence[Outlook]) -> float:
    """The largest return of the axis on which intervals are drawn: of a hundred bars 97 fit."""
    bounds = [abs(x) for row in rows for x in row.interval(LEVELS[-1]) or ()]
    return float(np.quantile(bounds, 0.97)) if bounds else 0.05
