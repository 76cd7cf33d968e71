"""Drift of a week, family by family: features, forecasts, errors."""

from typing import Any

import pandas as pd

from monitoring.findings import Finding
from monitoring.material import SAID, Material
from monitoring.settings import MonitorParams
from monitoring.sketch import Sketch, quantile_edges, sketch, three_ways
from monitoring.thresholds import MONTH, Drift, alpha_of, drift, judged_columns
from monitoring.weeks import Week
from pitwise.bars.calendar import session_close
from pitwise.evaluation.sessions import SESSION

FAMILIES = 3
"""Of columns, that share the rate of false alarms: features, forecasts, errors."""


def feature_drift(
    made: Sketch, week: Week, params: MonitorParams, findings: list[Finding]
) -> tuple[dict[str, Any], Drift | None]:
    """Of the features; None where there is too little to judge by."""
    document, found = _family(made, week, params)
    if document["drifted"]:
        text = f"features drifted: {_named(document['drifted'])}"
        findings.append(Finding("warn", "feature_drift", text))
    return document, found


def forecast_drift(
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


def error_drift(
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


def _family(made: Sketch, week: Week, params: MonitorParams) -> tuple[dict[str, Any], Drift | None]:
    """Whether a week of a sketch drifted from the sessions before it."""
    last = int(made.sessions.searchsorted(week.begin))
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


def _of_rows(
    rows: pd.DataFrame, columns: list[str], week: Week, params: MonitorParams
) -> dict[str, Any]:
    before = rows[rows[SESSION] < week.begin]
    recent = before[SESSION].drop_duplicates().nlargest(params.reference_sessions)
    before = before[before[SESSION].isin(recent)]
    if len(recent) < params.min_reference_sessions:
        return _refused(
            f"{len(recent)} sessions before the week, and fewer than {params.min_reference_sessions} "
            "give no verdict"
        )
    edges = quantile_edges(three_ways(before, columns))
    whole = pd.concat([before, rows[(rows[SESSION] >= week.begin) & (rows[SESSION] <= week.end)]])
    return _family(sketch(whole.reset_index(drop=True), edges), week, params)[0]


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


def _named(columns: list[str], most: int = 3) -> str:
    more = len(columns) - most
    return ", ".join(columns[:most]) + (f" and {more} more" if more > 0 else "")
