"""Forecasts as the API shows them: their age, why one is withheld, and their bytes, made once."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import Any

import orjson

from serving.http.problems import Problem
from serving.settings import ServeParams, Suspect
from serving.state.market import MarketState, SymbolForecast


@dataclass(frozen=True, slots=True)
class Rendered:
    """One symbol's forecast at one age."""

    forecast: SymbolForecast
    age: int
    """Sessions that its window does not have: those since its last one, and those missing in it."""
    document: bytes
    """`serving.http.schemas.Forecast`, JSON; b"" where there is a problem."""
    problem: Problem | None
    """Why it is not shown."""


class Renderer:
    """Renders each forecast once, and again when it or its age is another."""

    def __init__(self, params: ServeParams, suspect: Suspect):
        self._ttl = params.ttl_sessions
        self._withholds = suspect == "withhold"
        self._kept: dict[str, Rendered] = {}
        self.reference = _reference(params.clock)
        """The number of the session that ages count from, by a market's state."""

    def of(self, state: MarketState, symbol: str, reference: int) -> Rendered | Problem:
        """A symbol's forecast in a state, or why there is none to show."""
        forecast = state.forecasts.get(symbol)
        if forecast is None:
            if symbol in state.faults:
                return Problem(
                    "no-forecast", f"The champion gives none: {state.faults[symbol].rstrip('.')}."
                )
            return Problem("unknown-symbol", "The store has no window of it.")
        # A window that reaches beyond the reference is as old as the sessions that it leaves out.
        age = max(reference - forecast.session, 0) + forecast.missing
        kept = self._kept.get(symbol)
        if kept is None or kept.forecast is not forecast or kept.age != age:
            problem = self._problem(forecast, age)
            document = b"" if problem else kept_json(shown(forecast, age))
            kept = self._kept[symbol] = Rendered(forecast, age, document, problem)
        return kept.problem or kept

    def _problem(self, forecast: SymbolForecast, age: int) -> Problem | None:
        figures = (
            forecast.last_close,
            forecast.price,
            forecast.score,
            forecast.log_return,
            forecast.p_up,
        )
        if not all(map(isfinite, figures)):
            return Problem("no-forecast", "The champion's forecast is no finite number.")
        if age > self._ttl:
            return Problem(
                "stale-features",
                f"The newest session is of {forecast.as_of[:10]}; {age} sessions since or before it are "
                f"missing, at most {self._ttl} may be.",
            )
        if forecast.suspect and self._withholds:
            return Problem(
                "suspect-bar",
                f"One of its newest bars may be a {forecast.suspect.replace('_', ' ')}; forecasts are "
                "withheld until later bars have settled it (predict.suspect).",
            )
        return None


def kept_json(document: dict[str, Any]) -> bytes:
    """A small document as JSON, to be kept: orjson's own bytes hold the 8 kB that it wrote into."""
    return bytes(memoryview(orjson.dumps(document)))


def shown(forecast: SymbolForecast, age: int) -> dict[str, object]:
    """`serving.http.schemas.Forecast` of one forecast."""
    return {
        "symbol": forecast.symbol,
        "as_of": forecast.as_of,
        "for_session": forecast.for_session,
        "horizon": forecast.horizon,
        "last_close": forecast.last_close,
        "price": forecast.price,
        "score": forecast.score,
        "log_return": forecast.log_return,
        "p_up": forecast.p_up,
        "scale": forecast.scale,
        "feature_age_sessions": age,
        "provisional": forecast.provisional,
        "unusual": forecast.unusual,
        "suspect": forecast.suspect,
    }


def _reference(clock: str) -> Callable[[MarketState], int]:
    if clock == "market":
        return lambda state: state.newest
    # The exchange's calendar brings pandas; a service by the market's clock does without.
    from serving.inference.freshness import newest_closed

    newest_closed(datetime.now(UTC))  # loads the calendar, or the first request would wait for it
    return lambda state: newest_closed(datetime.now(UTC))
