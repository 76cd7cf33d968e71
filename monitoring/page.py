"""The page of a week: the verdict, what to do, and the evidence in the order of doubt.

Like the other pages it opens offline and needs no script; everything in it is escaped.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from monitoring.health import LIMITS, MEANING
from monitoring.judge import Judged
from monitoring.sketch import STANDARDISED, WITHIN
from monitoring.thresholds import OVER_A_MONTH
from pitwise.reports.page import template

MINUS = "−"
SHOWN = 10
"""Columns and features that are seen without opening the rest."""
WEEKS_SHOWN = 26
USUAL_PSI = 0.25
"""The usual rule's "major shift", for comparison."""
KPI = {
    "rank_ic_mean": ("Rank IC", "+.4f", "walk-forward"),
    "hit_rate_median": ("Hit rate", ".1%", "a coin"),
    "coverage_80": ("Within the 80% interval", ".1%", "stated"),
    "calibration": ("p_up less the share of rises", "+.1%", "no bias"),
    "brier": ("Brier score", ".4f", "a coin"),
    "served": ("Symbols served", ".1%", "monitor.served_share"),
    "signal_turnover": ("Turnover of the signals", ".0%", "monitor.signal_turnover"),
    "signal_net_bp": ("Earned by a signal, costs out, bp", "+.1f", "costs paid"),
}
WIDTH, HEIGHT = 480, 120


class Line(NamedTuple):
    """A figure over time or over the sessions of a window, drawn in a box of WIDTH by HEIGHT."""

    points: str
    reference: float | None
    """y of the dashed line."""
    zero: float
    low: str
    high: str
    first: str
    last: str


def week_page(judged: Judged, before: dict[str, Any] | None) -> str:
    """The whole document.

    Args:
        before: the document of the week before, where there is one.
    """
    document = judged.document
    return template("week.html", Path(__file__).parent, {"code": _code}).render(
        report=document,
        kpis=[_kpi(row) for row in document["kpis"]],
        accuracy=_accuracy_rows(document["accuracy"]),
        by_symbol=[
            (
                row["symbol"],
                row["n"],
                _text(row["error"], ".2%"),
                _text(row["unchanged"], ".2%"),
                _text(row["right"], ".0%"),
            )
            for row in document["accuracy"]["by_symbol"]
        ],
        weeks_line=_weekly(judged),
        charts=[(chart.name, _chart(judged, chart)) for chart in judged.charts],
        expected=document["accuracy"]["expected"],
        families=[_family(*of) for of in document["drift"].items()],
        bars=_health_rows(document),
        service=_service_rows(document.get("service") or {}),
        importance=_importance(document.get("importance") or {}, before),
        attention=_attention(document.get("importance") or {}, before),
        shown=SHOWN,
        text=_text,
    )


def _code(text: str) -> Markup:
    """The text, escaped, with what stands between backquotes as code."""
    parts = (
        Markup("<code>{}</code>").format(part) if at % 2 else escape(part)
        for at, part in enumerate(text.split("`"))
    )
    return Markup("").join(parts)


def _text(value: float | None, form: str) -> str:
    if value is None or not np.isfinite(value):
        return "–"
    return format(value, form).replace("-", MINUS)


def _kpi(row: dict[str, Any]) -> dict[str, Any]:
    title, form, of = KPI[row["name"]]
    interval = row["ci95"]
    return {
        "title": title,
        "now": _text(row["now"], form),
        "interval": f"{_text(interval[0], form)} to {_text(interval[1], form)}" if interval else "",
        "target": _text(row["target"], form),
        "of": of,
        "n": row["n_sessions"],
        "trend": [_text(value, form) for value in row["trend"]],
    }


def _accuracy_rows(accuracy: dict[str, Any]) -> list[dict[str, Any]]:
    """Champion and baselines, then the other versions, of the same live sessions."""
    rows = [(name, figures, name != "champion") for name, figures in accuracy["live"].items()]
    rows += [(f"version {name}", figures, False) for name, figures in accuracy["by_version"].items()]
    return [
        {
            "name": name.replace("_", " "),
            "is_baseline": is_baseline,
            "rank_ic": _text(of["rank_ic_mean"], "+.4f"),
            "interval": " to ".join(_text(end, "+.3f") for end in of["rank_ic_ci95"] or []),
            "at_open": _text(of["rank_ic_mean_open"], "+.4f"),
            "hit_rate": _text(of["hit_rate_median"], ".1%"),
            "brier": _text(of["brier"], ".4f"),
            "mape": _text(of["mape"], ".3f"),
            "n": f"{of['n_predictions']:,}",
            "sessions": of["n_sessions"],
        }
        for name, of, is_baseline in rows
    ]


