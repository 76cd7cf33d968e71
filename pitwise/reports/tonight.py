"""The page of an evening: is it fresh, what was set aside, what is provisional, and the forecasts.

Like the other pages it opens offline and needs no script; everything in it is escaped.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from pitwise.bars.calendar import next_session, session_close, session_number
from pitwise.reports.decisions import Decisions, shown
from pitwise.reports.page import template, words

State = Literal["done", "stale", "incomplete"]
SHOWN = 10
"""Forecasts at each end of the ranking that are seen without opening the rest."""
ASIDE_SHOWN = 50
"""Rows set aside that a person can look through; the file has all of them."""
BASELINES = ("persistence", "drift", "always_up")
ALWAYS_UP = "always_up"
MINUS = "\u2212"


@dataclass(frozen=True)
class Evening:
    """What was known when an evening's run ended."""

    now: pd.Timestamp
    """When the page is made, UTC."""
    as_of: pd.Timestamp
    """The newest session with clean bars (naive midnight)."""
    expected: pd.Timestamp | None
    """The newest session that is over; None where the source is one that ends where it ends."""
    sealed: pd.Timestamp | None
    """The newest session that is sealed."""
    symbols: int
    """Symbols with a clean bar in the newest session."""
    symbols_before: int
    """Symbols with a clean bar in the session before it."""
    forecasts: pd.DataFrame
    """symbol, as_of (UTC), horizon (sessions), log_return, price (US dollars), p_up, model_version."""
    quarantine: pd.DataFrame
    """Rows of the newest session that were set aside: symbol, date, close, volume, reason."""
    provisional: pd.DataFrame
    """Bars of sessions that are not sealed: symbol, date."""
    evaluation: Mapping[str, Any]
    """As `metrics/evaluation.json` has it; empty where no model was evaluated."""
    champion_kind: str | None
    """Which of the models in `evaluation` the champion is; None where it is none of them."""
    unusual: pd.DataFrame | None
    """Bars of the newest session that the isolation forest flags, as `pitwise.quality_flags` has them;
    None where there is no forest."""
    suspects: pd.DataFrame
    """Provisional verdicts on newest bars: symbol, date, kind, confidence (0 to 1), first_known."""
    withholds: bool
    """Whether the forecasts of suspect symbols are withheld."""
    unproven: bool = False
    """Whether the champion's recipe is not shown to beat the best baseline."""
    decisions: Decisions | None = None
    """None where no signals are of the newest session."""


class Verdict(NamedTuple):
    state: State
    text: str
    """What is the case and what to do about it."""


class Row(NamedTuple):
    """A forecast as the ranking shows it."""

    rank: int
    symbol: str
    last_close: str
    log_return: str
    rises: bool
    share: float
    """Of the largest forecast in size, 0 to 1: the length of its bar."""
    p_up: str
    provisional: bool
    unusual: bool
    suspect: str
    """What its newest bar may be; empty where nothing is suspected."""


class Standing(NamedTuple):
    """A model or baseline on the test dates as the page shows it."""

    name: str
    is_champion: bool
    is_baseline: bool
    rank_ic: str
    t: str
    error: str
    direction: str
    interval: str
    at: tuple[float, float, float] | None
    """Interval's ends and figure on the drawing's axis, 0 to 1."""


def sessions_behind(evening: Evening) -> int:
    """Sessions that are over and not there; 0 where none is expected."""
    if evening.expected is None:
        return 0
    newest, expected = session_number(pd.Series([evening.as_of, evening.expected]))
    return max(0, int(expected - newest))


