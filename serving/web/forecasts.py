"""The market's forecasts at a moment, and the table that shows them."""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
from markupsafe import Markup

from serving.http.rendered import Rendered
from serving.http.routes.history import MARKET
from serving.http.service import History
from serving.log.history import PastForecast
from serving.state.market import MarketState
from serving.web.bars import MarketBars, SymbolBars
from serving.web.drawing import interval_bar, sparkline
from serving.web.moment import Moment
from serving.web.outlook import LEVELS, Outlook, Source, of_live, of_served, of_walked
from serving.web.sources import Sources

ROWS = 1000
"""Of the table, and of symbols without a forecast: who wants another one searches."""
SPARK_SESSIONS = 60
SORTS = ("symbol", "signal", "confidence", "expected", "target", "stop", "last", "cost", "score")
"""Columns that a table may be sorted by; with a minus before the name the largest come first."""
DEFAULT_SORT = "-expected"


@dataclass(frozen=True)
class Market:
    """What was forecast of the market at a moment."""

    moment: Moment
    source: Source
    rows: list[Outlook]
    by: str
    """Who made the forecasts, in words."""
    without: list[tuple[str, str]]
    """Symbol and why it has none."""
    closes: Mapping[str, np.ndarray]
    """By symbol its last `SPARK_SESSIONS`, as known then; NaN before the first one."""
    bars: SymbolBars | None = None
    """Of the symbol, as known then, where the others were not wanted."""
    served: Sequence[PastForecast] = ()
    """What the rows are of, where they were served in the past."""
    state: int | None = None
    """Number of the state that the rows are of, where they are live."""
    doubts: Sequence[str] = ()
    """What the promotion gate holds against the champion, where the rows are live."""

    @property
    def for_session(self) -> str | None:
        return next((row.for_session for row in self.rows), None)

    @property
    def horizon(self) -> int:
        return next((row.horizon for row in self.rows), 1)

    @property
    def has_signals(self) -> bool:
        return any(row.signal for row in self.rows)

    @property
    def signal_counts(self) -> Counter[str]:
        return Counter(row.signal["signal"] for row in self.rows if row.signal)

    @property
    def states_scale(self) -> bool:
        return any(row.is_stated for row in self.rows)


def market_now(
    moment: Moment,
    state: MarketState,
    rendered: Sequence[Rendered],
    without: list[tuple[str, str]],
    sources: Sources,
    signals: Mapping[str, Mapping[str, Any]],
    only: str | None = None,
) -> Market:
    """What the service answers now.

    Args:
        rendered: the forecasts of the state.
        without: symbol and why it has none.
        signals: `serving.http.schemas.Signal` by symbol; empty where none have been made.
        only: a symbol, where the others are not wanted.
    """
    known, bars = sources.bars(), None
    if only is None:
        volatility, closes = _of_market(known.market().with_live(state.features) if known else None)
    else:
        bars = known.of(only) if known else None
        if bars is not None and (live := state.features.get(only)):
            bars = bars.with_live(live.as_of[:10], live.values)
        volatility, closes = _of_symbol(only, bars)
    rows = [
        of_live(row, volatility.get(row.forecast.symbol), signals.get(row.forecast.symbol))
        for row in rendered
    ]
    model = state.model
    by = f"version {model.version} ({model.kind}), champion since {model.since[:10]}"
    doubts = sources.doubts(model.version)
    return Market(moment, "live", rows, by, without, closes, bars, state=state.number, doubts=doubts)


def market_then(
    moment: Moment,
    kind: str,
    horizon: int,
    history: History,
    sources: Sources,
    only: str | None = None,
) -> Market:
    """What was answered at a past moment; before anybody was answered, what the walk-forward says.

    Args:
        kind: of the champion: whose walk-forward is shown.
        horizon: sessions that it looks ahead.
        only: a symbol, where the others are not wanted.
    """
    known, bars = sources.bars(), None
    if only is None:
        market = known.market(moment.day, moment.instant) if known else None
        volatility, closes = _of_market(market, moment.day)
    else:
        bars = known.of(only, moment.instant) if known else None
        is_of_session = bars is not None and str(bars.day[-1]) == moment.day
        volatility, closes = _of_symbol(only, bars if is_of_session else None)
    served = history.market(date.fromisoformat(moment.day), MARKET)
    if served and served[0].as_of[:10] == moment.day:
        served = [past for past in served if only in (None, past.symbol)]
        rows = [of_served(past, volatility.get(past.symbol)) for past in served]
        versions = ", ".join(sorted({past.model_version for past in served}))
        when = min((past.served_at for past in served), default="")[:16].replace("T", " ")
        by = f"version {versions}, answered from {when} UTC on"
        return Market(moment, "served", rows, by, [], closes, bars, served)
    walked = sources.walk_forward(kind)
    rows = [
        of_walked(
            one,
            float(closes[one.symbol][-1]) if one.symbol in closes else None,
            volatility.get(one.symbol),
            horizon,
        )
        for one in (walked.market(moment.day) if walked else [])
        if only in (None, one.symbol)
    ]
    by = f"the walk-forward of {kind}, the mean of its seeds, trained on what came before"
    return Market(moment, "walked" if rows else "none", rows, by, [], closes, bars)


