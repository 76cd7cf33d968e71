"""The page of `pitwise reconcile`: do two sources of bars agree, where not, and whose fault that is.

Like the other pages it opens offline and needs no script; everything in it is escaped.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pitwise.bars.reconciliation import SIDES
from pitwise.bars.schema import PRICES
from pitwise.reports.page import Table, table, template

WORST = 20
"""Symbols and sessions that are listed, those with most disagreements first."""
SHOWN = 100
"""Disagreements of one kind that a person can look through; the file has all of them."""
OPEN = 10
"""Rows of a table that are seen without opening the rest."""
LABELLED = 3
"""Sessions named in the picture."""
TOLD = {
    "no_session": "no exchange session",
    "missing": "price missing",
    "own_range": "open or close outside its own range",
    "no_volume": "no volume",
    "copy": "copy of another session",
    "filled_open": "open is the close before",
    "neighbours": "denied by both neighbours",
}
"""What told a fault, as the page says it."""


class Verdict(NamedTuple):
    state: str
    """check or agree."""
    text: str


class Stem(NamedTuple):
    """A session's disagreements in the picture, in its coordinates."""

    x: float
    heights: list[float]
    """A's fault, B's fault, unknown."""
    label: str


def reconciliation_page(
    report: Mapping[str, Any],
    bars: pd.DataFrame,
    steps: pd.DataFrame,
    symbols: pd.DataFrame,
    sessions: pd.DataFrame,
    judged: Mapping[str, pd.DataFrame],
    known_at: pd.Timestamp | None,
) -> str:
    """The whole document.

    Args:
        report: as `metrics/reconciliation.json` has it.
        bars, steps: as `Reconciled` has them.
        symbols, sessions: counts by symbol and by session, worst first.
        judged: by side, what the other source says of a workspace's rows; see
            `pitwise.reconcile.judged_by_the_other`.
        known_at: of a workspace, the newest instant at which a bar became known.
    """
    differ = bars[bars["status"] == "differ"]
    told = differ["fault"].isin(SIDES)
    return template("reconciliation.html").render(
        report=report,
        known_at=known_at,
        verdict=verdict(report, sessions),
        stems=_stems(sessions),
        most=int(sessions["differ"].max()),
        worst_sessions=_worst(sessions, "date", "Session"),
        worst_symbols=_worst(symbols, "symbol", "Symbol"),
        differing_symbols=int((symbols["differ"] > 0).sum()),
        differing_sessions=int((sessions["differ"] > 0).sum()),
        steps=_steps(steps),
        told=_disagreements(differ[told]),
        unknown=_disagreements(differ[~told]),
        alone=_alone(bars),
        cleaning=[_cleaning(side, rows) for side, rows in judged.items()],
        shown=OPEN,
    )


def verdict(report: Mapping[str, Any], sessions: pd.DataFrame) -> Verdict:
    """The page's first sentence: what is the case and what to do about it."""
    if not report["both"]:
        return Verdict(
            "check", "The sources have no bar in common: check that they mean the same market."
        )
    alone = report["only_a"] + report["only_b"]
    if not report["differ"]:
        rest = f" Bars in one alone: {alone:,}." if alone else ""
        return Verdict("agree", f"All {report['both']:,} bars in both agree: they were traded.{rest}")
    fault = report["differ_by_fault"]
    text = (
        f"{report['differ']:,} of {report['both']:,} bars in both differ "
        f"({100 * report['differ'] / report['both']:.2f}%): {fault['a']:,} by a fault of A, "
        f"{fault['b']:,} of B, {fault['unknown']:,} unknown."
    )
    unlike = report["symbols_unlike"]
    if unlike:
        named = ", ".join(unlike[:5]) + (f" and {len(unlike) - 5:,} more" if len(unlike) > 5 else "")
        return Verdict("check", f"{text} Look first at {named}: less than half of the bars agree there.")
    told = sessions.assign(told=sessions["fault_a"] + sessions["fault_b"])
    first = told.sort_values(["told", "differ"], ascending=False).iloc[0]
    return Verdict(
        "check",
        f"{text} Look first at {first['date']:%Y-%m-%d}: {first['differ']:,} of "
        f"{first['agree'] + first['differ']:,} bars, the fault of {first['told']:,} could be told.",
    )


def _stems(sessions: pd.DataFrame) -> list[Stem]:
    """Of each session with a disagreement its place and heights, 0 to 1 each; the largest are named."""
    drawn = sessions.sort_values("date", ignore_index=True)
    span = max(len(drawn) - 1, 1)
    most = max(int(drawn["differ"].max()), 1)
    named = set(drawn.nlargest(LABELLED, "differ")["date"])
    stems = []
    for place, row in enumerate(drawn.itertuples()):
        if row.differ:
            counts = [row.fault_a, row.fault_b, row.differ - row.fault_a - row.fault_b]
            label = f"{row.date:%Y-%m-%d}" if row.date in named else ""
            stems.append(Stem(place / span, [count / most for count in counts], label))
    return stems


def _worst(counts: pd.DataFrame, key: str, name: str) -> Table:
    worst = counts[counts["differ"] > 0].head(WORST)
    shown = pd.DataFrame(
        {
            name: worst[key],
            "Bars in both": worst["agree"] + worst["differ"],
            "Differ": worst["differ"],
            "Agree, %": 100 * worst["agree_share"],
            "A's fault": worst["fault_a"],
            "B's fault": worst["fault_b"],
            "Unknown": worst["differ"] - worst["fault_a"] - worst["fault_b"],
            "Closes differ": worst["closes_differ"],
            "Only A": worst["only_a"],
            "Only B": worst["only_b"],
        }
    )
    return table("", shown, **{"Agree, %": ".1f"})


