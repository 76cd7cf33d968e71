"""A week's report, of what was read: figures and findings, no files."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from monitoring.families import error_drift, feature_drift, forecast_drift
from monitoring.findings import Finding, as_documents, bars_finding, verdict
from monitoring.health import broken, forecast_health
from monitoring.live import kpis, live_accuracy
from monitoring.material import Material
from monitoring.sequential import Chart
from monitoring.settings import MonitorParams
from monitoring.thresholds import Drift
from monitoring.weeks import Week
from pitwise.bars.calendar import session_close, session_date, session_days, session_number
from pitwise.evaluation.sessions import SESSION
from pitwise.registry.prediction_log import CHAMPION

SET_ASIDE_SHARE = 0.05


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
    features, drifted = feature_drift(material.features, week, params, findings)
    said = forecast_drift(material, seen, version, week, params, features, findings)
    errors = error_drift(seen, version, week, params, findings)
    accurate, live, made = live_accuracy(material, seen, known, version, week, params, findings)
    has_live = bool(accurate["live"])
    document = {
        "week": str(week),
        **verdict(str(week), findings, has_live),
        "first_session": _day(week.closes.min()),
        "last_session": _day(min(week.closes.max(), material.bars.index.max())),
        "as_known_at": week.end.isoformat(),
        "model_version": version,
        "kpis": kpis(material, seen, week, params, accurate),
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
    """The table as it was at midnight before a Monday (UTC): outcomes of later sessions are open."""
    later = session_close(table["for_session"]) > at
    unsold = session_date(session_number(table["for_session"]) + 1) >= at.tz_localize(None)
    return table.assign(
        outcome=table["outcome"].where(~later, "open"),
        label=table["label"].where(~later),
        label_open=table["label_open"].where(~unsold),
    )


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
        revised = revised[(since >= week.begin) & (since < week.end)]
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


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
