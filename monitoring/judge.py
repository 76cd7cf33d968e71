"""A week's report, of what was read: figures and findings, no files."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from monitoring.findings import Finding, as_documents, bars_finding, verdict
from monitoring.health import broken, forecast_health
from monitoring.material import SAID, Material
from monitoring.matured import accuracy, baselines, last_sessions, mean_ci95
from monitoring.sequential import Chart, charts, resampled
from monitoring.settings import MonitorParams
from monitoring.sketch import Sketch, both_ways, quantile_edges, sketch
from monitoring.thresholds import MONTH, Drift, alpha_of, drift, judged_columns
from monitoring.weeks import Week
from pitwise.bars.calendar import session_close, session_days
from pitwise.evaluation.luck import minimum_detectable_ic
from pitwise.evaluation.sessions import SESSION, by_session
from pitwise.registry.prediction_log import CHAMPION

FAMILIES = 3
"""Of columns, that share the rate of false alarms: features, forecasts, errors."""
TREND = 4
WORST = 5
SET_ASIDE_SHARE = 0.05
FEWEST_LIVE = 20
"""Matured sessions that the live mean needs to be held against its band."""


@dataclass
class Judged:
    """A report, and what its page and Evidently draw."""

    document: dict[str, Any]
    findings: list[Finding]
    drift: Drift | None
    live: pd.DataFrame
    """`by_session` of the champion's matured sessions."""
    charts: list[Chart]


def judge(material: Material, week: Week, params: MonitorParams) -> Judged:
    """The report of one week."""
    known = material.forecasts[material.forecasts[SESSION] <= week.end]
    known = _as_known(known, week.end)
    seen = known[known["role"] == CHAMPION]
    findings = [Finding("note", "unread", note) for note in material.notes]
    health = _bars(material, week, findings)
    served, version = _served(material, seen, week, params, findings)
    features, drifted = _feature_drift(material.features, week, params, findings)
    said = _forecast_drift(material, seen, version, week, params, features, findings)
    errors = _error_drift(seen, version, week, params, findings)
    accurate, live, made = _accuracy(material, seen, known, version, week, params, findings)
    has_live = bool(accurate["live"])
    document = {
        "week": str(week),
        **verdict(str(week), findings, has_live),
        "first_session": _day(week.closes.min()),
        "last_session": _day(min(week.closes.max(), material.bars.index.max())),
        "as_known_at": week.end.isoformat(),
        "model_version": version,
        "kpis": _kpis(material, seen, week, params, accurate, served),
        "accuracy": accurate,
        "drift": {"features": features, "forecasts": said, "errors": errors},
        "health": health | {"forecasts": served},
        "findings": as_documents(findings),
    }
    return Judged(document, findings, drifted, live, made)


def again(judged: Judged, findings: list[Finding]) -> None:
    """Take up findings that came later: the verdict may be another."""
    judged.findings += findings
    has_live = bool(judged.document["accuracy"]["live"])
    judged.document.update(verdict(judged.document["week"], judged.findings, has_live))
    judged.document["findings"] = as_documents(judged.findings)


def _as_known(table: pd.DataFrame, at: pd.Timestamp) -> pd.DataFrame:
    """The table as it was at an instant: outcomes of sessions that ended later are open."""
    later = session_close(table["for_session"]) > at
    outcome = table["outcome"].where(~later, "open")
    return table.assign(outcome=outcome, label=table["label"].where(~later))


def _day(instant: pd.Timestamp) -> str:
    return f"{instant:%Y-%m-%d}"


