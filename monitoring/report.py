"""Stage `monitor` and `pitwise report`: is the model still right, and has the market changed?"""

from typing import Any

import numpy as np

from monitoring.features import watched_rows
from monitoring.findings import Finding
from monitoring.judge import Judged, again, judge
from monitoring.material import Material, read_material
from monitoring.rerun import NOT_RUN, rerun
from monitoring.service import ERRORS_SHARE, of_week, since_start
from monitoring.settings import LogParams, MonitorParams
from monitoring.sketch import WITHIN
from monitoring.thresholds import OVER_A_MONTH
from monitoring.weeks import Week
from pitwise.errors import PitwiseError, StoreError, one_line
from pitwise.evaluation.sessions import SESSION
from pitwise.registry.prediction_log import open_log
from pitwise.stage import load_params, run_stage
from pitwise.workspace import (
    Artifact,
    Workspace,
    read_json,
    read_parquet,
    replacing,
    write_json,
    write_parquet,
)

WEEKS = Artifact("data/monitoring/weeks")
"""A JSON document a week."""
MATURED = Artifact("data/monitoring/matured.parquet")
EVIDENTLY = Artifact("data/monitoring/evidently")
PAGES = Artifact("reports/weeks")
NOT_JUDGED = "<!doctype html><title>Drift</title><p>Dataset Drift is not judged: {reason}.</p>\n"


def main(workspace: Workspace) -> None:
    """The report of the newest week, as `dvc repro monitor` makes it."""
    document = report(workspace)
    print(f"{document['verdict']}: {document['reason']} See {Workspace.week_page}")


def newest_week(workspace: Workspace) -> Week:
    """The week of the newest session with bars."""
    return Week.of(read_parquet(workspace.clean_bars, ["date"])["date"].max().date())


def report(workspace: Workspace, week: Week | None = None) -> dict[str, Any]:
    """Make a week's report: page, document, Evidently's page and run; its document.

    Args:
        week: by default that of the newest bars.

    Raises:
        DataError, StoreError: the pipeline has not run, or the log does not answer.
    """
    params = load_params(workspace, "monitor", MonitorParams)
    week = week or newest_week(workspace)
    material = _material(workspace, params, week, week)
    judged = judge(material, week, params)
    before = _written(workspace, week.before())
    judged.document["importance"] = _run_again(workspace, material, judged, week, params)
    judged.document["service"] = _service(workspace, judged, week, params)
    _evidently(workspace, material, judged, week, params)
    write_json(judged.document, workspace.monitoring_report)
    write_parquet(material.forecasts, workspace.root / MATURED.path)
    _write(workspace, week, judged, before)
    return judged.document


def backfill(workspace: Workspace, last: Week) -> list[dict[str, Any]]:
    """The reports of all weeks up to `last` that have a reference, from what is read once.

    Of these there are the documents and pages; the model is not run again and Evidently not asked.
    """
    params = load_params(workspace, "monitor", MonitorParams)
    days = read_parquet(workspace.clean_bars, ["date"])["date"].drop_duplicates().sort_values()
    if len(days) <= params.min_reference_sessions:
        return []
    first = Week.of(days.iloc[params.min_reference_sessions].date())
    material = _material(workspace, params, first, last)
    documents: list[dict[str, Any]] = []
    week = first
    while week <= last:
        if len(week.days):
            judged = judge(material, week, params)
            judged.document |= {"importance": NOT_RUN, "service": {"week": None, "since_start": None}}
            _write(workspace, week, judged, documents[-1] if documents else None)
            documents.append(judged.document)
        week = week.before(-1)
    return documents


def _service(
    workspace: Workspace, judged: Judged, week: Week, params: MonitorParams
) -> dict[str, dict[str, Any] | None]:
    """What the log and the service say of how it did; too many errors join the report."""
    engine = open_log(workspace.database_url(load_params(workspace, "predict", LogParams).log_url))
    try:
        found: dict[str, dict[str, Any] | None] = {"week": of_week(engine, week), "since_start": None}
    finally:
        engine.dispose()
    if params.metrics_url:
        try:
            found["since_start"] = now = since_start(params.metrics_url)
        except StoreError as error:
            again(judged, [Finding("note", "unread", str(error))])
            return found
        if (now["errors"] or 0) > ERRORS_SHARE:
            text = f"{now['errors']:.1%} of the service's answers since its start were its own errors"
            again(judged, [Finding("warn", "errors", text)])
    return found


def _material(workspace: Workspace, params: MonitorParams, first: Week, last: Week) -> Material:
    log_url = load_params(workspace, "predict", LogParams).log_url
    return read_material(workspace, params, log_url, first, last)


def _run_again(
    workspace: Workspace, material: Material, judged: Judged, week: Week, params: MonitorParams
) -> dict[str, Any]:
    """What `rerun` says of the week's forecasts; its findings join the report."""
    version = judged.document["model_version"]
    model = material.models.get(version or "")
    table = material.forecasts
    rows = table[(table["model_version"] == version) & table[SESSION].isin(week.closes)]
    if model is None or model.registered is None or rows.empty:
        return dict(NOT_RUN)
    try:
        most, seed, file = params.importance_windows, params.seed, model.file
        found, findings = rerun(workspace, model.registered, rows, material.seals, most, seed, file)
    except PitwiseError as error:
        again(judged, [Finding("note", "unread", f"The model was not run again: {one_line(error)}")])
        return dict(NOT_RUN)
    again(judged, findings)
    return found


def _evidently(
    workspace: Workspace, material: Material, judged: Judged, week: Week, params: MonitorParams
) -> None:
    """Evidently's page of the features, and the week's run in its workspace."""
    from monitoring.drift import add_to_workspace, drift_snapshot, with_stable_ids

    with replacing(workspace.drift_page) as temporary:
        if judged.drift is None:
            temporary.write_text(
                NOT_JUDGED.format(reason=judged.document["drift"]["features"]["reason"])
            )
            return
        made = material.features
        # The week's columns as they are; with the others, which are on our page, it would take long.
        suffixes = (WITHIN, OVER_A_MONTH)
        found = judged.drift.of(np.array([not n.endswith(suffixes) for n in judged.drift.columns]))
        last = int(made.sessions.searchsorted(week.begin))
        first = made.sessions[max(0, last - params.reference_sessions)]
        rows = watched_rows(workspace, made, first, week.end)
        of_week = rows[SESSION] >= week.begin
        snapshot = drift_snapshot(
            rows[~of_week], rows[of_week], found, made.edges, str(week), week.closes.max()
        )
        snapshot.save_html(str(temporary))
        temporary.write_text(with_stable_ids(temporary.read_text()))
    add_to_workspace(snapshot, workspace.root / EVIDENTLY.path)


def _written(workspace: Workspace, week: Week) -> dict[str, Any] | None:
    """The document of a week that was reported before."""
    path = workspace.root / WEEKS.path / f"{week}.json"
    return read_json(path) if path.exists() else None


def _write(workspace: Workspace, week: Week, judged: Judged, before: dict[str, Any] | None) -> None:
    from monitoring.page import week_page

    page = week_page(judged, before)
    write_json(judged.document, workspace.root / WEEKS.path / f"{week}.json")
    for path in (workspace.root / PAGES.path / f"{week}.html", workspace.week_page):
        with replacing(path) as temporary:
            temporary.write_text(page)


if __name__ == "__main__":
    run_stage(main)
