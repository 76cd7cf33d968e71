"""One symbol at a moment: its bars, its forecast, the forecasts before and what came of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np

from serving.http.service import History
from serving.log.history import PastForecast
from serving.log.served_log import Shown
from serving.state.market import MarketState
from serving.web.bars import SymbolBars
from serving.web.forecasts import Market
from serving.web.moment import Moment
from serving.web.outlook import LEVELS, Outlook, scale_of
from serving.web.sources import Sources, give_back

PAST = 2000
"""Forecasts of a symbol that are looked at."""
TABLE = 20
"""Of them and of bars in a table."""
YEAR = 252
"""Sessions."""


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

    @staticmethod
    def simple(log_return: float) -> float:
        return math.expm1(log_return)

    @property
    def is_right(self) -> bool:
        return (self.p_up >= 0.5) == (self.realised > 0)

    @property
    def is_inside(self) -> bool | None:
        return None if self.low is None or self.high is None else self.low <= self.realised <= self.high


def symbol_view(
    symbol: str, market: Market, state: MarketState, history: History, sources: Sources
) -> dict[str, Any] | None:
    """What the template `symbol.html` takes; None where nothing was known of the symbol.

    `audited` of it is what has to be written down as shown. It reads files: use a thread.
    """
    when = market.moment
    row = next((row for row in market.rows if row.symbol == symbol), None)
    known = sources.bars()
    bars = market.bars.get(symbol) or (known.of(symbol, when.instant) if known else None)
    if row is None and bars is None and symbol not in state.features:
        return None
    served = history.of(symbol, None, date.fromisoformat(when.day), PAST)
    audited = [Shown(past.symbol, past.as_of, past.window_hash) for past in served]
    audited += [Shown(p.symbol, p.as_of, p.window_hash) for p in market.served if p.symbol == symbol]
    calls = _calls(symbol, bars, when, served, state, sources)
    features = _features(symbol, when, state, history)
    if features:
        audited.append(Shown(symbol, features["as_of"]))
    events = _events(symbol, when, sources)
    return {
        "symbol": symbol,
        "row": row,
        "interval": row.interval(LEVELS[-1]) if row else None,
        "volatility": bars.volatility() if bars else None,
        "usual_volatility": bars.volatility(YEAR) if bars else None,
        "why_none": dict(market.without).get(symbol),
        "market": market,
        "bars": bars,
        "last_bars": _last_bars(bars),
        "calls": calls[::-1][:TABLE],
        "score": _score(calls),
        "rises": _rises(bars),
        "events": events,
        "features": features,
        "seen": state.model.features,
        "chart": _chart(bars, row, calls, events),
        "audited": audited,
    }


def _calls(
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
        calls.append(Call(day, days[i + ahead], log_return, p_up, low, high, realised, source))
    return calls


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95% interval of a share of n independent sessions (Wilson 1927)."""
    z = 1.96
    middle = (hits + z * z / 2) / (n + z * z)
    half = z * math.sqrt(hits * (n - hits) / n + z * z / 4) / (n + z * z)
    return middle - half, middle + half


def _score(calls: Sequence[Call]) -> dict[str, Any] | None:
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
    }


def _rises(bars: SymbolBars | None) -> dict[str, float] | None:
    """Share of its sessions that it rose in, the probability that anybody could state."""
    if bars is None or len(bars.returns) < 20:
        return None
    return {"share": float((bars.returns > 0).mean()), "n": len(bars.returns)}


def _events(symbol: str, when: Moment, sources: Sources) -> list[dict[str, Any]]:
    """What is told of its bars, with what was known of it at the moment, the newest first."""
    found = []
    at = when.instant
    for row in sources.rows("data/clean/events.parquet") or []:
        if row["symbol"] != symbol or not _by(row["first_known"], at):
            continue
        status = "provisional"
        if row["confirmed_at"] and _by(row["confirmed_at"], at):
            status = "confirmed"
        if row["withdrawn_at"] and _by(row["withdrawn_at"], at):
            status = "withdrawn"
        kind = row["kind"].replace("_", " ")
        found.append(
            {
                "day": f"{row['date']:%Y-%m-%d}",
                "kind": kind,
                "status": status,
                "known": f"{row['first_known']:%Y-%m-%d %H:%M}",
                "ratio": row["price_ratio"],
                "told_by": row["told_by"],
            }
        )
    return sorted(found, key=lambda event: event["day"], reverse=True)


def _by(instant: datetime, at: int | None) -> bool:
    return at is None or instant.timestamp() * 1e6 <= at


def _features(symbol: str, when: Moment, state: MarketState, history: History) -> dict[str, Any] | None:
    """The newest session's features, with what each is."""
    if when.instant is None:
        found = state.features.get(symbol)
    else:
        found = history.features(symbol, datetime.fromtimestamp(when.instant / 1e6, UTC))
        give_back()  # it has read the file of all symbols
    if found is None:
        return None
    from pitwise.features.indicators import BY_NAME  # brings pandas

    rows = [
        {"name": name, "value": value, "about": BY_NAME.get(name)}
        for name, value in found.values.items()
    ]
    return {"as_of": found.as_of, "provisional": found.provisional, "rows": rows}


def _last_bars(bars: SymbolBars | None) -> list[tuple[Any, ...]]:
    """Day, open, high, low, close, return and volume of the last sessions, the newest first."""
    if bars is None:
        return []
    change = np.append(np.nan, np.expm1(bars.returns))
    columns = (bars.day, bars.open, bars.high, bars.low, bars.close, change, bars.volume)
    rows = zip(*(column[-TABLE:].tolist() for column in columns), strict=True)
    return [(*row[:5], None if row[5] != row[5] else row[5], row[6]) for row in rows][::-1]


def _chart(
    bars: SymbolBars | None, row: Outlook | None, calls: Sequence[Call], events: list[dict[str, Any]]
) -> dict[str, Any] | None:
    """What the chart's script draws: columns by session, prices to 4 digits after the point."""
    if bars is None:
        return None
    days = [str(day) for day in bars.day]
    at = {day: i for i, day in enumerate(days)}
    past = []
    for call in calls:
        i = at[call.made]
        close, target = float(bars.close[i]), at[call.for_session]
        bounds = (call.low, call.log_return, call.high)
        prices = [None if bound is None else round(close * math.exp(bound), 4) for bound in bounds]
        past.append([target, *prices])
    fan = None
    if row is not None and row.as_of == days[-1] and row.interval(LEVELS[0]):
        close = float(bars.close[-1])
        fan = {
            "horizon": row.horizon,
            "session": row.for_session or "the next session",
            "middle": close * math.exp(row.log_return),
            "bands": [[close * (1 + x) for x in row.interval(level) or ()] for level in LEVELS],
        }
    return {
        "day": days,
        **{name: np.round(getattr(bars, name), 4).tolist() for name in ("open", "high", "low", "close")},
        "volume": np.round(bars.volume).tolist(),
        "past": past,
        "fan": fan,
        "events": [[at[e["day"]], e["kind"]] for e in events if e["day"] in at],
    }
