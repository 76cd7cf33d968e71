"""Commands of `pitwise` that turn forecasts into portfolios.

`pitwise.cli` finds `app` by its entry point. What does the work is imported inside the commands.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pitwise.errors import DataError
from pitwise.workspace import Workspace

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
Strategy = Literal[
    "top", "long_short", "equal_weight", "minimum_variance", "hierarchical_risk_parity", "mean_variance"
]
SHOWN = {
    "annual_return": ("a year", "+.1%"),
    "sharpe": ("Sharpe", "+.2f"),
    "max_drawdown": ("fall", ".1%"),
    "turnover": ("turnover", ".1%"),
    "cost_bp": ("cost bp", ".0f"),
    "dsr": ("DSR", ".2f"),
}
"""Measures of the table, each with its heading and its format; the document has all."""


@app.command()
def backtest(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of a table.")
    ] = False,
) -> None:
    """Trade the walk-forward's forecasts, after costs, beside equal weight and chance.

    It writes metrics/backtest.json and reports/tear_sheet.html, as `dvc repro
    walk_forward/dvc.yaml:backtest` does, by section backtest of params.yaml. The
    walk-forward has to be there.

    Example: pitwise backtest
    """
    from pitwise.decisions.backtest_stage import PAGE, write

    workspace = Workspace(Path.cwd())
    if not workspace.walk_forward_forecasts.is_file():
        raise DataError(
            f"{workspace.walk_forward_forecasts}: there are no forecasts to trade. "
            "Make them: `dvc repro walk_forward/dvc.yaml:evaluate_walk_forward`."
        )
    document = write(workspace)
    if as_json:
        print(json.dumps(document, indent=2, allow_nan=False))
    else:
        _show(document)
        print(f"the tear sheet: {PAGE}")


@app.command()
def rebalance(
    holdings: Annotated[Path, typer.Option(help="What is held: a csv with symbol and shares.")],
    out: Annotated[Path, typer.Option(help="The csv that the orders are written to.")],
    cash: Annotated[float, typer.Option(min=0.0, help="US dollars beside the holdings.")] = 0.0,
    strategy: Annotated[Strategy, typer.Option(help="Which portfolio to hold.")] = "top",
) -> None:
    """Write the orders that lead from what is held to what the newest forecasts want.

    Each with its cost, what the forecast expects of it, and what it is for.
    Limits and costs are those of section backtest of params.yaml.

    Example: pitwise rebalance --holdings h.csv --out orders.csv
    """
    from pitwise.decisions.backtest_stage import read_prices
    from pitwise.decisions.rebalance import read_holdings
    from pitwise.decisions.rebalance import rebalance as orders_of
    from pitwise.decisions.strategies import BacktestParams, sectors_of
    from pitwise.stage import load_params
    from pitwise.universe import read_sectors
    from pitwise.workspace import read_parquet, replacing

    workspace = Workspace(Path.cwd())
    params = load_params(workspace, "backtest", BacktestParams)
    held = read_holdings(holdings.expanduser())
    prices = read_prices(workspace)
    latest = read_parquet(workspace.latest_predictions)
    said = latest.set_index(latest["symbol"].astype(str))
    sectors = sectors_of(read_sectors(workspace), prices)
    sector = None if sectors is None else sectors[-1]
    orders = orders_of(prices, said, held, cash, strategy, params, sector)
    with replacing(out.expanduser().absolute()) as path:
        orders.to_csv(path, index=False, float_format="%.6g")
    bought = orders["dollars"].where(orders["side"] == "buy", -orders["dollars"]).sum()
    print(
        f"{out}: {len(orders)} orders, {orders['dollars'].sum():,.0f} dollars traded at a cost of "
        f"{orders['cost'].sum():,.0f}, which leave {cash - bought - orders['cost'].sum():,.0f} in cash; "
        f"the forecasts expect {orders['expected'].sum():,.0f} of them, "
        f"decided at the close of {prices.sessions[-1]:%Y-%m-%d}"
    )


def _show(document: dict[str, Any]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    setup = document["setup"]
    console.print(
        f"{setup['n_sessions']:,} sessions, {setup['first_session']} to {setup['last_session']}; "
        f"decided at the close, traded at the next {setup['trade_at']}, after costs"
    )
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("portfolio", no_wrap=True)
    for heading, _ in SHOWN.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for name, one in document.items():
        if "dsr" in one:
            cells = ((one[key]["value"], form) for key, (_, form) in SHOWN.items())
            table.add_row(
                name, *("-" if value is None else format(value, form) for value, form in cells)
            )
    console.print(table)
    claims = Table(box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("claim", "claimed", "measured", "95%", "short by"):
        claims.add_column(heading, justify="left" if heading == "claim" else "right", no_wrap=True)
    for name, claim in document["claims"].items():
        value, ci95, short = claim["value"], claim["ci95"], claim.get("short_by")
        claims.add_row(
            name,
            f"{claim['claimed']:.4g}",
            "-" if value is None else f"{value:.4g}",
            "-" if ci95 is None else f"{ci95[0]:.4g} to {ci95[1]:.4g}",
            "-" if short is None else f"{short:.4g}",
        )
    console.print(claims)