def _line(
    values: pd.Series,
    reference: float | None,
    form: str = "+.3f",
    end: Callable[[Any], str] = "{:%Y-%m-%d}".format,
) -> Line | None:
    values = values.dropna()
    if len(values) < 2:
        return None
    drawn = [*values, 0.0, *([] if reference is None else [reference])]
    low, high = min(drawn), max(drawn)
    reach = (high - low) or 1.0

    def at(value: float) -> float:
        return 4 + (HEIGHT - 8) * (high - value) / reach

    across = np.linspace(0, WIDTH, len(values))
    points = " ".join(f"{x:.1f},{at(y):.1f}" for x, y in zip(across, values, strict=True))
    return Line(
        points,
        None if reference is None else at(reference),
        at(0.0),
        _text(low, form),
        _text(high, form),
        end(values.index[0]),
        end(values.index[-1]),
    )


def _weekly(judged: Judged) -> Line | None:
    """Mean rank IC of each week that the champion's version has matured sessions of."""
    live = judged.live
    if len(live) == 0:
        return None
    weekly = live["rank_ic"].resample("W-FRI").mean().dropna().tail(WEEKS_SHOWN)
    expected = judged.document["accuracy"]["expected"]
    return _line(weekly, expected.get("expected") if expected["judged"] else None)


def _chart(judged: Judged, chart: Any) -> Line | None:
    sessions = judged.live["rank_ic"].dropna().index
    return _line(pd.Series(chart.values, sessions), chart.limit, ".2f")


def _plain(column: str) -> str:
    """The column's own name, without the way it is looked at."""
    return column.removesuffix(OVER_A_MONTH).removesuffix(STANDARDISED).removesuffix(WITHIN)


def _family(name: str, of: dict[str, Any]) -> dict[str, Any]:
    rows = [
        {
            "name": _plain(column),
            "how": column.removeprefix(_plain(column)),
            "psi": _text(value, ".3f"),
            "limit": _text(of["threshold"][column], ".3f"),
            "share": value / of["threshold"][column],
        }
        for column, value in of["psi"].items()
    ]
    return {
        "name": name,
        "judged": of["judged"],
        "reason": of.get("reason", ""),
        "weeks": of["weeks"],
        "drifted": len(of["drifted"]),
        "usual": sum(
            value > USUAL_PSI for name, value in of["psi"].items() if not name.endswith(OVER_A_MONTH)
        ),
        "rows": sorted(rows, key=lambda row: -row["share"]),
    }


def _health_rows(document: dict[str, Any]) -> list[dict[str, str]]:
    health = document["health"]
    figures = dict(health["bars"])
    figures |= {"served": health["forecasts"]["share"], "repeated": health["forecasts"]["repeated"]}
    rows = []
    for name, value in figures.items():
        limit, more_is_worse = LIMITS[name]
        form = ".4f" if name == "price_order" else ".1%"
        side = "at most" if more_is_worse else "at least"
        limit_text = format(limit, ".2f" if name == "price_order" else ".0%")
        rows.append({"text": MEANING[name], "now": _text(value, form), "limit": f"{side} {limit_text}"})
    return rows


def _service_rows(service: dict[str, Any]) -> list[dict[str, str]]:
    """What is known of the service: of the week, and since it started."""
    told = {"week": "the week, by the log", "since_start": "since its start"}
    return [
        {
            "name": told[name],
            "requests": f"{of['requests']:,}",
            "errors": _text(of.get("errors"), ".2%"),
            "p50": _text(of["p50_ms"], ".1f"),
            "p99": _text(of["p99_ms"], ".1f"),
        }
        for name, of in service.items()
        if of
    ]


def _importance(now: dict[str, Any], before: dict[str, Any] | None) -> list[dict[str, str]]:
    rows = ((before or {}).get("importance") or {}).get("importance", [])
    earlier = {row["feature"]: row for row in rows}

    def change(row: dict[str, Any], name: str, form: str) -> str:
        was, value = earlier.get(row["feature"], {}).get(name), row.get(name)
        return _text(None if was is None or value is None else value - was, form)

    return [
        {
            "feature": row["feature"],
            "moved": _text(row["moved"], ".3f"),
            "change": change(row, "moved", "+.3f"),
            "noise": _text(row["moved_se"], ".3f"),
            "lost": _text(row["lost"], "+.4f"),
            "lost_se": _text(row["lost_se"], ".4f"),
            "rank_ic": _text(row.get("rank_ic"), "+.3f"),
            "rank_ic_change": change(row, "rank_ic", "+.3f"),
            "rank_ic_se": _text(row.get("rank_ic_se"), ".3f"),
        }
        for row in now.get("importance", [])
    ]


def _attention(now: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any] | None:
    """The shares over the window, and the largest as rows; None where the champion has no attention."""
    shares = now.get("attention", [])
    if not shares:
        return None
    rows = ((before or {}).get("importance") or {}).get("attention", [])
    earlier = {row["back"]: row["share"] for row in rows}
    over_window = pd.Series({row["back"]: row["share"] for row in reversed(shares)})
    return {
        "line": _line(over_window, 1 / len(shares), ".1%", "{} back".format),
        "rows": [
            {
                "back": row["back"],
                "share": _text(row["share"], ".2%"),
                "change": _text(row["share"] - earlier.get(row["back"], np.nan), "+.2%"),
                "noise": _text(row["share_se"], ".2%"),
            }
            for row in sorted(shares, key=lambda row: -row["share"])
        ],
    }