def _of_market(
    bars: MarketBars | None, day: str | None = None
) -> tuple[Mapping[str, float], Mapping[str, np.ndarray]]:
    """Volatility and last closes by symbol.

    Args:
        day: of the last bar that a symbol must have; None: any.
    """
    if bars is None:
        return {}, {}
    last = bars.close[-SPARK_SESSIONS:].T
    chosen = range(len(bars.symbols)) if day is None else np.flatnonzero(bars.has(day)).tolist()
    return bars.volatility, {bars.symbols[i]: last[i] for i in chosen}


def _of_symbol(
    symbol: str, bars: SymbolBars | None
) -> tuple[Mapping[str, float], Mapping[str, np.ndarray]]:
    """The same of one symbol."""
    if bars is None:
        return {}, {}
    volatility = bars.volatility()
    return {} if volatility is None else {symbol: volatility}, {symbol: bars.close[-SPARK_SESSIONS:]}


def cells(market: Market) -> list[dict[str, Any]]:
    """The table's rows, each figure by its column's name, as the sort and the file take them."""
    return [
        {
            "symbol": row.symbol,
            "signal": row.signal.get("signal"),
            "reason": row.signal.get("reason") or "",
            "confidence": row.signal.get("confidence") if row.signal else row.stated,
            "expected": row.simple_return,
            "interval": row.interval(LEVELS[-1]),
            "target": row.price,
            "stop": row.signal.get("stop_loss"),
            "last": row.last_close,
            "cost": row.signal.get("expected_cost"),
            "score": row.score,
            "p_up": row.p_up,
            "for_session": row.for_session,
            "marks": row.marks,
        }
        for row in market.rows
    ]


def drawn(row: dict[str, Any], market: Market, axis: float) -> dict[str, Any]:
    """A row of `cells` with what the template draws of it.

    Args:
        axis: see `reach`.
    """
    interval, closes = row["interval"], market.closes.get(row["symbol"], np.empty(0))
    bar = interval_bar(interval[0], row["expected"], interval[1], axis) if interval else Markup("")
    return row | {"bar": bar, "spark": sparkline(closes[~np.isnan(closes)])}


def reliability(sources: Sources, market: Market) -> dict[str, Any] | None:
    """Of the most confident calls, how many came true: the last row of the reliability table."""
    report = sources.document("metrics/signals.json") if market.has_signals else None
    table = report["reliability"].get("calibrated") if report and report.get("reliability") else None
    return table[-1] if table else None


def ordered(rows: list[dict[str, Any]], sort: str) -> list[dict[str, Any]]:
    """Rows in the order that the address names; those without the figure come last."""
    name = sort.removeprefix("-")
    has = [row for row in rows if row[name] is not None]
    has.sort(key=lambda row: row["symbol"])
    has.sort(key=lambda row: row[name], reverse=sort.startswith("-"))
    return has + [row for row in rows if row[name] is None]


def chosen(rows: list[dict[str, Any]], q: str, signal: str, marked: bool) -> list[dict[str, Any]]:
    """Rows whose symbol has `q` in it, of one signal, and with a mark if `marked`."""
    return [
        row
        for row in rows
        if q.upper() in row["symbol"].upper()
        and (not signal or row["signal"] == signal)
        and (row["marks"] or not marked)
    ]


CSV = {
    "symbol": "symbol",
    "for_session": "for_session",
    "signal": "signal",
    "confidence": "confidence",
    "expected": "expected_return",
    "target": "target",
    "stop": "stop_loss",
    "last": "last_close",
    "cost": "expected_cost",
    "score": "score",
    "p_up": "p_up",
}
"""Column here to its name in the file; fractions, US dollars and ISO dates."""


def as_csv(rows: list[dict[str, Any]]) -> str:
    """The rows as a file that a spreadsheet reads."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*CSV.values(), "low_90", "high_90", "marks"])
    for row in rows:
        low, high = row["interval"] or (None, None)
        writer.writerow([*(row[name] for name in CSV), low, high, "; ".join(row["marks"])])
    return out.getvalue()
