"""A symbol's past forecasts, the signals that the rules make of them, and what came of both."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pitwise.decisions.signals import Rules, signal
from serving.log.history import PastForecast
from serving.state.market import MarketState
from serving.web.bars import RANGE, SymbolBars
from serving.web.moment import Moment
from serving.web.outlook import LEVELS, scale_of
from serving.web.sources import Sources

SIGNALS = "metrics/signals.json"


@dataclass(frozen=True)
class Call:
    """A past forecast and what came of it, as known at the moment."""

    made: str
    """ISO 8601 day of the last session seen."""
    for_session: str
    log_return: float
    p_up: float
    low: float | None
    """Bounds of the 90% interval of the log return."""
    high: float | None
    realised: float
    """Log return."""
    source: str
    """served | walk-forward"""
    scale: float | None = None
    """That the model states."""
    signal: str = ""
    """BUY | HOLD | SELL; empty where no rules are known."""

    @staticmethod
    def simple(log_return: float) -> float:
        return math.expm1(log_return)

    @property
    def is_right(self) -> bool:
        return (self.p_up >= 0.5) == (self.realised > 0)

    @property
    def is_inside(self) -> bool | None:
        return None if self.low is None or self.high is None else self.low <= self.realised <= self.high


def calls_of(
    symbol: str,
    bars: SymbolBars | None,
    when: Moment,
    served: Sequence[PastForecast],
    state: MarketState,
    sources: Sources,
) -> list[Call]:
    """Forecasts whose outcome was known then: those served, and before them the walk-forward's."""
    if bars is None:
        return []
    days = [str(day) for day in bars.day]
    at = {day: i for i, day in enumerate(days)}
    horizon = state.forecasts[symbol].horizon if symbol in state.forecasts else 1
    walked = sources.walk_forward(state.model.kind)
    said = {
        one.day: (one.log_return, one.p_up, one.scale, horizon, "walk-forward")
        for one in (walked.of(symbol, when.day) if walked else [])
    }
    for past in served:  # by instant: of a session that was answered twice the last counts
        said[past.as_of[:10]] = (past.log_return, past.p_up, past.scale, past.horizon, "served")
    calls = []
    for day, (log_return, p_up, stated, ahead, source) in sorted(said.items()):
        i = at.get(day)
        if i is None or i + ahead >= len(days):
            continue
        sd = float(bars.returns[i - 20 : i].std(ddof=1)) if i >= 20 else None
        scale, _ = scale_of(stated, sd, ahead)
        reach = None if scale is None else scale * math.log((1 + LEVELS[-1]) / (1 - LEVELS[-1]))
        realised = math.log(bars.close[i + ahead] / bars.close[i])
        low, high = (None, None) if reach is None else (log_return - reach, log_return + reach)
        call = Call(day, days[i + ahead], log_return, p_up, low, high, realised, source, stated)
        calls.append(call)
    return calls


def signalled(
    symbol: str, calls: list[Call], when: Moment, state: MarketState, sources: Sources
) -> tuple[list[Call], bool | None]:
    """The calls with the signals of them, by the rules that the stage `signals` wrote.

    Returns:
        the calls; and whether each was calibrated on what came before its quarter, the other way being
        the rules as they are now, which have seen what came. None where there is no rule to go by: at a
        past moment the rules of now would tell what was not known.
    """
    report = sources.document(SIGNALS)
    if not calls or not report or report["kind"] != state.model.kind:
        return calls, None
    try:
        rules = Rules(**report["rules"])
    except TypeError:  # those of another release
        return calls, None
    by_quarter = report.get("calibrations")
    is_of_others = any(forecast.horizon != rules.horizon for forecast in state.forecasts.values())
    if is_of_others or (not by_quarter and when.as_of is not None):
        return calls, None
    days, columns = sources.features(symbol, ["close", *RANGE], when.instant)
    at = {str(day): i for i, day in enumerate(days)}
    found = []
    for call in calls:
        rules_then = calibrated_at(call.made, rules, by_quarter) if by_quarter else rules
        i = at.get(call.made)
        values = {name: _number(columns[name], i) for name in columns}
        close, volatility, volume = values["close"], values["volatility_20"], values["volume_sma_20"]
        said = signal(
            log_return=call.log_return,
            p_up=call.p_up,
            scale=call.scale,
            close=close or 1.0,
            atr=values["atr_14"],
            volatility=None if volatility is None else volatility / 100,
            dollar_volume=None if volume is None or close is None else volume * close,
            suspect=None,
            rules=rules_then,
        )
        found.append(replace(call, signal=said.signal))
    return found, bool(by_quarter)


def calibrated_at(day: str, rules: Rules, calibrations: Sequence[dict[str, Any]]) -> Rules:
    """The rules with the calibration that held on a day; without one before the first.

    Args:
        calibrations: `from` (ISO 8601 day), intercept and slope, in order of `from`.
    """
    held = [each for each in calibrations if each["from"] <= day]
    own = held[-1] if held else {"intercept": None, "slope": None}
    return replace(rules, intercept=own["intercept"], slope=own["slope"])


def _number(column: np.ndarray, i: int | None) -> float | None:
    return None if i is None or not math.isfinite(column[i]) else float(column[i])


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95% interval of a share of n independent sessions (Wilson 1927)."""
    z = 1.96
    middle = (hits + z * z / 2) / (n + z * z)
    half = z * math.sqrt(hits * (n - hits) / n + z * z / 4) / (n + z * z)
    return middle - half, middle + half


def score(calls: Sequence[Call]) -> dict[str, Any] | None:
    """How often the direction and the interval were right; None before there is an outcome."""
    n = len(calls)
    if not n:
        return None
    hits, inside = sum(call.is_right for call in calls), [c for c in calls if c.is_inside is not None]
    return {
        "n": n,
        "first": calls[0].for_session,
        "last": calls[-1].for_session,
        "hit": hits / n,
        "ci": wilson(hits, n),
        "always_up": sum(call.realised > 0 for call in calls) / n,
        "inside": sum(bool(call.is_inside) for call in inside) / len(inside) if inside else None,
        "n_inside": len(inside),
        "served": sum(call.source == "served" for call in calls),
        "signals": [
            {"name": name, "n": len(own), "hit": hit / len(own), "ci": wilson(hit, len(own))}
            for name, sign in (("BUY", 1), ("SELL", -1))
            if (own := [call for call in calls if call.signal == name])
            for hit in [sum(sign * call.realised > 0 for call in own)]
        ],
    }
