"""Stage `risk`: what equal weights of the whole market, and what is held, can lose."""

from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field

from pitwise.decisions.holdings import STALE, Market, market, read_weights
from pitwise.decisions.risk import LEAST, risk_report
from pitwise.errors import DataError
from pitwise.stage import Params, load_params, run_stage
from pitwise.workspace import Artifact, Workspace, write_json

REPORT = Artifact("metrics/risk.json")
LARGEST = 20
"""Holdings in the document, those that add most to the risk."""


class RiskParams(Params):
    holdings: str | None
    """A csv with the columns symbol and shares, or symbol and weight; None: the market alone."""
    window: int = Field(ge=LEAST)
    """Sessions behind a value at risk."""


def main(workspace: Workspace) -> None:
    """Write `risk_report` of each portfolio, or `why` its risk cannot be told.

    Raises:
        DataError: there are no bars.
        StoreError: arch is not installed.
    """
    params = load_params(workspace, "risk", RiskParams)
    found = market(workspace)
    document: dict[str, Any] = {"equal_weight": equal_weight(found, params.window), "holdings": None}
    if params.holdings:
        document["holdings"] = holdings(found, workspace.path(params.holdings), params.window)
    write_json(document, workspace.root / REPORT.path)
    for name, report in document.items():
        if report:
            print(f"{name}: {report.get('why') or _line(report)}", flush=True)


def equal_weight(found: Market, window: int) -> dict[str, Any]:
    """The report of equal weights of symbols that trade and have the history, or `why` there is none.

    A portfolio's history is that of its youngest holding, so symbols without the sessions of one window
    and of a back-test after it are left out; `left_out` says how many.
    """
    returns = found.returns
    there = returns.notna().to_numpy()
    trades = there[-STALE:].any(axis=0)
    sessions = len(returns) - there.argmax(axis=0)
    held = returns.columns[trades & (sessions >= min(window + LEAST, sessions.max()))]
    try:
        report = risk_report(returns, pd.Series(1 / len(held), index=held), window=window)
    except DataError as error:
        return {"why": str(error)}
    return _short(report) | {"left_out": int(trades.sum()) - len(held)}


def holdings(found: Market, path: Path, window: int) -> dict[str, Any]:
    """The report of what a file says is held; or `why` there is none, such as a stock that is gone.

    It does not keep an evening from its page, which shows the reason.
    """
    try:
        weights, value = read_weights(path, found.close)
        return _short(risk_report(found.returns, weights, value or 1.0, window=window))
    except DataError as error:
        return {"why": str(error)}


def _short(report: dict[str, Any]) -> dict[str, Any]:
    """Without the matrix, and with the largest contributions alone."""
    correlation = {name: value for name, value in report["correlation"].items() if name != "matrix"}
    return report | {"correlation": correlation, "contributions": report["contributions"][:LARGEST]}


def _line(report: dict[str, Any]) -> str:
    row = next(row for row in report["var"] if row["method"] == "historical" and row["horizon"] == 1)
    return (
        f"{report['holdings']:,} holdings, value at risk of a session {row['var']:.2%} at "
        f"{row['level']:.0%}"
    )


if __name__ == "__main__":
    run_stage(main)