def _bars(material: Material, week: Week, findings: list[Finding]) -> dict[str, Any]:
    """What was delivered for the week."""
    expected = week.closes[week.closes <= material.bars.index.max()]
    absent = expected.difference(material.bars.index)
    for close in absent:
        findings.append(
            Finding("act", "missing_session", f"the session of {_day(close)} has no bar at all")
        )
    there = material.bars.reindex(expected.difference(absent))
    findings += [bars_finding(found) for found in broken(there)]
    days = session_days(pd.Series(expected, dtype="datetime64[us, UTC]"))
    aside = material.set_aside[material.set_aside["date"].isin(days)]
    for reason, rows in aside.groupby("reason"):
        if rows["share"].max() > SET_ASIDE_SHARE and rows["n"].max() >= 3:
            text = f"{rows['share'].max():.1%} of a session's bars were set aside as {reason}"
            findings.append(Finding("warn", "set_aside", text))
    revised = material.revised
    if len(revised):
        since = revised["created_timestamp"]
        revised = revised[(since >= pd.Timestamp(week.monday, tz="UTC")) & (since < week.end)]
    unsealed = days[~days.isin(material.seals["date"])] if len(material.seals) else days
    return {
        "sessions": len(expected) - len(absent),
        "sessions_expected": len(expected),
        "bars": {name: _number(there[name].mean()) for name in there},
        "set_aside": {str(r): int(n) for r, n in aside.groupby("reason")["n"].sum().items()},
        "revisions": {str(k): int(n) for k, n in revised["kind"].value_counts().items()}
        if len(revised)
        else {},
        "provisional_sessions": [f"{day:%Y-%m-%d}" for day in unsealed],
    }


def _served(
    material: Material, seen: pd.DataFrame, week: Week, params: MonitorParams, findings: list[Finding]
) -> tuple[dict[str, Any], str | None]:
    """What was forecast at the closes of the week, and the version that did it last."""
    could = material.symbols.reindex(week.closes.intersection(material.symbols.index))
    # A log that begins in this week says nothing of the sessions before.
    could = could[could.index >= (seen[SESSION].min() if len(seen) else week.end)]
    rows = seen[seen[SESSION].isin(could.index)]
    if rows.empty:
        text = "no forecast was served in the week"
        findings.append(Finding("warn" if len(seen) else "note", "no_forecasts", text))
        last = seen.loc[seen[SESSION].idxmax(), "model_version"] if len(seen) else None
        return {"share": None, "repeated": None, "versions": {}}, last
    version = str(rows.loc[rows[SESSION].idxmax(), "model_version"])
    since = seen[seen[SESSION] >= could.index.min() - pd.Timedelta(days=7)]
    window = material.symbols[material.symbols.index >= since[SESSION].min()]
    one = since.drop_duplicates(["symbol", SESSION])
    figures = forecast_health(one, window).reindex(could.index)
    findings += [bars_finding(found) for found in broken(figures)]
    for name in rows["model_version"].unique():
        model = material.models.get(str(name))
        if model and model.problem:
            gone = model.problem == "model_gone"
            findings.append(Finding("warn" if gone else "act", model.problem, model.text))
    return {
        "share": _number(figures["served"].mean()),
        "repeated": _number(figures["repeated"].mean()),
        "versions": {str(v): int(n) for v, n in rows["model_version"].value_counts().items()},
    }, version


def _drift_document(found: Drift) -> dict[str, Any]:
    """JSON of a family of columns."""
    return {
        "judged": True,
        "weeks": found.weeks,
        "drifted": found.drifted,
        "psi": {name: float(value) for name, value in zip(found.columns, found.psi, strict=True)},
        "threshold": {n: float(v) for n, v in zip(found.columns, found.threshold, strict=True)},
    }


def _refused(reason: str) -> dict[str, Any]:
    return {"judged": False, "reason": reason, "weeks": 0, "drifted": [], "psi": {}, "threshold": {}}


