"""The champion at a moment: what it has shown out of sample, how far to believe it, how it got there."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np

from pitwise.evaluation.metrics import mean_and_t
from pitwise.registry.findings import describe
from serving.state.market import MarketState
from serving.web.health import Z95, accuracy
from serving.web.moment import Moment
from serving.web.sources import Sources
from serving.web.walked import WalkForward

IMPORTANT = 12
"""Features in the table of importance, and sessions in that of attention."""
FEWEST = 10
"""Sessions of a quarter that has an interval."""
WIDE, HIGH, MARGIN, SIDE = 640, 180, 12, 220
"""Of the pictures of the quarters and of calibration, in their own units."""


def model_view(when: Moment, state: MarketState, sources: Sources) -> dict[str, Any]:
    """What the template `model.html` takes. It reads files."""
    is_now = when.as_of is None
    kind = state.model.kind
    walked, report = sources.walk_forward(kind), sources.document("metrics/walk_forward.json")
    week, signals = sources.week(when.instant), sources.document("metrics/signals.json")
    promotions = [line for line in sources.promotions() if _by(line["at"], when)]
    importance = (week or {}).get("importance", {})
    attention = sorted(importance.get("attention", []), key=lambda row: -row["share"])
    quarters = []
    if walked and (last := _last_with_outcome(when, state, sources)):
        quarters = by_quarter(walked, last)
    return {
        "model": state.model,
        "doubts": sources.doubts(state.model.version) if is_now else [],
        "report": report if is_now else None,
        "rows": accuracy(report, kind) if is_now and report else [],
        "quarters": quarters,
        "picture": picture(quarters, _best_other(report, kind) if is_now else None)
        if quarters
        else None,
        "reliability": signals["reliability"] if is_now and signals else None,
        "reliability_picture": reliability_picture(signals["reliability"].get("calibrated"))
        if is_now and signals
        else None,
        "looked_at": [
            (f, describe(f)) for f in sources.findings(state.model.version) if is_now and f.version
        ],
        "challenger": (sources.document("metrics/registration.json") or {}).get("challenger"),
        "by_version": accuracy((week or {}).get("accuracy", {}).get("by_version") or {}, ""),
        "importance": importance.get("importance", [])[:IMPORTANT],
        "attention": attention[:IMPORTANT],
        "alike": 1 / len(attention) if attention else None,
        "week": week,
        "promotions": promotions[::-1],
    }


def _last_with_outcome(when: Moment, state: MarketState, sources: Sources) -> np.datetime64 | None:
    """The last session whose forecasts had their outcome at the moment."""
    bars = sources.bars()
    if bars is None:
        return None
    horizon = next((forecast.horizon for forecast in state.forecasts.values()), 1)
    at = int(np.searchsorted(bars.sessions, np.datetime64(when.day, "D"), side="right")) - 1 - horizon
    return bars.sessions[at] if at >= 0 else None


def by_quarter(walked: WalkForward, last: np.datetime64) -> list[dict[str, Any]]:
    """Rank IC of the walk-forward in each quarter, of forecasts made up to day `last`.

    Returns:
        quarter (`2016 Q1`), mean, n (sessions) and low and high, the mean's 95% interval over the
        sessions; None where they are fewer than `FEWEST`.
    """
    days, ics = walked.rank_ics
    ics = ics[days <= last]
    months = days[days <= last].astype("datetime64[M]").astype(int)
    found = []
    for quarter in np.unique(months // 3):
        here = ics[months // 3 == quarter]
        mean, t = mean_and_t(here)
        if mean is None:
            continue
        half = Z95 * abs(mean / t) if t and len(here) >= FEWEST else None
        found.append(
            {
                "name": f"{1970 + quarter // 4} Q{quarter % 4 + 1}",
                "mean": mean,
                "low": None if half is None else mean - half,
                "high": None if half is None else mean + half,
                "n": len(here),
            }
        )
    return found


def _best_other(report: dict[str, Any] | None, kind: str) -> tuple[str, float] | None:
    """The baseline or model of another kind that has the best rank IC, and that."""
    rows = [row for row in accuracy(report, kind) if not row["is_champion"]] if report else []
    return (rows[0]["name"], rows[0]["ic"]) if rows and rows[0]["ic"] is not None else None


def picture(quarters: list[dict[str, Any]], baseline: tuple[str, float] | None) -> dict[str, Any]:
    """Where the quarters' points, their intervals, zero and the baseline lie in a picture."""
    values = [q[name] for q in quarters for name in ("mean", "low", "high") if q[name] is not None]
    values += [0.0, *([baseline[1]] if baseline else [])]
    low, high = min(values), max(values)

    def y(value: float) -> float:
        return round(MARGIN + (HIGH - 3 * MARGIN) * (high - value) / ((high - low) or 1), 1)

    step = WIDE / len(quarters)
    points = [
        q
        | {
            "x": round(step * (i + 0.5), 1),
            "y": y(q["mean"]),
            "from": None if q["low"] is None else y(q["low"]),
            "to": None if q["high"] is None else y(q["high"]),
        }
        for i, q in enumerate(quarters)
    ]
    line = baseline and {"name": baseline[0], "ic": baseline[1], "y": y(baseline[1])}
    return {"points": points, "zero": y(0.0), "baseline": line, "foot": HIGH - 4}


def reliability_picture(rows: Sequence[dict[str, Any]] | None) -> dict[str, Any] | None:
    """Where said and came lie in a square of `SIDE`, with the interval of each; None without rows."""
    if not rows:
        return None
    values = [row[name] for row in rows for name in ("said", "came")]
    values += [bound for row in rows for bound in row["ci95"] or () if bound is not None]
    low, high = min(values), max(values)

    def at(value: float) -> float:
        return round(MARGIN + (SIDE - 2 * MARGIN) * (value - low) / ((high - low) or 1), 1)

    points = []
    for row in rows:
        known = row["ci95"] and row["ci95"][0] is not None
        bounds = [SIDE - at(bound) for bound in row["ci95"]] if known else None
        points.append({"x": at(row["said"]), "y": round(SIDE - at(row["came"]), 1), "bounds": bounds})
    half = round(SIDE - at(0.5), 1) if low <= 0.5 <= high else None
    return {"points": points, "half": half, "low": low, "high": high}


def _by(instant: str, when: Moment) -> bool:
    known = datetime.fromisoformat(instant).timestamp() * 1e6
    return when.instant is None or known <= when.instant
