"""One symbol at a moment: its bars, its forecast, the forecasts before and what came of them."""

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np

from serving.http.service import History
from serving.log.served_log import Shown
from serving.memory import give_back
from serving.state.market import MarketState
from serving.web.bars import NUMBERS, SymbolBars
from serving.web.forecasts import Market
from serving.web.moment import Moment
from serving.web.outlook import LEVELS, Outlook
from serving.web.past import Call, calls_of, score, signalled
from serving.web.risk import risk_view
from serving.web.sources import Sources

MOST = 6
"""Features that a chart shows at once."""

PAST = 2000
"""Forecasts of a symbol that are looked at."""
TABLE = 20
"""Of them and of bars in a table."""
CALENDAR = "data/features/calendar.parquet"
YEAR = 252
"""Sessions."""


def symbol_view(
    symbol: str, market: Market, state: MarketState, history: History, sources: Sources
) -> dict[str, Any] | None:
    """What the template `symbol.html` takes; None where nothing was known of the symbol.

    `audited` of it is what has to be written down as shown. It reads files: use a thread.
    """
    when = market.moment
    row = next((row for row in market.rows if row.symbol == symbol), None)
    bars = market.bars
    if row is None and bars is None and symbol not in state.features:
        return None
    served = history.of(symbol, None, date.fromisoformat(when.day), PAST)
    audited = [Shown(past.symbol, past.as_of, past.window_hash) for past in served]
    audited += [Shown(p.symbol, p.as_of, p.window_hash) for p in market.served if p.symbol == symbol]
    calls = calls_of(symbol, bars, when, served, state, sources)
    calls, was_calibrated_then = signalled(symbol, calls, when, state, sources)
    features = _features(symbol, when, state, history)
    if features:
        audited.append(Shown(symbol, features["as_of"]))
    events = events_of(symbol, when, sources)
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
        "score": score(calls),
        "was_calibrated_then": was_calibrated_then,
        "risk": risk_view(bars),
        "rises": _rises(bars),
        "events": events,
        "has_calendar": bool(sources.rows(CALENDAR)),
        "features": features,
        "seen": state.model.features,
        "most": MOST,
        "drawable": [f for f in features["rows"] if f["name"] not in NUMBERS] if features else [],
        "chart": _chart(bars, row, calls, events),
        "audited": audited,
    }


def _rises(bars: SymbolBars | None) -> dict[str, float] | None:
    """Share of its sessions that it rose in, the probability that anybody could state."""
    if bars is None or len(bars.returns) < 20:
        return None
    return {"share": float((bars.returns > 0).mean()), "n": len(bars.returns)}


def events_of(symbol: str, when: Moment, sources: Sources) -> list[dict[str, Any]]:
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
        event = _event(f"{row['date']:%Y-%m-%d}", row["kind"], status, row["first_known"])
        found.append(event | {"ratio": row["price_ratio"]})
    found += _put_aside(symbol, at, sources, {event["day"] for event in found})
    found += _told(symbol, at, sources)
    return sorted(found, key=lambda event: event["day"], reverse=True)


def _put_aside(symbol: str, at: int | None, sources: Sources, named: set[str]) -> list[dict[str, Any]]:
    """Bars that cleaning did not believe, such as bad prints, of days that no event tells of."""
    return [
        _event(f"{row['date']:%Y-%m-%d}", row["reason"], "put aside", row["since"])
        for row in sources.rows("data/clean/quarantine.parquet") or []
        if row["symbol"] == symbol and _by(row["since"], at) and f"{row['date']:%Y-%m-%d}" not in named
    ]


def _told(symbol: str, at: int | None, sources: Sources) -> list[dict[str, Any]]:
    """What a calendar of events, such as earnings, says of it; of corrections the last one known."""
    rows = sources.rows(CALENDAR) or []
    known = [row for row in rows if row["symbol"] == symbol and _by(row["known_at"], at)]
    told = {}
    for row in sorted(known, key=lambda row: row["known_at"]):
        event = _event(f"{row['session']:%Y-%m-%d}", row["kind"], "announced", row["known_at"])
        told[row["session"], row["kind"]] = event | {"value": row["value"]}
    return list(told.values())


def _event(day: str, kind: str, status: str, known_at: datetime) -> dict[str, Any]:
    return {
        "day": day,
        "kind": kind.replace("_", " "),
        "status": status,
        "known": f"{known_at:%Y-%m-%d %H:%M}",
        "ratio": None,
        "value": None,
    }


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
        "signals": [[at[c.made], c.signal] for c in calls if c.signal in ("BUY", "SELL")],
    }


def features_by_session(
    symbol: str, names: Sequence[str], when: Moment, state: MarketState, sources: Sources
) -> dict[str, Any] | None:
    """What the chart draws below the bars: `day`, and each feature by name; the live session's last.

    None where a name is none of the features'. It reads files.
    """
    from pitwise.features.indicators import BY_NAME  # brings pandas

    if any(name not in BY_NAME for name in names):
        return None
    days, columns = sources.features(symbol, names, when.instant)
    day = [str(each) for each in days]
    values = {name: [round(x, 6) for x in column.tolist()] for name, column in columns.items()}
    live = state.features.get(symbol)
    if when.as_of is None and live and live.as_of[:10] > max(day, default=""):
        day.append(live.as_of[:10])
        for name, column in values.items():
            column.append(live.values.get(name))
    return {"day": day, **values}