def _family(made: Sketch, week: Week, params: MonitorParams) -> tuple[dict[str, Any], Drift | None]:
    """Whether a week of a sketch drifted from the sessions before it."""
    monday = pd.Timestamp(week.monday, tz="UTC")
    last = int(made.sessions.searchsorted(monday))
    of_week = made.counts[last : int(made.sessions.searchsorted(week.end))]
    first = max(0, last - params.reference_sessions)
    if len(of_week) < params.min_sessions:
        return _refused(
            f"{len(of_week)} sessions of the week, and fewer than {params.min_sessions} give no verdict"
        ), None
    if last - first < params.min_reference_sessions:
        return _refused(
            f"{last - first} sessions before the week, and fewer than {params.min_reference_sessions} "
            "give no verdict"
        ), None
    chosen = judged_columns(made, first, last)
    names = [name for name, wanted in zip(made.columns, chosen, strict=True) if wanted]
    alpha = alpha_of(params.false_alarms_per_year) / FAMILIES
    counts = made.counts[max(0, first - MONTH) : last + len(of_week)][:, chosen]
    found = drift(counts, len(of_week), params.reference_sessions, alpha, names)
    return _drift_document(found), found


def _feature_drift(
    made: Sketch, week: Week, params: MonitorParams, findings: list[Finding]
) -> tuple[dict[str, Any], Drift | None]:
    document, found = _family(made, week, params)
    if document["drifted"]:
        text = f"features drifted: {_named(document['drifted'])}"
        findings.append(Finding("warn", "feature_drift", text))
    return document, found


def _forecast_drift(
    material: Material,
    seen: pd.DataFrame,
    version: str | None,
    week: Week,
    params: MonitorParams,
    features: dict[str, Any],
    findings: list[Finding],
) -> dict[str, Any]:
    """Of the version that served in the week, against what the same version said before."""
    rows = seen[seen["model_version"] == version][[SESSION, *SAID]]
    tested = material.tested.get(version or "")
    if tested is not None and len(tested):
        rows = pd.concat([tested.loc[~tested[SESSION].isin(rows[SESSION]), [SESSION, *SAID]], rows])
    document = _of_rows(rows, SAID, week, params)
    if document["drifted"]:
        alone = not features["drifted"]
        text = f"forecasts drifted: {_named(document['drifted'])}"
        text += ", and no feature did: another model, or another input" if alone else ""
        findings.append(Finding("act" if alone else "warn", "forecast_drift", text))
    return document


def _error_drift(
    seen: pd.DataFrame, version: str | None, week: Week, params: MonitorParams, findings: list[Finding]
) -> dict[str, Any]:
    """The absolute error, by the session that the forecast was for."""
    rows = seen[(seen["model_version"] == version) & (seen["outcome"] == "matured")]
    of = pd.DataFrame(
        {
            SESSION: session_close(rows["for_session"]).to_numpy(),
            "error": (rows["label"] - rows["log_return"]).abs().to_numpy(),
        }
    )
    of[SESSION] = pd.to_datetime(of[SESSION], utc=True)
    document = _of_rows(of, ["error"], week, params)
    if document["drifted"]:
        findings.append(Finding("warn", "error_drift", "the size of the errors drifted"))
    return document


def _of_rows(
    rows: pd.DataFrame, columns: list[str], week: Week, params: MonitorParams
) -> dict[str, Any]:
    monday = pd.Timestamp(week.monday, tz="UTC")
    before = rows[rows[SESSION] < monday]
    recent = before[SESSION].drop_duplicates().nlargest(params.reference_sessions)
    before = before[before[SESSION].isin(recent)]
    if len(recent) < params.min_reference_sessions:
        return _refused(
            f"{len(recent)} sessions before the week, and fewer than {params.min_reference_sessions} "
            "give no verdict"
        )
    edges = quantile_edges(both_ways(before, columns))
    whole = pd.concat([before, rows[(rows[SESSION] >= monday) & (rows[SESSION] <= week.end)]])
    return _family(sketch(whole.reset_index(drop=True), edges), week, params)[0]


def _named(columns: list[str], most: int = 3) -> str:
    more = len(columns) - most
    return ", ".join(columns[:most]) + (f" and {more} more" if more > 0 else "")


