"""What an evening's page says of what to do: signals, what to look at, the market's mood, the risk."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

SHOWN = 10
"""Signals that are seen without opening the rest."""
SESSIONS = 252
"""Of the sentiment's line."""
MINUS = "\u2212"


@dataclass(frozen=True)
class Decisions:
    """What stages `signals` and `risk` say of the newest session."""

    signals: pd.DataFrame
    """As `data/predictions/signals.parquet` has it."""
    report: Mapping[str, Any]
    """As `metrics/signals.json` has it."""
    sentiment: pd.Series
    """0 to 100 by session, oldest first; NaN where it is not known."""
    risk: Mapping[str, Any]
    """As `metrics/risk.json` has it; empty where there is none."""


class SignalRow(NamedTuple):
    """A BUY or SELL as the page shows it."""

    symbol: str
    signal: str
    confidence: str
    close: str
    target: str
    interval: str
    stop: str
    profit: str
    expected: str
    cost: str
    turns: str


def signal_rows(signals: pd.DataFrame) -> list[SignalRow]:
    """The BUY and SELL, in the table's order, as text."""
    acted = signals[signals["signal"] != "HOLD"]
    return [
        SignalRow(
            symbol=row.symbol,
            signal=row.signal,
            confidence=f"{100 * row.confidence:.1f}",
            close=f"{row.last_close:,.2f}",
            target=f"{row.target:,.2f}",
            interval=f"{row.target_low:,.2f} to {row.target_high:,.2f}",
            stop=f"{row.stop_loss:,.2f}",
            profit=f"{row.take_profit:,.2f}",
            expected=f"{1e4 * row.expected_return:+.1f}".replace("-", MINUS),
            cost=f"{1e4 * row.expected_cost:.1f}",
            turns=row.reversals.replace("_", " ").replace(",", ", "),
        )
        for row in acted.itertuples()
    ]


def lead(decisions: Decisions, in_doubt: int) -> str:
    """What to do, in one sentence, and how many symbols a person must look at.

    Args:
        in_doubt: symbols without a signal whose newest bar is suspect.
    """
    counts, n = decisions.report["counts"], len(decisions.signals)
    acted = counts["BUY"] + counts["SELL"]
    if acted:
        text = (
            f"{counts['BUY']:,} to buy and {counts['SELL']:,} to sell of {n:,}: expected to earn more "
            "than a round trip costs, with the calibrated probability on their side."
        )
        past = [one["net_ci95"] for one in (decisions.report["record"] or {}).values()]
        if not any(ends and ends[0] > 0 for ends in past):
            text += " That such signals earn their cost is not shown."
    else:
        text = f"Nothing to buy or sell: no return expected of {n:,} symbols surely pays its cost."
    look = acted + in_doubt
    doubt = f", {in_doubt:,} of them in doubt" if in_doubt else ""
    return f"{text} {look:,} to look at{doubt}, {n - acted:,} to leave."


def record_lines(report: Mapping[str, Any]) -> list[str]:
    """What signals like these came to before, and how far the confidence could be believed."""
    lines = []
    for name, past in (report["record"] or {}).items():
        if past["net_ci95"]:
            low, high = past["net_ci95"]
            lines.append(
                f"{name} before: {past['count']:,} in {past['sessions']:,} sessions, right in "
                f"{100 * past['hit_rate']:.1f}% (all symbols then: {100 * past['base_rate']:.1f}%); "
                f"each earned {past['net_bp']:+.1f} bp after its cost, {low:+.1f} to {high:+.1f} "
                f"(all symbols, before costs: {past['base_bp']:+.1f})."
            )
    if tenths := report["reliability"]["calibrated"]:
        top = tenths[-1]
        ends = f", {100 * top['ci95'][0]:.1f} to {100 * top['ci95'][1]:.1f}" if top["ci95"] else ""
        lines.append(
            f"Confidence before: of the rises called surest, at {100 * top['said']:.1f}%, "
            f"{100 * top['came']:.1f}% came{ends}."
        )
    if calibration := report["calibration"]:
        lines.append(
            f"All measured on forecasts of the {calibration['source']}, "
            f"{calibration['first_session']} to {calibration['last_session']}, each quarter's "
            "probability calibrated on those before."
        )
    return [line.replace(" -", f" {MINUS}") for line in lines]


def turn_lines(report: Mapping[str, Any], signals: pd.DataFrame) -> list[str]:
    """How often each trend reversal flag of these signals was right before, one session ahead."""
    flagged = {flag for flags in signals["reversals"] for flag in flags.split(",")}
    told = []
    for row in report["reversals"]:
        name = f"{row['flag']}_{row['direction']}"
        if name in flagged and row["horizon"] == 1 and row["ci95"]:
            low, high = (100 * end for end in row["ci95"])
            told.append(
                f"{name.replace('_', ' ')} right in {100 * row['hit_rate']:.1f}% of {row['count']:,} "
                f"({low:.1f} to {high:.1f}; all symbols {100 * row['base_rate']:.1f}%)"
            )
    return [f"Turns before, the next session: {'; '.join(told)}."] if told else []


def sentiment_path(sentiment: pd.Series, width: float, height: float) -> str:
    """The last year's line as points of an SVG polyline, 0 at the bottom; "" for fewer than two."""
    known = sentiment.dropna().tail(SESSIONS).to_numpy(float)
    if len(known) < 2:
        return ""
    x = np.linspace(0, width, len(known))
    y = height * (1 - known / 100)
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def risk_lines(risk: Mapping[str, Any]) -> list[str]:
    """Value at risk of a session by history, beside its back-test, of each portfolio."""
    lines = []
    for key, name in (("holdings", "What is held"), ("equal_weight", "Equal weights")):
        report = risk.get(key)
        if not report:
            continue
        if "why" in report:
            lines.append(f"{name}: not told, {report['why']}")
            continue
        said = []
        for row in report["var"]:
            if row["method"] == "historical" and row["horizon"] == 1:
                test = row["backtest"]
                past = (
                    f" ({test['exceptions']} exceptions in {test['sessions']} sessions before, "
                    f"{test['expected']:.1f} expected)"
                    if test
                    else " (untested)"
                )
                said.append(f"{100 * row['var']:.2f}% at {100 * row['level']:.0f}%{past}")
        lines.append(
            f"{name}, {report['holdings']:,} holdings: value at risk of a session "
            f"{', '.join(said)}; beta {report['beta']:.2f}, deepest fall "
            f"{100 * abs(report['drawdown']['depth']):.1f}%."
        )
    return lines


def shown(decisions: Decisions, in_doubt: int) -> dict[str, Any]:
    """What `decisions.html` puts in its places; see `lead` for the argument."""
    acted = decisions.signals[decisions.signals["signal"] != "HOLD"]
    return {
        "to_do": lead(decisions, in_doubt),
        "acts": signal_rows(decisions.signals),
        "acts_shown": SHOWN,
        "target_interval": f"{100 * decisions.report['rules']['interval']:.0f}",
        "record": [
            *record_lines(decisions.report),
            *turn_lines(decisions.report, acted.head(SHOWN)),
        ],
        "mood": decisions.report["sentiment"],
        "mood_line": sentiment_path(decisions.sentiment, 240, 48),
        "risks": risk_lines(decisions.risk),
    }
