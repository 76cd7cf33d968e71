"""The command of `pitwise` that tells a portfolio's risk.

`pitwise.cli` finds `app` by its entry point. What does the work is imported inside the command.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pitwise.workspace import Workspace

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


@app.command()
def risk(
    weights: Annotated[
        Path | None,
        typer.Option(help="A csv with columns symbol and weight, or symbol and shares."),
    ] = None,
    symbol: Annotated[str | None, typer.Option(help="One stock in place of a portfolio.")] = None,
    value: Annotated[
        float | None, typer.Option(help="Of the portfolio, in dollars. Default: 1, or of the shares.")
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            min=250, help="Sessions behind a value at risk. Default: risk.window of params.yaml."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of tables.")
    ] = False,
) -> None:
    """What a portfolio, or one stock, can lose, and whether that was right before.

    Value at risk and expected shortfall by four methods, each beside its
    back-test; drawdown, volatility to come, betas, clusters, what each holding
    adds, and falls of the past. From this workspace's clean bars. Where weights
    sum to 0, losses are shares of the gross exposure.

    Example: pitwise risk --weights w.csv --value 1e6
    """
    import pandas as pd

    from pitwise.decisions.holdings import market, read_weights
    from pitwise.decisions.risk import risk_report
    from pitwise.decisions.risk_stage import RiskParams
    from pitwise.stage import load_params

    if (weights is None) == (symbol is None):
        raise typer.BadParameter("one of --weights and --symbol is needed.")
    workspace = Workspace(Path.cwd())
    window = window or load_params(workspace, "risk", RiskParams).window
    found = market(workspace)
    if weights is not None:
        held, worth = read_weights(weights.expanduser(), found.close)
        if worth is not None and value is not None:
            raise typer.BadParameter("--value goes with weights; shares have a value of their own.")
    else:
        held, worth = pd.Series({symbol: 1.0}), None
    if worth is None:
        worth = 1.0 if value is None else value
    report = risk_report(found.returns, held, worth, window=window)
    if as_json:
        print(json.dumps(report, indent=2, allow_nan=False))
    else:
        _show(report)


def _show(report: dict[str, Any]) -> None:
    """The figures that a person looks at first; the document has all."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(
        f"{report['holdings']} holdings worth {report['value']:,.2f}, {report['sessions']} sessions "
        f"{report['first_session']} to {report['as_of']}; losses as a share "
        "of it; exceptions of the back-test with Kupiec's p"
    )
    table = Table("method", "level", "VaR", "ES", "exceptions", "p", "light", "10 days", "ES", box=None)
    longer = {(row["method"], row["level"], row["by"]): row for row in report["var"]}
    for row in report["var"]:
        if row["by"] == "scaling":
            continue
        test = row["backtest"] or {}
        long = row if row["by"] == "simulation" else longer[row["method"], row["level"], "scaling"]
        table.add_row(
            ("simulated" if row["by"] == "simulation" else row["method"].replace("_", "-"))
            + (" *" if row["fallback"] else ""),
            f"{row['level']:.0%}",
            *(("", "") if row is long else (f"{row['var']:.2%}", f"{row['es']:.2%}")),
            f"{test['exceptions']}/{test['sessions']}" if test else "",
            f"{test['kupiec_p']:.2f}" if test else "",
            test.get("traffic_light", ""),
            f"{long['var']:.2%}",
            f"{long['es']:.2%}",
        )
    console.print(table)
    for why in sorted({row["fallback"] for row in report["var"] if row["fallback"]}):
        console.print(f"* {why}")
    for name, why in sorted({(row["by"], row["untested"]) for row in report["var"] if row["untested"]}):
        console.print(f"untested, by {name}: {why}")
    fell, models = report["drawdown"], report["volatility"]["models"]
    console.print(
        f"maximum drawdown {fell['depth']:.1%}, at {fell['trough']}; under water for up to "
        f"{fell['longest_under_water']} sessions, now {fell['under_water_now']}\n"
        f"volatility a year, next session: "
        + ", ".join(f"{model['model']} {model['annual'][0]:.1%}" for model in models)
        + f"\nbeta {report['beta']:.2f}"
        + (f", diversification ratio {ratio:.2f}" if (ratio := report["diversification_ratio"]) else "")
    )
    fan = report["volatility"]["fan"]
    ends = zip(fan["quantiles"], (band[-1] for band in fan["returns"]), strict=True)
    console.print(
        f"return over {len(fan['returns'][0])} sessions by {fan['model']}, quantiles: "
        + ", ".join(f"{quantile:.0%} {value:+.1%}" for quantile, value in ends)
    )
    table = Table("holding", "weight", "volatility", "beta", "share of risk", box=None)
    for row in report["contributions"][:10]:
        shown = (f"{row[name]:.1%}" for name in ("weight", "volatility"))
        table.add_row(row["symbol"], *shown, f"{row['beta']:.2f}", f"{row['share']:.1%}")
    console.print(table)
    table = Table("stress", "market", "portfolio", box=None)
    for episode in report["stress"]["episodes"]:
        if episode["untested"] is None:
            table.add_row(episode["name"], f"{episode['market']:.1%}", f"{episode['return']:.1%}")
        else:
            table.add_row(episode["name"], "", episode["untested"])
    for shock in report["stress"]["shocks"]:
        table.add_row("market falls", f"{shock['market']:.0%}", f"{shock['return']:.1%}")
    console.print(table)
    if report["stress"]["factors"]:
        table = Table("factor, worst 20 sessions", "beta", "factor", "portfolio", box=None)
        for row in report["stress"]["factors"]:
            shown = (f"{row[name]:+.1%}" for name in ("move", "return"))
            table.add_row(row["factor"], f"{row['beta']:.2f}", *shown)
        console.print(table)
    for note in report["notes"]:
        console.print(note)