def _accuracy(
    material: Material,
    seen: pd.DataFrame,
    known: pd.DataFrame,
    version: str | None,
    week: Week,
    params: MonitorParams,
    findings: list[Finding],
) -> tuple[dict[str, Any], pd.DataFrame, list[Chart]]:
    """The week's, the live record's, and what the walk-forward leads to expect."""
    horizon = int(seen["horizon"].iloc[-1]) if len(seen) else 1
    of_week = seen[seen["for_session"].isin(week.days) & (seen["outcome"] == "matured")]
    live_rows = last_sessions(seen, params.accuracy_sessions)
    figures = partial(accuracy, horizon=horizon, samples=params.samples, seed=params.seed)
    document: dict[str, Any] = {
        "week": {},
        "live": {},
        "by_version": {},
        "outcomes": {},
        "by_symbol": [],
    }
    document["outcomes"] = {str(k): int(n) for k, n in seen["outcome"].value_counts().items()}
    for name, rows in (("week", of_week), ("live", live_rows)):
        if len(rows):
            rows = rows.drop_duplicates(["symbol", SESSION], keep="last")
            compared = {"champion": figures(rows)}
            others = baselines(rows, _share_up(seen, rows[SESSION].min()))
            document[name] = compared | {other: figures(table) for other, table in others.items()}
    if len(live_rows):
        last = live_rows[SESSION].drop_duplicates()
        for (role, name), rows in known[known[SESSION].isin(last)].groupby(["role", "model_version"]):
            if (rows["outcome"] == "matured").any():
                document["by_version"][f"{name} ({role})"] = figures(rows)
        document["by_symbol"] = _by_symbol(live_rows)
    ours = seen[(seen["model_version"] == version) & (seen["outcome"] == "matured")]
    live = by_session(ours, horizon) if len(ours) else pd.DataFrame(columns=["rank_ic", "hit_rate"])
    document["expected"], made = _against_expectation(material, version, live, horizon, params, findings)
    return document, live, made


def _share_up(seen: pd.DataFrame, before: pd.Timestamp) -> float:
    """Of the outcomes of sessions before an instant; half where there are none."""
    earlier = seen.loc[(seen["outcome"] == "matured") & (seen[SESSION] < before), "label"]
    return float((earlier > 0).mean()) if len(earlier) else 0.5


