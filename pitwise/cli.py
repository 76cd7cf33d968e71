"""The command `pitwise`: makes and runs workspaces; other packages add their commands.

Their commands come by the entry points of group `pitwise.commands`, each a `typer.Typer`. What does
the work is imported inside the commands: pandas, MLflow and Feast take seconds, and `--help` must not.
"""

import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Literal

import typer

from pitwise import __version__
from pitwise.errors import StoreError, one_line, shown_as_message
from pitwise.extras import require

GROUP = "pitwise.commands"
Source = Literal["sample", "csv", "yfinance", "synthetic"]

app = typer.Typer(
    name="pitwise",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Point-in-time-wise forecasts of a stock market from daily bars. Run it in a workspace: a "
    "folder that `pitwise init` made, or the project's root. Settings come from its params.yaml.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"pitwise {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    extra = (context.obj or {}).get(context.invoked_subcommand)
    if extra and "--help" not in sys.argv:
        require(extra, f"pitwise {context.invoked_subcommand}")


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder, or a workspace made before.")],
) -> None:
    """Make a workspace: params, the pipeline and the store's settings, without a copy of the code.

    In one that is there already the pipeline (dvc.yaml) is brought up to the
    installed version; params, data and results stay as they are.

    Example: pitwise init my-desk
    """
    from pitwise.init import new_workspace

    made = new_workspace(folder)
    print(f"workspace {made.root}: settings in params.yaml; `pitwise run` in it runs the pipeline")


@app.command()
def run(
    source: Annotated[
        Source | None,
        typer.Option(help="Run in runs/NAME on these bars. Default: run this workspace as it is."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="csv: a file or folder of prices. yfinance: a file of tickers, one a line."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the workspace below runs. Default: the source.")
    ] = None,
) -> None:
    """Run the whole pipeline, from bars to forecasts and reports, and print the summary.

    Only what a change affects runs: a second run takes seconds. The first
    takes minutes on two cores: about two for the sample's five stocks, with
    1 GB of memory and 0.05 GB of disk; about four for 500 stocks over four
    years, with 2 GB of memory and 0.6 GB of disk. Only source yfinance needs
    the network. Bars are loaded where none have landed yet, and where a
    source is named; `pitwise load` brings later ones.

    With a source, the run has a workspace of its own, runs/NAME: the params
    of this one, pointed at that source; its own store, registry and reports.

    Example: pitwise run --source csv --data my_prices.csv.gz
    """
    from pitwise.init import is_made, new_workspace, run_below
    from pitwise.load import described, load, load_where_nothing_landed
    from pitwise.pipeline import require_workspace, run_pipeline
    from pitwise.workspace import Workspace

    workspace = Workspace(Path.cwd())
    if source:
        workspace = run_below(workspace, name or source, source, data)
        print(f"workspace {workspace.root}: params, store, registry and reports of its own", flush=True)
    elif data or name:
        raise typer.BadParameter("--data and --name go with --source.")
    else:
        require_workspace(workspace)
        if is_made(workspace):
            new_workspace(workspace.root)
    if source:
        print(described(load(workspace)), flush=True)
    else:
        load_where_nothing_landed(workspace)
    run_pipeline(workspace)


@app.command("load")
def load_bars(
    source: Annotated[Source | None, typer.Option(help="Default: load.source of params.yaml.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="csv: a file or folder of prices. yfinance: a file of tickers, one a line."),
    ] = None,
    covers: Annotated[
        str | None,
        typer.Option(
            metavar="FIRST:LAST",
            help="Days that the delivery holds whole: a bar that the source had there and that is "
            "absent now is withdrawn. Default: each symbol's first day to its last.",
        ),
    ] = None,
    history: Annotated[
        Literal["assumed", "observed"] | None,
        typer.Option(
            help="assumed: each bar was known as its session closed. observed: it is known from now on. "
            "Default: the first load of a workspace is assumed, later ones are observed."
        ),
    ] = None,
    actions: Annotated[
        Path | None,
        typer.Option(
            help="A CSV of splits, dividends, spin-offs. Without --source and --data it comes alone."
        ),
    ] = None,
) -> None:
    """Bring a source's bars in: they land in data/landing, and no later load changes them.

    Only what differs from what the source said before is news. A symbol that
    is not in a load withdraws nothing. `pitwise run` brings the results up.

    Example: pitwise load --source csv --data tonight.csv
    """
    from pitwise.bars.actions import FEED
    from pitwise.bars.landing import landings_of
    from pitwise.load import days_of, described, load, load_actions
    from pitwise.workspace import Workspace

    workspace = Workspace(Path.cwd())
    days = days_of(covers) if covers else None
    if actions and not (source or data):
        print(described(load_actions(workspace, actions, days, history)))
        return
    print(described(load(workspace, source, data, days, history, actions=actions)))
    if actions:
        print(described(landings_of(workspace, FEED)[-1]))


@app.command("reconcile")
def reconcile_bars(
    a: Annotated[
        Path | None,
        typer.Argument(
            metavar="A",
            help="A file or folder of prices, as source csv reads, or a workspace; . is this one.",
        ),
    ] = None,
    b: Annotated[
        Path | None, typer.Argument(metavar="B", help="The other; none of the two: see above.")
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            min=0, max=0.1, help="Relative difference up to which prices agree; half a cent always does."
        ),
    ] = 0.001,
) -> None:
    """Compare two sources of bars, symbol by symbol and session by session.

    A price that stands in both was traded; of one that stands in one alone it
    says whose fault it is, where that can be told. The levels may differ by a
    factor: one vendor adjusts for splits or spin-offs, the other does not. Where
    the factor steps is listed. Without A and B, this workspace's bars are
    compared with clean.reference of params.yaml; `pitwise run` ends with that.

    Writes reports/reconciliation.html, metrics/reconciliation.json and
    data/quality/reconciliation.parquet below this folder. A market of 500
    stocks over four years takes seconds.

    Example: pitwise reconcile my_prices.csv.gz second_vendor.csv
    """
    from pitwise.reconcile import reconcile
    from pitwise.workspace import Workspace

    if (a is None) != (b is None):
        raise typer.BadParameter("two sources are needed, A and B, or none.")
    reconcile(Workspace(Path.cwd()), a, b, tolerance)


def add_commands(app: typer.Typer, points: list[EntryPoint]) -> dict[str, str]:
    """Add other packages' commands to an app.

    A package that cannot be imported gets one command of its own name, which shows why.

    Returns:
        the package of each command, by the command's name; its extra has the same name.
    """
    owners: dict[str, str] = {}
    for point in points:
        try:
            commands = point.load()
        except ImportError as error:
            commands = _unavailable(point.name, error)
        app.add_typer(commands)
        named = [c.name or c.callback.__name__ for c in commands.registered_commands if c.callback]
        named += [group.name for group in commands.registered_groups if group.name]
        owners |= dict.fromkeys(named, point.name)
    return owners


def _unavailable(package: str, error: ImportError) -> typer.Typer:
    app = typer.Typer()

    @app.command(package, help="Not installed, or only in part.")
    def command() -> None:
        raise StoreError(
            f"pitwise {package}: cannot be loaded ({one_line(error)}). Install what it needs."
        )

    return app


def main() -> None:
    """Run the command that the shell gave. An error a person can mend is one line and exit code 1."""
    points = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    owners = add_commands(app, points)
    with shown_as_message():
        app(obj=owners)


if __name__ == "__main__":
    main()
