"""Evidently's report of a week against its reference, with the market's own thresholds.

Evidently computes and shows; what counts as drift is said by `monitoring.thresholds`.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monitoring.sketch import BINS
from monitoring.thresholds import Drift, psi
from pitwise.workspace import write_json

IDS = re.compile(r"\b[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}\b|(?<=_)[0-9a-f]{32}\b")
PROJECT = "Pitwise"
RUNS = "weeks.json"
"""In the folder of the Evidently workspace: the id of each week's run, so that a week that is reported
again replaces its own."""


def drift_snapshot(
    reference: pd.DataFrame,
    week: pd.DataFrame,
    found: Drift,
    edges: dict[str, np.ndarray],
    name: str,
    at: pd.Timestamp,
) -> Any:
    """Evidently's snapshot: each column's index divided by its own threshold, which is drift above 1.

    A threshold that changes from week to week would break the lines of Evidently's dashboard.

    Args:
        reference, week: rows with the columns of `found`.
        edges: of the bins, see `monitoring.sketch.Sketch`.
        name, at: of the run in Evidently, and the instant (UTC) that it stands for.
    """
    from evidently import DataDefinition, Dataset, Report
    from evidently.legacy.calculations.stattests.registry import StatTest, register_stattest
    from evidently.legacy.core import ColumnType
    from evidently.presets import DataDriftPreset

    limits = dict(zip(found.columns, found.threshold.tolist(), strict=True))

    def index(
        reference: pd.Series, recent: pd.Series, _kind: ColumnType, threshold: float
    ) -> tuple[float, bool]:
        edge = edges[str(reference.name)]
        p, q = (counted(rows.to_numpy(float), edge) for rows in (reference, recent))
        value = float(psi(p, q)) / limits[str(reference.name)]
        return value, value > threshold

    test = StatTest("psi_of_limit", "PSI over quantiles, of its limit", [ColumnType.Numerical])
    register_stattest(test, index)
    preset = DataDriftPreset(columns=found.columns, num_method=test.name, num_threshold=1.0)
    definition = DataDefinition(numerical_columns=found.columns)
    return Report([preset]).run(
        Dataset.from_pandas(week[found.columns], data_definition=definition),
        Dataset.from_pandas(reference[found.columns], data_definition=definition),
        name=name,
        timestamp=at.tz_convert(None).to_pydatetime(),
    )


def counted(values: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """Rows in each bin; (BINS,). NaN is in none."""
    known = values[np.isfinite(values)]
    return np.bincount(np.searchsorted(edge, known, side="right"), minlength=BINS)


def column_scores(snapshot: Any) -> dict[str, float]:
    """The index of each column, of its limit, as Evidently computed it."""
    return {
        metric["config"]["column"]: float(metric["value"])
        for metric in snapshot.dict()["metrics"]
        if metric["metric_name"].startswith("ValueDrift")
    }


def with_stable_ids(page: str) -> str:
    """The page with Evidently's random ids counted instead: the same report has the same bytes."""
    ids: dict[str, str] = {}
    return IDS.sub(lambda found: ids.setdefault(found[0], f"{len(ids):032x}"), page)


def add_to_workspace(snapshot: Any, folder: Path) -> None:
    """Put a week's snapshot into an Evidently workspace: `evidently ui --workspace FOLDER` opens it.

    Its project has panels for the share of drifted columns and the index of every column over time.
    """
    from evidently.sdk.models import PanelMetric
    from evidently.sdk.panels import line_plot_panel
    from evidently.ui.workspace import Workspace as Evidently

    workspace = Evidently.create(str(folder))
    known = workspace.search_project(PROJECT)
    if known:
        project = known[0]
    else:
        project = workspace.create_project(
            PROJECT, "Drift, week by week; pitwise report has the verdict"
        )
        share = PanelMetric(
            metric="DriftedColumnsCount",
            legend="share",
            view_params={},
            metric_labels={"value_type": "share"},
        )
        project.dashboard.add_panel(
            line_plot_panel(title="Share of columns that drifted", values=[share])
        )
        for name in column_scores(snapshot):
            metric = PanelMetric(metric="ValueDrift", legend=name, metric_labels={"column": name})
            project.dashboard.add_panel(line_plot_panel(title=name, values=[metric], size="half"))
        project.save()
    runs = folder / RUNS
    by_week = json.loads(runs.read_text()) if runs.exists() else {}
    week = snapshot.get_name()
    if week in by_week:
        workspace.delete_run(project.id, by_week[week])
    by_week[week] = str(workspace.add_run(project.id, snapshot, include_data=False).id)
    write_json(by_week, runs)
