"""Is the model still right: the week, the live record, and what the walk-forward leads to expect."""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from monitoring.findings import Finding
from monitoring.material import Material
from monitoring.matured import accuracy, baselines, last_sessions, mean_ci95
from monitoring.sequential import Chart, charts, resampled
from monitoring.settings import MonitorParams
from monitoring.signals import signal_figures
from monitoring.weeks import TREND, Week
from pitwise.evaluation.luck import minimum_detectable_ic
from pitwise.evaluation.sessions import SESSION, by_session

WORST = 5
FEWEST_LIVE = 20
"""Matured sessions that the live mean needs to be held against its band."""


def live_accuracy(
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


def kpis(
    material: Material,
    seen: pd.DataFrame,
    week: Week,
    params: MonitorParams,
    accurate: dict[str, Any],
) -> list[dict[str, Any]]:
    """Each with its value of the week, its target, and the three weeks before."""
    expected = accurate["expected"].get("expected") if accurate["expected"].get("judged") else None
    targets = {
        "rank_ic_mean": expected,
        "hit_rate_median": 0.5,
        "coverage_80": 0.8,
        "calibration": 0.0,
        "brier": 0.25,
        "served": params.served_share,
        "signal_turnover": params.signal_turnover,
        "signal_net_bp": 0.0,
    }
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
        found |= signal_figures(material.signals, of.closes)
        for name in targets:
            trend.setdefault(name, []).append(found.get(name))
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
                else f"{live['rank_ic'].dropna().index[chart.alarm]:%Y-%m-%d}",
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
