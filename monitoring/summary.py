"""What a run came to, on one screen."""

from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from pitwise.registry.findings import Finding, describe
from pitwise.stage import run_stage
from pitwise.workspace import Workspace, read_json, read_parquet

STRONGEST = 5
REPORTS = (
    Workspace.quality_page,
    Workspace.overview_page,
    Workspace.week_page,
    Workspace.drift_page,
    Workspace.plots / "*.png",
    Workspace.evaluation_report,
    Workspace.quarantine,
)
"""Where to read on, in every workspace."""


def models_table(evaluation: dict[str, Any]) -> Table:
    """Each model and baseline on the same test dates."""
    title = (
        f"{evaluation['n_predictions']:,} forecasts of {evaluation['n_symbols']:,} symbols on "
        f"{evaluation['n_sessions']:,} test sessions, {evaluation['first_session']} to "
        f"{evaluation['last_session']}"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("")
    headings = [
        "price MAPE %",
        "skill vs persistence",
        "direction %",
        "95% interval",
        "Brier",
        "rank IC (t)",
    ]
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, figures in evaluation.items():
        if not isinstance(figures, dict):
            continue
        interval = figures["direction_accuracy_ci95"]
        ic, t = figures["rank_ic_mean"], figures["rank_ic_t"]
        table.add_row(
            name.replace("_", " "),
            _cell(figures["mape"], ".3f"),
            _cell(figures["skill_vs_persistence"], "+.4f"),
            _cell(figures["direction_accuracy"], ".1%"),
            "-" if interval is None else f"{interval[0]:.1%} to {interval[1]:.1%}",
            _cell(figures["brier"], ".4f"),
            _cell(ic, "+.4f") + ("" if t is None else f" ({t:+.1f})"),
        )
    return table


def forecasts_table(predictions: pd.DataFrame) -> Table:
    """The forecasts furthest from zero, for what they are worth."""
    strongest = predictions.sort_values("log_return", key=abs, ascending=False).head(STRONGEST)
    table = Table(
        title=f"the {len(strongest)} strongest forecasts for {predictions['for_session'].iloc[0]}",
        title_justify="left",
        min_width=52,
    )
    table.add_column("symbol")
    for heading in ("price", "return %", "p_up"):
        table.add_column(heading, justify="right")
    for row in strongest.itertuples():
        table.add_row(row.symbol, f"{row.price:,.2f}", f"{row.log_return * 100:+.3f}", f"{row.p_up:.3f}")
    return table


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def main(workspace: Workspace) -> None:
    clean, registration = read_json(workspace.clean_report), read_json(workspace.registration_report)
    monitoring = read_json(workspace.monitoring_report)
    console = Console(width=None if Console().is_terminal else 120, highlight=False)
    console.print(
        f"\n[bold]{clean['rows_in']:,} rows in[/] = {clean['rows_clean']:,} clean + "
        f"{clean['rows_quarantined']:,} quarantined; {clean['symbols']:,} symbols, "
        f"{clean['first_session']} to {clean['last_session']}"
    )
    for reason, count in clean["quarantined_by_reason"].items():
        console.print(f"  {count:,} {reason}")
    events = ", ".join(f"{count:,} {kind}" for kind, count in clean["events_by_kind"].items())
    console.print(f"events found in the prices: {events or 'none'}")
    console.print(models_table(read_json(workspace.evaluation_report)))
    kind, version = registration["champion_kind"], registration["champion"]
    mark = ", unproven" if registration.get("unproven") else ""
    console.print(f"[bold]champion: {registration['model']} version {version} ({kind}{mark})[/]")
    for finding in registration["findings"]:
        console.print(f"  {describe(Finding(**finding))}")
    console.print(forecasts_table(read_parquet(workspace.latest_predictions)))
    console.print(
        f"[bold]{monitoring['verdict']}[/]: {monitoring['reason']} {monitoring['todo']}\n"
        f"[bold]reports[/]: {', '.join(map(str, REPORTS))}"
    )


if __name__ == "__main__":
    run_stage(main)
