"""How the service, its data and its forecasts do."""

import time
from collections import Counter, defaultdict
from datetime import UTC, datetime
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from pitwise.errors import StoreError
from serving.http.metrics import Metrics
from serving.http.routes.health import NOT_NEEDED, STATUS_SECONDS
from serving.http.service import Service
from serving.state.market import MarketState
from serving.web.moment import Moment
from serving.web.sources import Sources

REVISIONS = 20
"""Rows of a table that may be long."""
LATE = 200
"""Symbols that are listed as behind the market."""
WEEKS, COLUMNS, ROUTES = 12, 20, 10
"""Weeks and columns of the table of drift, and routes of that of latency."""
STEPS = (0.1, 0.25, 0.5, 1.0)
"""Stability index from which a cell has the next stronger colour; 0.1 and 0.25 are usual limits."""
Z95 = 1.96
KPIS = {
    "rank_ic_mean": "Rank IC",
    "hit_rate_median": "Hit rate against the session's median",
    "direction_accuracy": "Direction",
    "coverage_80": "Outcomes inside the 80% interval",
    "calibration": "Calibration: rises that came less those said",
    "brier": "Brier score",
    "served": "Share of symbols that were forecast",
    "signal_turnover": "Turnover of the signals",
    "signal_net_bp": "Earned by a signal, costs out, bp",
}
"""The monitoring's figures of a week, and what they are called here."""


