"""The command of `pitwise` that tells what to do with the newest forecasts.

`pitwise.cli` finds `app` by its entry point. What does the work is imported inside the command.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pitwise.errors import DataError
from pitwise.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


@app.command()
def signals(
    symbols: Annotated[
        list[str] | None, typer.Argument(help="Tickers, as the data has them. Default: all.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many of all, BUY and SELL first.")] = 20,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of a table.")
    ] = False,
) -> None:
    """What to buy or sell at the newest close, how sure that is, and where to get out.

    BUY and SELL are those whose expected return pays its cost, and whose
    probability, calibrated on earlier forecasts, says so too. They are made
    anew where the forecasts are newer than data/predictions/signals.parquet.

    Example: pitwise signals AAPL MSFT
    """
    from pitwise.decisions import signals_stage
    from pitwise.workspace import read_json, read_parquet

    workspace = Workspace(Path.cwd())
    path = workspace.root / signals_stage.SIGNALS.path
    if _is_older(path, workspace):
        report = signals_stage.main(workspace)
    else:
        report = read_json(workspace.root / signals_stage.REPORT.path)
    table = read_parquet(path)
    if symbols:
        if unknown := [symbol for symbol in symbols if symbol not in set(table["symbol"])]:
            raise DataError(f"there is no forecast of {', '.join(unknown)}: `pitwise predict` says why.")
        table = table.set_index("symbol").loc[list(dict.fromkeys(symbols))].reset_index()
    else:
        table = table.head(top)
    if as_json:
        rows = json.loads(table.to_json(orient="records", date_format="iso"))
        print(json.dumps(report | {"signals": rows}, indent=2, allow_nan=False))
    else:
        _show(report, table)


def _is_older(path: Path, workspace: Workspace) -> bool:
    """Whether signals are not there, or older than what they are made of."""
    sources = (workspace.latest_predictions, workspace.walk_forward_forecasts)
    newest = max((source.stat().st_mtime for source in sources if source.exists()), default=0.0)
    return not path.exists() or path.stat().st_mtime < newest


def _show(report: dict[str, Any], signals: "pd.DataFrame") -> None:
    from rich.console import Console
    from rich.table import Table

    from pitwise.reports.decisions import record_lines, turn_lines

    console = Console(highlight=False)
    counts, rows = report["counts"], signals.to_dict("records")
    console.print(
        f"After {report['as_of']}, for {report['for_session']}: {counts['BUY']:,} BUY, "
        f"{counts['SELL']:,} SELL, {counts['HOLD']:,} HOLD. sure: calibrated "
        "probability of the direction; prices in dollars; expected return, and cost of a round trip, "
        "in basis points."
    )
    table = Table("symbol", "signal", box=None, padding=(0, 1, 0, 0))
    for name in ("sure", "close", "target", "stop", "profit", "expected", "cost"):
        table.add_column(name, justify="right")
    for row in rows:
        prices = (row[name] for name in ("last_close", "target", "stop_loss", "take_profit"))
        table.add_row(
            row["symbol"],
            row["signal"],
            _number(row["confidence"], ".1%"),
            *(_number(price, ",.2f") for price in prices),
            _number(1e4 * row["expected_return"], "+.1f"),
            _number(1e4 * row["expected_cost"], ".1f"),
        )
    console.print(table)
    for row in rows:
        notes = [row["reason"], row["reversals"].replace("_", " ").replace(",", ", ")]
        if any(notes):
            console.print(f"{row['symbol']}: {'; '.join(filter(None, notes))}")
    for line in [*record_lines(report), *turn_lines(report, signals)]:
        console.print(line)
    if (mood := report["sentiment"]["sentiment"]) is not None:
        console.print(f"market sentiment {mood:.0f} of 100 (0 fear, 100 greed)")


def _number(value: float, spec: str) -> str:
    return "" if value != value else format(value, spec)
