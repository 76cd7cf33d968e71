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


vault_app = typer.Typer(no_args_is_help=True, help="Bars that nothing is made on.")
app.add_typer(vault_app, name="vault")


@vault_app.command("open")
def open_vault(
    release: Annotated[str, typer.Option(help="The release that it is opened for.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of a table.")
    ] = False,
) -> None:
    """Score the champion and the baselines on the vault, once a release.

    evaluate.vault of params.yaml says where it is. Each opening is a line of
    ledger/vault.jsonl. Opened again by the same champion it shows that line;
    another champion is refused until the next release.

    Example: pitwise vault open --release 1.4.0
    """
    from training.vault import open_vault as opened

    entry = opened(Workspace(Path.cwd()), release)
    if as_json:
        print(json.dumps(entry, indent=2, allow_nan=False))
    else:
        print(f"release {entry['release']}, opened {entry['at']} by {entry['by']}")
        _show(entry["report"])


@app.command()
def lookahead(
    target: Annotated[
        str, typer.Argument(help="A function: module:function, or file.py:function.", metavar="TARGET")
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="Prices, as source csv reads them. Default: this workspace's clean bars."),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="Events for the function's second argument: symbol,date,kind,value,known_at."),
    ] = None,
    cuts: Annotated[
        int, typer.Option(min=1, help="Sessions after which the future is taken away.")
    ] = 12,
    tolerance: Annotated[
        float, typer.Option(min=0.0, help="Relative change of a value that is rounding.")
    ] = 1e-6,
    seed: Annotated[int, typer.Option(min=0, help="Draws the sessions.")] = 7,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of a table.")
    ] = False,
) -> None:
    """Look for what a feature or a signal of yours knows too early.

    The function takes a DataFrame of bars (symbol, timestamp, open, high, low,
    close, volume) and returns a Series or a DataFrame with the same index. It is
    run on all bars and on bars that end earlier: what it said of the past must
    not change. Exit code 1: it does.

    Example: pitwise lookahead my_signals.py:momentum

    One that passes: pitwise lookahead pitwise.evaluation.lookahead:indicators
    """
    from pitwise.bars.basis import on_first_basis
    from pitwise.bars.sources.calendar_files import csv_events
    from pitwise.bars.sources.csv_files import csv_bars
    from pitwise.evaluation import lookahead as checks
    from pitwise.workspace import read_parquet

    workspace = Workspace(Path.cwd())
    for path in (data, table):
        if path is not None and not path.expanduser().exists():
            raise DataError(f"{path}: there is no such file or folder.")
    if data is None:
        bars = checks.as_bars(on_first_basis(read_parquet(workspace.clean_bars)))
    else:
        bars = checks.as_bars(csv_bars(data.expanduser().absolute()))
    events = None if table is None else csv_events(table.expanduser())
    signal = checks.load_signal(target, Path.cwd())
    answer = checks.lookahead(signal, bars, events, cuts, tolerance, seed)
    if as_json:
        document = {"target": target, "passed": not answer.findings, **answer._asdict()}
        document["findings"] = [one._asdict() for one in answer.findings]
        print(json.dumps(document, indent=2, allow_nan=False))
    else:
        _show_findings(target, answer)
    if answer.findings:
        raise typer.Exit(1)


@app.command()
def search(
    kind: Annotated[
        str,
        typer.Option(help="Of gradient_boosting, ann, lstm, transformer; see params.yaml's search."),
    ],
    trials: Annotated[
        int | None,
        typer.Option(min=1, help="In all, those of a search that was stopped included [search.trials]."),
    ] = None,
) -> None:
    """Look for params that forecast better, on the training dates alone.

    Each trial is fitted and judged in inner folds, by its rank IC; no session of
    the walk-forward or the test takes part. Run again, it goes on where it was
    stopped. It prints what is best and writes no params.yaml. Each trial counts
    in the ledger: the best of many looks better than it is.

    Example: pitwise search --kind gradient_boosting --trials 30
    """
    from training.search import search as searched
    from training.search_space import as_command, as_yaml

    try:
        found = searched(Workspace(Path.cwd()), kind, trials)
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on with what is finished", err=True)
        raise typer.Exit(130) from None
    best = found.best

    def told(tried: Any) -> str:
        t = "" if tried.rank_ic_t is None else f" (t {tried.rank_ic_t:.1f})"
        return f"rank IC {tried.rank_ic_mean:+.4f}{t} over {tried.n_sessions:,} sessions"

    typer.echo(f"best of {found.finished:,} trials, {found.pruned:,} of them pruned: {told(best)}")
    if found.first is not None:
        typer.echo(f"params.yaml as it is: {told(found.first)}")
    typer.echo("The best of many looks better than it is: the walk-forward says what it is worth.\n")
    typer.echo(f"{as_yaml(best.values)}\n\n{as_command(best.values)}")


def _show_findings(target: str, answer: Any) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    from pitwise.evaluation.lookahead import SAYS

    console = Console(highlight=False)
    tried = f"{len(answer.columns)} columns, the future taken away after {len(answer.cuts)} sessions"
    if not answer.findings:
        console.print(f"{target} does not look ahead: {tried}")
        return
    console.print(f"{target} looks ahead: {tried}")
    table = Table(box=SIMPLE, pad_edge=False)
    for heading in ("check", "column", "symbol", "session", "cut after"):
        table.add_column(heading, no_wrap=heading in ("session", "cut after"), overflow="fold")
    for heading in ("with all", "then", "rows"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in answer.findings:
        values = ("-" if value is None else f"{value:.4g}" for value in (one.now, one.then))
        table.add_row(
            one.check,
            one.column,
            one.symbol or "-",
            one.session or "-",
            one.cut or "-",
            *values,
            str(one.rows),
        )
    console.print(table)
    for check in dict.fromkeys(one.check for one in answer.findings):
        console.print(f"{check}: {SAYS[check]}")


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