def _steps(steps: pd.DataFrame) -> Table:
    """The steps of the ratio, the largest first."""
    size = np.log(steps["step"]).abs()
    steps = steps.assign(size=size).sort_values(["size", "symbol"], ascending=[False, True])
    shown = pd.DataFrame(
        {
            "Symbol": steps["symbol"],
            "From": steps["before"],
            "To": steps["date"],
            "A over B before": steps["ratio_before"],
            "after": steps["ratio_after"],
            "Step": steps["step"],
            "Return of A, %": 100 * np.expm1(steps["return_a"]),
            "of B, %": 100 * np.expm1(steps["return_b"]),
            "Jumps in": steps["moves"].str.replace(
                "^([ab])$", lambda found: found[1].upper(), regex=True
            ),
        }
    )
    return table(
        "",
        shown,
        **{
            **dict.fromkeys(("A over B before", "after", "Step"), ".4f"),
            **dict.fromkeys(("Return of A, %", "of B, %"), "+.2f"),
        },
    )


def _disagreements(differ: pd.DataFrame) -> Table:
    """Bars that differ with the price that differs most, the largest first."""
    order = differ.assign(size=differ["difference"].abs()).sort_values(
        ["size", "symbol", "date"], ascending=[False, True, True]
    )
    return _rows(order.head(SHOWN))


def _rows(rows: pd.DataFrame) -> Table:
    """Bars with the values of both of the price that differs most."""
    a, b = (rows[[f"{price}_{side}" for price in PRICES]].to_numpy() for side in SIDES)
    beyond = np.abs(np.log(a / b) - np.log(rows["ratio"].to_numpy())[:, None])
    asked = np.stack([rows["fields"].str.contains(price).to_numpy(bool) for price in PRICES], axis=1)
    missing = ~(np.isfinite(a) & np.isfinite(b))
    at = np.where(asked, np.where(missing, np.inf, beyond), -1).argmax(axis=1) if len(rows) else []
    here = np.arange(len(rows))
    values = {
        side: pd.Series(v[here, at], index=rows.index) for side, v in zip("AB", (a, b), strict=True)
    }
    shown = pd.DataFrame(
        {
            "Symbol": rows["symbol"],
            "Session": rows["date"],
            "Price": [PRICES[i] for i in at],
            "A, $": values["A"],
            "B, $": values["B"],
            "A over B around": rows["ratio"],
            "Off by, %": 100 * (values["A"] / values["B"] / rows["ratio"] - 1),
            "Prices that differ": rows["fields"].str.replace(" ", ", "),
            "Fault": rows["fault"].map({"a": "A", "b": "B"}).fillna("unknown"),
            "Told by": [", ".join(TOLD[name] for name in told.split()) for told in rows["told_by"]],
        }
    )
    dollars = dict.fromkeys(("A, $", "B, $"), ",.2f")
    return table("", shown, **dollars, **{"A over B around": ".4f", "Off by, %": "+.2f"})


def _alone(bars: pd.DataFrame) -> Table:
    """Bars that one source has alone, by symbol and side; most first."""
    alone = bars[bars["status"].isin(["only_a", "only_b"])]
    grouped = alone.assign(told=alone["fault"].isin(SIDES)).groupby(["symbol", "status"])
    counted = grouped.agg(
        bars=("date", "size"),
        first=("date", "min"),
        last=("date", "max"),
        inside=("inside", "sum"),
        told=("told", "sum"),
    ).reset_index()
    counted = counted.sort_values(["inside", "bars", "symbol"], ascending=[False, False, True])
    shown = pd.DataFrame(
        {
            "Symbol": counted["symbol"],
            "Only in": counted["status"].str[-1].str.upper(),
            "Bars": counted["bars"],
            "First": counted["first"],
            "Last": counted["last"],
            "Between the other's bars": counted["inside"],
            "Cannot have been traded": counted["told"],
        }
    )
    return table("", shown)


def _cleaning(side: str, rows: pd.DataFrame) -> dict[str, Any]:
    """What the other source says of the rows that a workspace's cleaning kept and set aside."""
    reasons = rows["reason"].where(rows["reason"] != "", "kept")
    names = ["confirmed", "denied", "disputed", "absent"]
    counted = pd.crosstab(reasons, rows["other"]).reindex(columns=names, fill_value=0)
    counted = counted.sort_values("confirmed", ascending=False)
    other = SIDES[1 - SIDES.index(side)].upper()
    heads = [
        f"Same prices in {other}",
        "Denied",
        f"Differ, no fault of {side.upper()} told",
        f"Not in {other}",
    ]
    shown = counted.set_axis(heads, axis=1).rename_axis("Cleaning").reset_index()
    shown.columns.name = None
    shown["Cleaning"] = shown["Cleaning"].str.replace("_", " ")
    aside = (rows["reason"] != "") & (rows["reason"] != "too_little_history")
    wrongly = rows[aside & (rows["other"] == "confirmed")]
    missed = rows[(rows["reason"] == "") & (rows["other"] == "denied")]
    confirmed = pd.DataFrame(
        {
            "Symbol": wrongly["symbol"],
            "Session": wrongly["date"],
            "Set aside as": wrongly["reason"].str.replace("_", " "),
            **{f"{price}, $": wrongly[f"{price}_{side}"] for price in PRICES},
            "volume, shares": wrongly[f"volume_{side}"],
        }
    )
    return {
        "side": side.upper(),
        "other": other,
        "table": table("", shown),
        "wrongly": table("", confirmed.head(SHOWN), **{f"{price}, $": ",.2f" for price in PRICES}),
        "wrongly_all": len(wrongly),
        "missed": _disagreements(missed),
        "missed_all": len(missed),
    }