def verdict(evening: Evening) -> Verdict:
    """Whether a person may go by tonight's forecasts; stale before incomplete, for it is the worse."""
    as_of = f"{evening.as_of:%Y-%m-%d}"
    behind = sessions_behind(evening)
    if behind:
        sessions = f"{behind} sessions are" if behind > 1 else "one session is"
        return Verdict(
            "stale",
            f"The newest bars are of {as_of}; {evening.expected:%Y-%m-%d} has closed, {sessions} "
            "missing. Get the bars to where the source reads them, then run pitwise evening again.",
        )
    if evening.forecasts.empty:
        return Verdict("incomplete", f"There are no forecasts after {as_of}. Run pitwise run once.")
    if evening.sealed is None or evening.sealed < evening.as_of:
        return Verdict(
            "incomplete",
            f"{as_of} is not sealed: {evening.symbols:,} of the {evening.symbols_before:,} symbols of "
            "the session before have a clean bar. Forecasts from its bars are provisional. Load the "
            f"others, or run pitwise bars seal {as_of} if no more will come.",
        )
    ahead = forecast_session(evening)
    return Verdict(
        "done", f"{as_of} is whole, and the forecasts for {ahead:%Y-%m-%d} are made. Nothing to mend."
    )


def forecast_session(evening: Evening) -> pd.Timestamp:
    """The session that tonight's forecasts are for; without any, the next one."""
    horizons = evening.forecasts["horizon"].astype(int)
    return next_session(evening.as_of, horizons.max() if len(horizons) else 1)


def signed(number: float | None, decimals: int, unit: str = "") -> str:
    """A number with its sign, the minus a minus; an en dash where there is none."""
    if number is None or not np.isfinite(number):
        return "–"
    text = f"{number:+.{decimals}f}"
    return (text.replace("-", MINUS) if float(text) else text.lstrip("+-")) + unit


def ranking(
    forecasts: pd.DataFrame, provisional: set[str], unusual: set[str], suspects: Mapping[str, str]
) -> list[Row]:
    """All forecasts, highest expected return first; equal ones by symbol.

    Args:
        provisional: symbols whose newest session is not sealed.
        unusual: symbols whose newest bar is flagged.
        suspects: symbol to the kind of a provisional verdict on a newest bar.
    """
    ordered = forecasts.sort_values(["log_return", "symbol"], ascending=[False, True])
    largest = ordered["log_return"].abs().max()
    return [
        Row(
            rank,
            f.symbol,
            f"{f.price / np.exp(f.log_return):,.2f}",
            signed(100 * f.log_return, 2),
            f.log_return > 0,
            float(abs(f.log_return) / largest) if largest > 0 else 0.0,
            f"{100 * f.p_up:.1f}",
            f.symbol in provisional,
            f.symbol in unusual,
            suspects.get(f.symbol, "").replace("_", " "),
        )
        for rank, f in enumerate(ordered.itertuples(), start=1)
    ]


def standings(evaluation: Mapping[str, Any], champion_kind: str | None) -> list[Standing]:
    """The champion, the other models, then the baselines, on the same test dates."""
    figures = {name: found for name, found in evaluation.items() if isinstance(found, dict)}
    spans = [
        x
        for found in figures.values()
        for x in (*(found.get("direction_accuracy_ci95") or ()), found.get("direction_accuracy"))
        if x is not None
    ]
    low, width = (min(spans), max(max(spans) - min(spans), 1e-9)) if spans else (0.0, 1.0)
    names = sorted(figures, key=lambda name: (name != champion_kind, name in BASELINES))
    rows = []
    for name in names:
        found = figures[name]
        direction, interval = found.get("direction_accuracy"), found.get("direction_accuracy_ci95")
        at = None
        if direction is not None and interval:
            at = tuple((x - low) / width for x in (interval[0], direction, interval[1]))
        rows.append(
            Standing(
                words(name),
                name == champion_kind,
                name in BASELINES,
                signed(found.get("rank_ic_mean"), 3),
                signed(found.get("rank_ic_t"), 1),
                "–" if found.get("mape") is None else f"{found['mape']:.3f}",
                "–" if direction is None else f"{100 * direction:.1f}",
                f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}" if interval else "–",
                at,
            )
        )
    return rows


