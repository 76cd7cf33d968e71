"""Commands of `pitwise` that judge forecasts.

`pitwise.cli` finds `app` by its entry point. What does the work is imported inside the commands.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pitwise.errors import DataError
from pitwise.workspace import Workspace

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
SHOWN = {
    "rank_ic_mean": ("rank IC", "+.4f"),
    "rank_ic_t": ("t", ".1f"),
    "rank_ic_mean_open": ("at open", "+.4f"),
    "rank_ic_t_open": ("t", ".1f"),
    "hit_rate_median": ("hits", ".1%"),
    "break_even_bp": ("bp", ".1f"),
    "mape": ("MAPE", ".3f"),
    "brier": ("Brier", ".4f"),
}
"""Figures of the table, each with its heading and its format; the document has all."""


@app.command()
def evaluate(
    data: Annotated[
        Path, typer.Option(help="Prices, as source csv reads them: a file or a folder of files.")
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of a table.")
    ] = False,
) -> None:
    """Score the champion and the baselines on bars that they have never seen.

    Nothing is fitted on them. Sessions that the champion was fitted on are left
    out, whatever market they are of. Each figure close to close, and open to
    open, which a person could have traded.

    Example: pitwise evaluate --data later_years.csv.gz
    """
    from training.unseen import evaluate as evaluated

    path = data.expanduser().absolute()
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder. Name the one with the prices.")
    report = evaluated(Workspace(Path.cwd()), path)
    if as_json:
        print(json.dumps(report, indent=2, allow_nan=False))
    else:
        _show(report)


def _show(report: dict[str, Any]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    champion, of_champion = report["champion"], report["figures"]["champion"]
    console = Console(highlight=False)
    console.print(
        f"champion: version {champion['version']} ({champion['kind']}), fitted up to "
        f"{champion['fitted_last_session']}\n{of_champion['n_predictions']:,} forecasts of "
        f"{report['n_symbols']:,} symbols in {of_champion['n_sessions']:,} sessions, "
        f"{report['first_session']} to {report['last_session']}; left out are "
        f"{report['sessions_left_out']:,} sessions that the champion has seen"
    )
    table = Table(box=SIMPLE, pad_edge=False)
    table.add_column("forecast", no_wrap=True)
    for heading, _ in SHOWN.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for name, figures in report["figures"].items():
        cells = ((figures[key], form) for key, (_, form) in SHOWN.items())
        table.add_row(name, *("-" if value is None else format(value, form) for value, form in cells))
    console.print(table)
    console.print(
        "at open: from the next session's open on; hits: on the side of the session's median that the "
        "forecast says; bp: cost for each unit traded that leaves nothing; MAPE in percent"
    )
    for name, difference in report["paired"].items():
        if difference["difference"] is not None:
            low, high = difference["ci95"]
            console.print(
                f"rank IC less {name}'s: {difference['difference']:+.4f} (95% {low:+.4f} to {high:+.4f})"
            )
    for name, why in report["left_out"].items():
        console.print(f"{name} is left out: {why}")
