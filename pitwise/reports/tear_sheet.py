"""The tear sheet of a back-tested portfolio: two pages to print, or to send to a colleague.

Like the other pages it opens offline and needs no script. Its pictures stand in the page itself, so that
they take its colours, light or dark.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pitwise.reports.inline import (
    DOWN,
    GREY,
    INK,
    UP,
    beside,
    inline,
    lines,
    number,
    panels,
    ticks,
    units,
    zero,
)
from pitwise.reports.page import compact, dates_below, drawing, template, words

IC_SESSIONS = 63
ACTIVITY_SESSIONS = 21
YEARS_COMPARED = 6
"""Years up to which the months have a second row each."""
DARKEST = 60
"""Percent of colour behind the month that moved most."""
SURE = 0.95
"""Deflated Sharpe ratio from which on the number of tries does not explain the figure."""
MEASURES = {
    "annual_return": ("Return a year, %", 100, 1),
    "volatility": ("Volatility a year, %", 100, 1),
    "sharpe": ("Sharpe ratio", 1, 2),
    "sortino": ("Sortino ratio", 1, 2),
    "calmar": ("Calmar ratio", 1, 2),
    "max_drawdown": ("Deepest fall, %", 100, 1),
    "hit_rate": ("Sessions with a gain, %", 100, 1),
    "turnover": ("Turnover a session, %", 100, 1),
    "cost_bp": ("Cost a year, bp", 1, 0),
    "exposure": ("Exposure, %", 100, 1),
    "break_even_bp": ("Break-even cost, bp", 1, 1),
    "psr": ("P(Sharpe ratio above 0)", 1, 2),
    "dsr": ("P(Sharpe ratio above luck)", 1, 2),
}
"""Key in the document: heading, factor, decimals."""


@dataclass(frozen=True)
class TearSheet:
    """What the sheet of one portfolio shows; returns are simple, costs out, shares and not percent."""

    name: str
    """Of the portfolio in the document."""
    document: Mapping[str, Any]
    """As `metrics/backtest.json` has it."""
    equity: pd.DataFrame
    """By session, in units of the capital: `ours`, `equal`; before costs `before_costs`, and `low` and
    `high`, between which 95% of the random signals are."""
    drawdown: pd.DataFrame
    """By session, equity over the highest so far, less 1: `ours`, `equal`."""
    falls: pd.DataFrame
    """The deepest: `depth`, `peak`, `trough`, `recovered`, `sessions`."""
    rolling: int
    """Sessions behind each of `sharpe`."""
    sharpe: pd.DataFrame
    """By session: `ours`, `equal`; of a year."""
    monthly: pd.DataFrame
    """By month (a period): `ours`, `equal`."""
    annual: pd.DataFrame
    """By year (a period): `ours`, `equal`."""
    rank_ic: pd.DataFrame
    """By session (UTC): the kind whose forecasts are traded first, and what stands beside it."""
    quantiles: pd.DataFrame
    """By part of the scores, the smallest first: `mean` return of a session above that of all symbols,
    before costs, and its interval, `low` and `high`."""
    spread: pd.Series
    """By session (UTC): the last part's return less the first's, of one session."""
    activity: pd.DataFrame
    """By session, over the equity: `traded`, `gross`, `net`."""
    costs: pd.DataFrame
    """At multiples of the costs: `multiple`, `paid_bp` of each dollar traded, `ret` a year."""
    tails: pd.DataFrame
    """By session: `ret`, and by level (0.95, 0.99) the value at risk; empty where there is no test."""
    tests: Sequence[Mapping[str, Any]]
    """By method and level: exceptions, expected, sessions, kupiec_p, traffic_light."""


class Verdict(NamedTuple):
    state: Literal["above", "below", "open"]
    text: str


def verdict(sheet: TearSheet) -> Verdict:
    """Whether it beat equal weight by more than chance, and what that means."""
    ours, equal = sheet.document[sheet.name], sheet.document["equal_weight"]
    over, dsr = ours["return_over_equal_weight"], ours["dsr"]["value"]
    years = [number(one["annual_return"]["value"], 100, 1, signed=True) for one in (ours, equal)]
    text = f"After costs {years[0]}% a year, equal weight {years[1]}%. "
    if over["ci95"] is None:
        return Verdict("open", text + "Too short a track for an interval.")
    low, high = over["ci95"]
    text += (
        f"Their mean returns differ by {number(over['value'], 100, 1, signed=True)} points a year, 95% "
        f"between {number(low, 100, 1, signed=True)} and {number(high, 100, 1, signed=True)}. "
    )
    if low > 0:
        lucky = dsr is None or dsr < SURE
        told = f"the best of {sheet.document['setup']['trials']} tries may well look like this by luck"
        return Verdict("above", text + (f"But {told}." if lucky else ""))
    if high < 0:
        return Verdict("below", text + "Hold equal weight.")
    return Verdict("open", text + "Equal weight is the simpler thing to hold.")


def between(ci95: Sequence[float] | None, factor: float = 1, decimals: int = 2) -> str:
    """An interval as text; an en dash where there is none."""
    if ci95 is None:
        return "–"
    return " to ".join(number(end, factor, decimals) for end in ci95)


OURS_AND_EQUAL = {"equal": ("equal weight", GREY, "--"), "ours": ("portfolio", UP, "-")}


def equity(sheet: TearSheet) -> Figure:
    drawn, (above, below) = panels(5.6, (2.6, 1), width=4.2)
    above.fill_between(
        sheet.equity.index,
        sheet.equity["low"],
        sheet.equity["high"],
        color=GREY,
        alpha=0.15,
        linewidth=0,
    )
    labels = {"before_costs": ("before costs", UP, ":"), **OURS_AND_EQUAL}
    lines(above, sheet.equity, labels)
    units(above.yaxis)
    below.fill_between(
        sheet.drawdown.index, sheet.drawdown["ours"], 0, color=DOWN, alpha=0.35, linewidth=0
    )
    below.plot(sheet.drawdown.index, sheet.drawdown["equal"], "--", color=GREY, linewidth=0.9)
    below.yaxis.set_major_locator(ticks(3))
    units(below.yaxis, 100, "%")
    dates_below(below)
    return drawn


def rolling_sharpe(sheet: TearSheet) -> Figure:
    drawn, (axis,) = panels(2.1)
    lines(axis, sheet.sharpe, OURS_AND_EQUAL)
    zero(axis)
    units(axis.yaxis)
    dates_below(axis)
    return drawn


def annual(sheet: TearSheet) -> Figure:
    drawn, (axis,) = panels(2.1)
    at = np.arange(len(sheet.annual))
    ours, equal = sheet.annual["ours"], sheet.annual["equal"]
    axis.bar(at, ours, 0.5, color=np.where(ours < 0, DOWN, UP))
    axis.hlines(equal, at - 0.38, at + 0.38, color=GREY, linestyle="--", linewidth=1.2)
    zero(axis)
    axis.set_xticks(at, [str(year) for year in sheet.annual.index])
    margin = max(5 - len(at), 1) / 2  # few bars are no wider than five
    axis.set_xlim(-margin, len(at) - 1 + margin)
    units(axis.yaxis, 100, "%")
    return drawn


def ic_sessions(sheet: TearSheet) -> int:
    """Sessions behind each mean rank IC: a quarter of a year, or of the track where that is less."""
    return min(IC_SESSIONS, max(len(sheet.rank_ic) // 4, 1))


def information(sheet: TearSheet) -> Figure:
    drawn, (axis,) = panels(2.1)
    mean = sheet.rank_ic.rolling(ic_sessions(sheet)).mean()
    styles = [(UP, "-"), *[(GREY, "--")] * (mean.shape[1] - 1)]
    labels = {name: (words(name), *style) for name, style in zip(mean, styles, strict=True)}
    lines(axis, mean, labels)
    zero(axis)
    units(axis.yaxis, signed=True)
    dates_below(axis)
    return drawn


def quantiles(sheet: TearSheet) -> Figure:
    drawn, (axis,) = panels(2.1)
    table = 1e4 * sheet.quantiles
    at = np.arange(1, len(table) + 1)
    axis.bar(at, table["mean"], 0.6, color=np.where(table["mean"] < 0, DOWN, UP))
    axis.vlines(at, table["low"], table["high"], color=INK, linewidth=0.9)
    zero(axis)
    axis.set_xticks(at)
    axis.set_xlabel("parts by forecast, the largest on the right", color=GREY, fontsize=8)
    units(axis.yaxis, signed=True)
    return drawn


def spread(sheet: TearSheet) -> Figure:
    drawn, (axis,) = panels(2.1)
    total = 100 * sheet.spread.fillna(0).cumsum().rename("ours").to_frame()
    lines(axis, total, {"ours": ("", UP, "-")})
    zero(axis)
    units(axis.yaxis, signed=True)
    dates_below(axis)
    return drawn


def activity(sheet: TearSheet) -> Figure:
    drawn, (above, below) = panels(2.1, (1, 1))
    mean = sheet.activity.rolling(ACTIVITY_SESSIONS, min_periods=1).mean()
    lines(above, (mean["traded"] / 2).to_frame("turnover"), {"turnover": ("turnover", UP, "-")})
    above.set_ylim(bottom=0)
    bottom = min(sheet.activity["net"].min(), 0)
    below.set_ylim(1.1 * bottom, 1.1 * sheet.activity["gross"].max())
    lines(below, sheet.activity, {"net": ("net", GREY, "--"), "gross": ("gross", UP, "-")}, 0.2)
    for axis in (above, below):
        axis.yaxis.set_major_locator(ticks(3))
        units(axis.yaxis, 100, "%")
    dates_below(below)
    return drawn


def cost_sensitivity(sheet: TearSheet) -> Figure:
    drawn, (axis,) = panels(2.1)
    table = sheet.costs
    equal = sheet.document["equal_weight"]["annual_return"]["value"]
    axis.plot(table["paid_bp"], table["ret"], "-o", color=UP, markersize=3)
    axis.axhline(equal, color=GREY, linestyle="--", linewidth=0.9)
    beside(axis, equal, "equal weight", GREY)
    for row in table[table["multiple"].isin([1, 2, 3])].itertuples():
        axis.annotate(
            f"× {row.multiple:g}",
            (row.paid_bp, row.ret),
            xytext=(3, 3),
            textcoords="offset points",
            fontsize=8,
            color=GREY,
        )
    zero(axis)
    axis.set_xlim(left=0)
    axis.set_xlabel("paid, bp of each dollar traded", color=GREY, fontsize=8)
    units(axis.yaxis, 100, "%")
    return drawn


def value_at_risk(sheet: TearSheet) -> Figure:
    drawn, (axis,) = panels(2.1)
    table = sheet.tails
    axis.vlines(table.index, 0, table["ret"], color=GREY, alpha=0.4, linewidth=0.8)
    levels = [name for name in table if name != "ret"]
    for level, style in zip(levels, ("--", "-"), strict=True):
        axis.plot(table.index, -table[level], style, color=GREY, linewidth=0.9)
        beside(axis, -table[level].iloc[-1], f"{level:.0%}", GREY)
    worse = table[table["ret"] < -table[levels[0]]]
    axis.plot(worse.index, worse["ret"], "o", color=DOWN, markersize=3)
    axis.margins(x=0)
    zero(axis)
    units(axis.yaxis, 100, "%")
    dates_below(axis)
    return drawn


def title(sheet: TearSheet) -> str:
    """What the portfolio is."""
    setup = sheet.document["setup"]
    kind = words(setup["kind"])
    return f"{kind[0].upper()}{kind[1:]}, top {setup['k']}"


def facts(sheet: TearSheet) -> list[dict[str, str]]:
    """The four figures at the head, each with its interval and equal weight beside it."""
    ours, equal = sheet.document[sheet.name], sheet.document["equal_weight"]
    rows = []
    for key, unit in (("annual_return", "%"), ("sharpe", ""), ("max_drawdown", "%"), ("dsr", "")):
        heading, factor, decimals = MEASURES[key]
        rows.append(
            {
                "heading": heading.removesuffix(", %"),
                "value": number(ours[key]["value"], factor, decimals) + unit,
                "beside": f"95% {between(ours[key]['ci95'], factor, decimals)}; equal weight "
                f"{number(equal[key]['value'], factor, decimals)}",
            }
        )
    return rows


def measures(sheet: TearSheet) -> list[list[str]]:
    """Rows of the table of measures: heading; value and interval of the portfolio, of equal weight."""
    rows = []
    for key, (heading, factor, decimals) in MEASURES.items():
        row = [heading]
        for one in (sheet.document[sheet.name][key], sheet.document["equal_weight"][key]):
            row += [number(one["value"], factor, decimals), between(one["ci95"], factor, decimals)]
        rows.append(row)
    return rows


def portfolios(sheet: TearSheet) -> list[dict[str, Any]]:
    """A row for each portfolio that was traded, the best Sharpe ratio first."""
    found = {name: one for name, one in sheet.document.items() if "dsr" in one}
    rows = []
    sharpes = pd.Series({name: one["sharpe"]["value"] for name, one in found.items()}, dtype=float)
    for name in sharpes.sort_values(ascending=False).index:
        one = found[name]
        above = one.get("above_random", {}).get("mean_return_before_costs")
        cells = [
            number(one[key]["value"], *MEASURES[key][1:])
            for key in (
                "annual_return",
                "volatility",
                "sharpe",
                "max_drawdown",
                "turnover",
                "cost_bp",
                "break_even_bp",
                "dsr",
            )
        ]
        over = one.get("return_over_equal_weight")
        cells.insert(1, "–" if over is None else number(over["value"], 100, 1, signed=True))
        cells.append("–" if above is None else number(above, 100, 0))
        rows.append({"name": words(name), "ours": name == sheet.name, "cells": cells})
    return rows


def months(sheet: TearSheet) -> list[dict[str, Any]]:
    """A row for each year, and below it the same less equal weight: months 1 to 12 and the year.

    Of many years the second rows are left out, so that the sheet has its two pages.
    """
    by_month = sheet.monthly.assign(less=sheet.monthly["ours"] - sheet.monthly["equal"])
    by_year = sheet.annual.assign(less=sheet.annual["ours"] - sheet.annual["equal"])
    largest = float(by_month[["ours", "less"]].abs().max().max()) or 1.0
    rows = []
    for year, whole in by_year.iterrows():
        of_year = by_month[by_month.index.year == year.year]
        wide = of_year.set_axis(of_year.index.month).reindex(range(1, 13))
        for column in ("ours", "less")[: 1 + (len(by_year) <= YEARS_COMPARED)]:
            cells = [
                {
                    "text": "" if pd.isna(value) else number(value, 100, 1, signed=True),
                    "rises": value > 0,
                    "share": 0 if pd.isna(value) else round(DARKEST * abs(value) / largest),
                }
                for value in wide[column]
            ]
            rows.append(
                {
                    "year": str(year),
                    "less": column == "less",
                    "cells": cells,
                    "whole": number(whole[column], 100, 1, signed=True),
                }
            )
    return rows


def falls(sheet: TearSheet) -> list[list[str]]:
    """Rows of the table of drawdowns."""

    def day(at: Any) -> str:
        return f"{at:%Y-%m-%d}" if not pd.isna(at) else ""

    return [
        [
            number(f.depth, 100, 1),
            day(f.peak) or "the start",
            day(f.trough),
            day(f.recovered) or "not yet",
            f"{f.sessions:,}",
        ]
        for f in sheet.falls.itertuples()
    ]


@drawing()
def tear_sheet(sheet: TearSheet) -> str:
    """The whole document."""
    pictures = {
        "equity": (equity, "equity and drawdown"),
        "annual": (annual, "return by calendar year"),
        "sharpe": (rolling_sharpe, "rolling Sharpe ratio"),
        "information": (information, "rank correlation over time"),
        "quantiles": (quantiles, "return by tenth of the score"),
        "spread": (spread, "spread of the outer tenths"),
        "activity": (activity, "turnover and exposure"),
        "costs": (cost_sensitivity, "return by cost"),
    }
    if sheet.tests:
        pictures["tails"] = (value_at_risk, "sessions beyond their value at risk")
    return template("tear_sheet.html").render(
        sheet=sheet,
        title=title(sheet),
        setup=sheet.document["setup"],
        capital=compact(sheet.document["setup"]["capital"]),
        verdict=verdict(sheet),
        facts=facts(sheet),
        measures=measures(sheet),
        portfolios=portfolios(sheet),
        months=months(sheet),
        less=len(sheet.annual) <= YEARS_COMPARED,
        ic_sessions=ic_sessions(sheet),
        falls=falls(sheet),
        pictures={name: inline(draw(sheet), name, told) for name, (draw, told) in pictures.items()},
    )
