"""Evidently computes what the thresholds are made for: its import alone takes seconds, so once."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from monitoring.drift import add_to_workspace, column_scores, drift_snapshot, with_stable_ids
from monitoring.sketch import quantile_edges
from monitoring.thresholds import Drift, psi

COLUMNS = ["a", "b"]
LIMIT = 0.1


@pytest.fixture(scope="module")
def snapshot():
    rng = np.random.default_rng(1)
    reference = pd.DataFrame(rng.normal(size=(2000, 2)), columns=COLUMNS)
    week = pd.DataFrame(rng.normal((0, 1), size=(300, 2)), columns=COLUMNS)
    edges = quantile_edges(reference)
    found = Drift(COLUMNS, np.zeros(2), np.full(2, LIMIT), 100)
    at = pd.Timestamp("2024-06-07T20:00Z")
    return drift_snapshot(reference, week, found, edges, "2024-W23", at), reference, week, edges


def test_evidentlys_figure_is_the_index_that_the_thresholds_are_of(snapshot):
    made, reference, week, edges = snapshot
    for name, score in column_scores(made).items():
        bins = [-np.inf, *edges[name], np.inf]
        p, q = (
            pd.cut(rows[name], bins, right=False).value_counts(sort=False) for rows in (reference, week)
        )
        assert score * LIMIT == pytest.approx(float(psi(p.to_numpy(), q.to_numpy())), rel=1e-12)


def test_evidently_says_drift_where_our_threshold_is_passed(snapshot):
    made = snapshot[0]
    (counted,) = [m for m in made.dict()["metrics"] if m["metric_name"].startswith("DriftedColumns")]
    assert counted["value"] == {"count": 1.0, "share": 0.5}
    assert column_scores(made)["a"] < 1 < column_scores(made)["b"]


def test_the_page_opens_offline_and_is_the_same_each_time(snapshot, tmp_path):
    pages = []
    for name in ("one.html", "two.html"):
        snapshot[0].save_html(str(tmp_path / name))
        pages.append(with_stable_ids((tmp_path / name).read_text()))
    assert pages[0] == pages[1]
    loaded = r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)\s*=\s*[\"']?(https?:)?//"
    assert re.findall(loaded, pages[0]) == []
    assert not re.search(r"@import\s+(?:url\()?[\"']?https?://", pages[0])


def test_a_week_has_one_run_in_evidentlys_workspace(snapshot, tmp_path):
    for _ in range(2):
        add_to_workspace(snapshot[0], tmp_path)
    (run,) = tmp_path.glob("*/snapshots/*.json")
    assert json.loads((tmp_path / "weeks.json").read_text()) == {"2024-W23": run.stem}
    (dashboard,) = tmp_path.glob("*/dashboard.json")
    assert "Share of columns that drifted" in dashboard.read_text()