def aside_rows(quarantine: pd.DataFrame) -> list[dict[str, str]]:
    """The first rows set aside, as text."""
    return [
        {
            "symbol": "–" if pd.isna(row.symbol) else str(row.symbol),
            "reason": str(row.reason).replace("_", " "),
            "close": "–" if pd.isna(row.close) else f"{row.close:,.2f}",
            "volume": "–" if pd.isna(row.volume) else f"{row.volume:,.0f}",
        }
        for row in quarantine.sort_values(["reason", "symbol"]).head(ASIDE_SHOWN).itertuples()
    ]


def suspect_rows(suspects: pd.DataFrame) -> list[dict[str, str]]:
    """The provisional verdicts, the surest first, as text."""
    return [
        {
            "symbol": str(row.symbol),
            "session": f"{row.date:%Y-%m-%d}",
            "kind": str(row.kind).replace("_", " "),
            "confidence": "–" if pd.isna(row.confidence) else f"{100 * row.confidence:.0f}",
            "first_known": "–" if pd.isna(row.first_known) else f"{row.first_known:%Y-%m-%d %H:%M}",
        }
        for row in suspects.sort_values(["confidence", "symbol"], ascending=[False, True]).itertuples()
    ]


def unusual_rows(unusual: pd.DataFrame) -> list[dict[str, str]]:
    """The first flagged bars, the highest score first, as text."""
    return [
        {
            "symbol": str(row.symbol),
            "log_return": signed(row.log_return, 1),
            "log_range": signed(row.log_range, 1),
            "log_volume": signed(row.log_volume, 1),
            "score": f"{row.score:.2f}",
        }
        for row in unusual.sort_values(["score", "symbol"], ascending=[False, True])
        .head(ASIDE_SHOWN)
        .itertuples()
    ]


def unsealed_sessions(provisional: pd.DataFrame) -> list[dict[str, Any]]:
    """Each session that is not sealed, newest first, with its symbols."""
    return [
        {"date": f"{date:%Y-%m-%d}", "symbols": sorted(map(str, own["symbol"]))}
        for date, own in sorted(provisional.groupby("date"), reverse=True)
    ]


def tonight(evening: Evening) -> str:
    """The whole document."""
    found = verdict(evening)
    champion = evening.evaluation.get(evening.champion_kind or "") or {}
    up = evening.evaluation.get(ALWAYS_UP) or {}
    following = next_session(evening.as_of)
    on_newest = evening.provisional[evening.provisional["date"] == evening.as_of]
    unusual = unusual_rows(evening.unusual) if evening.unusual is not None else []
    flagged = set(evening.unusual["symbol"]) if evening.unusual is not None else set()
    suspects = dict(zip(evening.suspects["symbol"], evening.suspects["kind"], strict=True))
    rows = ranking(evening.forecasts, set(on_newest["symbol"]), flagged, suspects)
    return template("tonight.html").render(
        evening=evening,
        verdict=found,
        behind=sessions_behind(evening),
        as_of=f"{evening.as_of:%Y-%m-%d}",
        for_session=f"{forecast_session(evening):%Y-%m-%d}",
        next_close=f"{session_close(pd.Series([following])).iloc[0]:%Y-%m-%d %H:%M} UTC",
        rows=rows,
        shown=SHOWN,
        versions=", ".join(map(str, evening.forecasts["model_version"].unique())),
        standings=standings(evening.evaluation, evening.champion_kind),
        direction=champion.get("direction_accuracy"),
        interval=champion.get("direction_accuracy_ci95"),
        always_up=up.get("direction_accuracy"),
        suspects=suspect_rows(evening.suspects),
        aside=aside_rows(evening.quarantine),
        unusual=unusual,
        unsealed=unsealed_sessions(evening.provisional),
        decisions=evening.decisions,
        **(shown(evening.decisions, len(suspects)) if evening.decisions else {}),
    )