def _by_symbol(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The symbols whose mean absolute error is largest beside that of no change."""
    off = pd.DataFrame(
        {
            "symbol": rows["symbol"],
            "error": (rows["label"] - rows["log_return"]).abs(),
            "unchanged": rows["label"].abs(),
            "right": (rows["p_up"] > 0.5) == (rows["label"] > 0),
        }
    )
    by = off.groupby("symbol").agg(
        n=("error", "size"),
        error=("error", "mean"),
        unchanged=("unchanged", "mean"),
        right=("right", "mean"),
    )
    worst = by.assign(more=by["error"] - by["unchanged"]).nlargest(WORST, "more").reset_index()
    return worst.drop(columns="more").to_dict("records")


def _against_expectation(
    material: Material,
    version: str | None,
    live: pd.DataFrame,
    horizon: int,
    params: MonitorParams,
    findings: list[Finding],
) -> tuple[dict[str, Any], list[Chart]]:
    """The live mean rank IC beside the band that the walk-forward's sessions give, and the charts."""
    model = material.models.get(version or "")
    before = material.expected.get(model.kind or "") if model else None
    if before is not None and len(live):
        before = before[before.index < live.index.min()]
    ours = live["rank_ic"].dropna().to_numpy(float)
    recent = ours[-params.accuracy_sessions :]
    past = before["rank_ic"].dropna().to_numpy(float) if before is not None else np.empty(0)
    if len(past) < params.min_reference_sessions or len(recent) < 2:
        reason = (
            f"{len(recent)} matured sessions"
            if len(recent) < 2
            else f"{len(past)} sessions of the walk-forward of this kind before them"
        )
        return {"judged": False, "reason": reason}, []
    means = resampled(past, len(recent), horizon, params.samples, params.seed).mean(axis=1)
    low, high = (float(value) for value in np.percentile(means, [2.5, 97.5]))
    mean = float(recent.mean())
    made = charts(
        ours, past, params.loss, params.false_alarms_per_year, params.samples, params.seed, horizon
    )
    document = {
        "judged": True,
        "sessions": len(recent),
        "rank_ic": mean,
        "rank_ic_ci95": mean_ci95(pd.Series(recent), horizon, params.samples, params.seed),
        "expected": float(past.mean()),
        "band95": [low, high],
        "inside": bool(low <= mean <= high),
        "smallest_loss_seen": minimum_detectable_ic(len(recent), float(past.std(ddof=1)), horizon),
        "charts": {
            chart.name: {
                "now": float(chart.values[-1]),
                "limit": chart.limit,
                "alarm": None
                if chart.alarm is None
                else _day(live["rank_ic"].dropna().index[chart.alarm]),
            }
            for chart in made
        },
    }
    told = f"rank IC {mean:+.4f} over {len(recent)} sessions, expected {past.mean():+.4f}"
    ringing = [chart.name for chart in made if len(chart.values) and chart.values[-1] > chart.limit]
    if "CUSUM" in ringing:
        findings.append(
            Finding("act", "worse", f"the forecasts have become worse: {told}, CUSUM above its limit")
        )
    elif len(recent) >= FEWEST_LIVE and mean < low:
        text = f"{told}, and 95% of such stretches have at least {low:+.4f}"
        findings.append(Finding("warn", "below_band", text))
    return document, made


def _kpis(
    material: Material,
    seen: pd.DataFrame,
    week: Week,
    params: MonitorParams,
    accurate: dict[str, Any],
    served: dict[str, Any],
) -> list[dict[str, Any]]:
    """Each with its value of the week, its target, and the three weeks before."""
    expected = accurate["expected"].get("expected") if accurate["expected"].get("judged") else None
    trend: dict[str, list[float | None]] = {}
    for back in range(TREND - 1, -1, -1):
        of = week.before(back) if back else week
        rows = seen[seen["for_session"].isin(of.days) & (seen["outcome"] == "matured")]
        rows = rows.drop_duplicates(["symbol", SESSION], keep="last")
        found = accuracy(rows, int(rows["horizon"].iloc[-1]), 100, params.seed) if len(rows) else {}
        could = material.symbols.reindex(of.closes.intersection(material.symbols.index))
        counted = seen[seen[SESSION].isin(could.index)].groupby(SESSION)["symbol"].nunique()
        found["served"] = float((counted / could).mean()) if len(counted) else None
        if found.get("brier") is not None:
            # Of the rows' own share of rises, which no forecast knew: 0 is as good as that.
            found["calibration"] = found["p_up_mean"] - found["share_up"]
        for name in ("rank_ic_mean", "hit_rate_median", "coverage_80", "calibration", "brier", "served"):
            trend.setdefault(name, []).append(found.get(name))
    targets = {
        "rank_ic_mean": expected,
        "hit_rate_median": 0.5,
        "coverage_80": 0.8,
        "calibration": 0.0,
        "brier": 0.25,
        "served": params.served_share,
    }
    now = accurate["week"].get("champion", {})
    intervals = {"rank_ic_mean": now.get("rank_ic_ci95"), "hit_rate_median": now.get("hit_rate_ci95")}
    return [
        {
            "name": name,
            "target": targets[name],
            "now": values[-1],
            "ci95": intervals.get(name),
            "n_sessions": now.get("n_sessions", 0),
            "trend": values,
        }
        for name, values in trend.items()
    ]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