def live_facts(state: MarketState, before: MarketState | None) -> dict[str, Any]:
    """What an event of the stream says of a state, and of what it changed."""
    at_newest = [f for f in state.forecasts.values() if f.session == state.newest]
    changed = [] if before is None else [s for s, n in state.changed.items() if n > before.number]
    return {
        "state": state.number,
        "newest": state.newest_close,
        "fresh": len(at_newest),
        "symbols": len(state.forecasts),
        "provisional": sum(f.provisional for f in at_newest),
        "version": state.model.version,
        "changed": sorted(changed)[:REVISIONS],
        "n_changed": len(changed),
        "at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }


def health(
    when: Moment, state: MarketState, service: Service, sources: Sources, metrics: Metrics
) -> dict[str, Any]:
    """What the template `health.html` takes. It reads files: use a thread."""
    is_now = when.as_of is None
    facts, weeks = live_facts(state, None), sources.weeks(when.instant, WEEKS)
    week = weeks[0] if weeks else None
    then = None if is_now else _then(when, sources)
    late = [f for f in state.forecasts.values() if f.session < state.newest]
    parts = _parts(service) if is_now else []
    revisions = _revisions(when, sources)
    return {
        "facts": facts,
        "verdict": _verdict(facts, parts, state, week, sources) if is_now else None,
        "late": sorted((f.symbol, f.as_of[:10]) for f in late)[:LATE],
        "n_late": len(late),
        "parts": parts,
        "model": state.model,
        "revisions": revisions[:REVISIONS],
        "n_revisions": len(revisions),
        "events": _events(when, sources),
        "fresh": then or (facts["fresh"], facts["symbols"]),
        "cleaning": sources.document("metrics/clean.json"),
        "put_aside": _put_aside(when, sources),
        "week": week,
        "kpis": KPIS,
        "drift": _drift(week),
        "weeks": weeks,
        "drift_by_week": drift_by_week(weeks),
        "steps": STEPS,
        "latency": latency(metrics.text()) if is_now else [],
        "live": accuracy(week["accuracy"].get("live") or {}) if week else [],
        "reports": sources.reports(),
        "matured": _walked_accuracy(state.model.kind, sources) if is_now else None,
    }


def _parts(service: Service) -> list[dict[str, Any]]:
    """How the service's parts do, those at fault first."""
    try:
        statuses = service.states.statuses()
    except StoreError as error:
        return [{"name": "state", "ok": False, "detail": str(error), "needed": True, "age": None}]
    found = []
    for name, status in statuses.items():
        age = max(time.time() - status.at, 0)
        ok = status.ok and age <= STATUS_SECONDS
        detail = status.detail or ("" if ok else f"was last looked at {age:.0f} s ago")
        found.append(
            {"name": name, "ok": ok, "detail": detail, "needed": name not in NOT_NEEDED, "age": age}
        )
    return sorted(found, key=lambda part: (part["ok"], part["name"]))


def _then(when: Moment, sources: Sources) -> tuple[int, int] | None:
    """How many symbols had a bar of the moment's session then, of how many; None: no file tells."""
    bars = sources.bars()
    if bars is None:
        return None
    market = bars.market(when.day, when.instant)
    return int(market.has(when.day).sum()), len(market.symbols)


def _revisions(when: Moment, sources: Sources) -> list[dict[str, Any]]:
    """What came late or was changed or withdrawn after it was known, the newest first."""
    rows = sources.rows("data/features/revisions.parquet") or []
    known = [row for row in rows if _is_known(row["created_timestamp"], when)]
    return sorted(known, key=lambda row: (row["created_timestamp"], row["symbol"]), reverse=True)


def _events(when: Moment, sources: Sources) -> list[tuple[str, int, int]]:
    """Kind of event, how many there were known of it, and how many on the moment's session."""
    rows = sources.rows("data/clean/events.parquet") or []
    known = [row for row in rows if _is_known(row["first_known"], when)]
    all_, of_day = (
        Counter(row["kind"] for row in chosen)
        for chosen in (known, [row for row in known if f"{row['date']:%Y-%m-%d}" == when.day])
    )
    return [(kind.replace("_", " "), n, of_day[kind]) for kind, n in all_.most_common()]


def _is_known(instant: datetime, when: Moment) -> bool:
    return when.instant is None or instant.timestamp() * 1e6 <= when.instant


def _put_aside(when: Moment, sources: Sources) -> int | None:
    """How many bars were in quarantine; None before there is one."""
    rows = sources.rows("data/clean/quarantine.parquet")
    return None if rows is None else sum(_is_known(row["since"], when) for row in rows)


def _verdict(
    facts: dict[str, Any],
    parts: list[dict[str, Any]],
    state: MarketState,
    week: dict[str, Any] | None,
    sources: Sources,
) -> dict[str, str]:
    """Act, Warn or Ok, and why: the worst that was found first."""
    failing = [part for part in parts if not part["ok"]]
    act = [f"{part['name']} does not do well: {part['detail']}" for part in failing if part["needed"]]
    warn = [f"{part['name']} is away: {part['detail']}" for part in failing if not part["needed"]]
    if facts["fresh"] < facts["symbols"]:
        missing = facts["symbols"] - facts["fresh"]
        warn.append(f"{missing} of {facts['symbols']} symbols have no bar of {facts['newest'][:10]}")
    warn += sources.doubts(state.model.version)
    if week and week["verdict"] != "ok":
        (act if week["verdict"] == "act" else warn).append(week["reason"].rstrip("."))
    if not parts:
        act.append("the writer has said nothing of its parts")
    level, word = ("warn", "Act") if act else ("warn", "Warn") if warn else ("ok", "Ok")
    text = "; ".join([*act, *warn]) or "every part does well and every symbol has the newest session"
    return {"level": level, "word": word, "text": text}


def _walked_accuracy(kind: str, sources: Sources) -> dict[str, Any] | None:
    """The walk-forward's figures by kind and baseline, the best rank IC first; None before it."""
    report = sources.document("metrics/walk_forward.json")
    if not report:
        return None
    return {
        "rows": accuracy(report, kind),
        "first": report["first_session"],
        "last": report["last_session"],
        "n_sessions": report[kind]["n_sessions"] if kind in report else 0,
    }


def accuracy(report: dict[str, Any], champion: str = "champion") -> list[dict[str, Any]]:
    """Figures of forecasts by who made them, the best rank IC first."""
    rows = []
    for name, figures in report.items():
        if not isinstance(figures, dict) or "rank_ic_mean" not in figures:
            continue
        ic, t = figures["rank_ic_mean"], figures["rank_ic_t"]
        half = Z95 * abs(ic / t) if ic is not None and t else None  # t is ic by its standard error
        interval = None if half is None else (ic - half, ic + half)
        rows.append(
            {
                "name": name.replace("_", " "),
                "is_champion": name == champion,
                "ic": ic,
                "t": t,
                "interval": figures.get("rank_ic_ci95") or interval,
                "hit": figures["hit_rate_median"],
                "brier": figures["brier"],
                "n": figures["n_predictions"],
                "n_sessions": figures["n_sessions"],
            }
        )
    return sorted(rows, key=lambda row: (row["ic"] is None, -(row["ic"] or 0)))


def _drift(week: dict[str, Any] | None) -> dict[str, Any] | None:
    """What the week says of the features."""
    return None if week is None else week["drift"]["features"]


def drift_by_week(weeks: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The stability index of each column in each week, the column that moved most in the newest first.

    Args:
        weeks: as the monitoring reports them, the newest first.

    Returns:
        weeks: names, the newest first; rows: column and for each week the index, the step of `STEPS`
        that it reaches, and whether the monitoring named the column. None where no week was judged.
    """
    told = [(w["week"], w["drift"]["features"]) for w in weeks if w["drift"]["features"].get("judged")]
    if not told:
        return None
    newest = told[0][1]["psi"]
    rows = []
    for column in sorted(newest, key=lambda name: -newest[name])[:COLUMNS]:
        cells = []
        for _, features in told:
            psi = features["psi"].get(column)
            step = 0 if psi is None else sum(psi >= each for each in STEPS)
            cells.append({"psi": psi, "step": step, "is_named": column in features["drifted"]})
        rows.append({"name": column, "cells": cells})
    return {"weeks": [name for name, _ in told], "rows": rows, "n": len(newest)}


def latency(text: bytes) -> list[dict[str, Any]]:
    """How long the service took to answer since its start, by route, the most asked first.

    Args:
        text: the service's metrics, in Prometheus's format.

    Returns:
        route, n, and the median and the 99th percentile in milliseconds, interpolated in the histogram's
        buckets as Prometheus does; None beyond the last bucket. Streams are left out: they stay open.
    """
    counts: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            if sample.name == "pitwise_request_seconds_bucket":
                counts[sample.labels["route"]][float(sample.labels["le"])] += sample.value
    rows: list[dict[str, Any]] = []
    for route, buckets in counts.items():
        bounds = sorted(buckets)
        below = [buckets[bound] for bound in bounds]
        if below[-1] and not route.endswith("/stream"):
            median, slow = (_quantile(q, bounds, below) for q in (0.5, 0.99))
            rows.append({"route": route, "n": int(below[-1]), "median": median, "p99": slow})
    return sorted(rows, key=lambda row: (-row["n"], row["route"]))[:ROUTES]


def _quantile(q: float, bounds: list[float], below: list[float]) -> float | None:
    """Milliseconds that a share q is below, by counts `below` each bound; the last bound is infinite."""
    rank = q * below[-1]
    i = next(i for i, count in enumerate(below) if count >= rank)
    if i == len(bounds) - 1:
        return None
    low, before = (bounds[i - 1], below[i - 1]) if i else (0.0, 0.0)
    share = (rank - before) / (below[i] - before) if below[i] > before else 1.0
    return 1e3 * (low + (bounds[i] - low) * share)
