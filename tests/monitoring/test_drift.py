import re
import sys

import numpy as np
import pandas as pd
import pytest
from support.workspaces import new_run

from monitoring.drift import COLUMNS, MonitorParams, column_psi, drift_snapshot
from pitwise.features.indicators import BY_NAME
from pitwise.workspace import Workspace, read_json, write_parquet

PARAMS = MonitorParams(psi_threshold=0.25, drifted_share=0.5)
SHIFTS = {"rsi_14": 0.3, "daily_return": 0.6, "p_up": 1.0, "log_return": 2.0}
MONITOR = """
import sys
from pathlib import Path
from monitoring import drift
from pitwise.workspace import Workspace
drift.main(Workspace(Path.cwd()))
assert not {"torch", "pytorch_lightning", "mlflow", "feast"} & set(sys.modules)
"""


def columns(rows: int, seed: int, **shifts: float) -> pd.DataFrame:
    """Standard normal columns, some moved by so many standard deviations."""
    values = np.random.default_rng(seed).normal(size=(rows, len(COLUMNS)))
    return pd.DataFrame(values, columns=COLUMNS) + pd.Series(shifts).reindex(COLUMNS).fillna(0)


@pytest.fixture(scope="module")
def psi() -> dict[str, float]:
    return column_psi(drift_snapshot(columns(4000, 0), columns(1500, 1, **SHIFTS), PARAMS))


@pytest.fixture(scope="module")
def monitored(tmp_path_factory) -> Workspace:
    """Stage `monitor` on a history whose predictions, and nothing else, have moved."""
    run = new_run(tmp_path_factory.mktemp("monitoring"))
    parts = {"reference": columns(2000, 0), "recent": columns(800, 1, log_return=3, p_up=3)}
    first = {"reference": "2020-01-02", "recent": "2024-05-01"}
    history = pd.concat(
        table.assign(
            part=name,
            model_version="3",
            symbol="A",
            event_timestamp=pd.date_range(first[name], periods=len(table), freq="h", tz="UTC"),
        )
        for name, table in parts.items()
    )
    write_parquet(history, run.workspace.prediction_history)
    run.run(sys.executable, "-c", MONITOR)
    return run.workspace


def test_what_wanders_by_nature_is_not_watched():
    watched = set(COLUMNS) - {"log_return", "p_up"}
    assert {"daily_return", "rsi_14", "volume_ratio", "volatility_20"} <= watched
    assert {BY_NAME[name].unit for name in watched} == {"percent", "ratio", "index"}


def test_every_column_has_its_score(psi):
    assert set(psi) == set(COLUMNS)


def test_a_distribution_that_stood_still_has_not_drifted(psi):
    still = [psi[name] for name in COLUMNS if name not in SHIFTS]
    assert max(still) < 0.1


def test_the_further_a_distribution_moves_the_higher_its_score(psi):
    scores = [psi[name] for name in sorted(SHIFTS, key=SHIFTS.get)]
    assert scores == sorted(scores)
    assert scores[1] > PARAMS.psi_threshold


def test_the_score_is_the_population_stability_index(psi):
    # Of two normals d deviations apart the index is d squared; bins blur it a little.
    assert psi["daily_return"] == pytest.approx(0.36, rel=0.2)
    assert psi["p_up"] == pytest.approx(1, rel=0.2)


def test_a_wider_distribution_has_drifted_though_its_mean_stood_still():
    wide = columns(1500, 1).assign(volatility_5=lambda t: 3 * t["volatility_5"])
    score = column_psi(drift_snapshot(columns(4000, 0), wide, PARAMS))["volatility_5"]
    assert score > PARAMS.psi_threshold


def test_the_stage_names_what_drifted(monitored):
    report = read_json(monitored.monitoring_report)
    assert report["drifted"] == ["log_return", "p_up"]
    assert report["drifted_share"] == pytest.approx(2 / len(COLUMNS))
    assert not report["dataset_drifted"]
    assert set(report["psi"]) == set(COLUMNS)
    assert (report["reference_rows"], report["recent_rows"]) == (2000, 800)
    assert report["model_version"] == "3"
    assert report["recent_first_session"] == "2024-05-01"
    assert report["recent_last_session"] == "2024-06-03"


def test_the_page_is_readable_offline(monitored):
    page = monitored.drift_page.read_text()
    assert len(page) > 100_000
    assert "log_return" in page
    loaded = re.findall(
        r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)\s*=\s*[\"']?(https?:)?//", page
    )
    assert loaded == []
    assert not re.search(r"@import\s+(?:url\()?[\"']?https?://", page)
