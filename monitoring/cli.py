"""Commands of `pitwise` that watch what was served.

`pitwise.cli` finds `app` by its entry point. What does the work is imported inside the commands.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from pitwise.workspace import Workspace

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


@app.command()
def report(
    week: Annotated[
        str | None,
        typer.Option(help="ISO year and week, such as 2017-W45. Default: that of the newest bars."),
    ] = None,
    backfill: Annotated[
        bool, typer.Option("--backfill", help="Report all weeks up to it, too, that have a reference.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the document instead of the verdict.")
    ] = False,
) -> None:
    """Report a week: is the model still right, and has the market changed?

    Writes reports/week.html, reports/drift.html and metrics/monitoring.json,
    and tells who monitor.alert names where the week is not ok. The exit code
    is 0 for ok, 3 for warn, 4 for act; 1 if something failed.

    Example: pitwise report --week 2017-W45
    """
    from monitoring.findings import EXIT
    from monitoring.follow_up import follow_up
    from monitoring.report import backfill as report_all
    from monitoring.report import newest_week
    from monitoring.report import report as report_one
    from monitoring.weeks import Week

    workspace = Workspace(Path.cwd())
    wanted = Week.named(week) if week else newest_week(workspace)
    if backfill:
        for past in report_all(workspace, wanted.before()):
            print(f"{past['verdict']:4} {past['reason']}")
    document = report_one(workspace, wanted)
    if as_json:
        print(json.dumps(document, indent=2, allow_nan=False))
    else:
        print(
            f"{document['verdict']}: {document['reason']}\n{document['todo']}\nSee {workspace.week_page}"
        )
    follow_up(workspace, document)
    raise typer.Exit(EXIT[document["verdict"]])
