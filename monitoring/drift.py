"""Stage `monitor`: the last weeks' features and predictions against the training reference."""

import re

import pandas as pd
from pydantic import Field

from pitwise.features.indicators import FEATURES, SCALE_FREE
from pitwise.stage import Params, load_params, run_stage
from pitwise.workspace import Workspace, read_parquet, replacing, write_json

COLUMNS = [*(f.name for f in FEATURES if f.unit in SCALE_FREE), "log_return", "p_up"]
"""What can drift. Prices and share counts are left out: they wander by nature."""


UUID = re.compile(r"\b[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}\b|(?<=_)[0-9a-f]{32}\b")


class MonitorParams(Params):
    psi_threshold: float = Field(gt=0)
    drifted_share: float = Field(gt=0, le=1)


def drift_snapshot(reference: pd.DataFrame, recent: pd.DataFrame, params: MonitorParams):
    """Evidently's snapshot of how far each column's distribution has moved (PSI).

    Args:
        reference, recent: rows with `COLUMNS`.
    """
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    definition = DataDefinition(numerical_columns=COLUMNS)
    preset = DataDriftPreset(
        columns=COLUMNS,
        method="psi",
        threshold=params.psi_threshold,
        drift_share=params.drifted_share,
    )
    return Report([preset]).run(
        Dataset.from_pandas(recent[COLUMNS], data_definition=definition),
        Dataset.from_pandas(reference[COLUMNS], data_definition=definition),
    )


def column_psi(snapshot) -> dict[str, float]:
    """Population stability index of each column, from a snapshot."""
    scores = {}
    for metric in snapshot.dict()["metrics"]:
        if metric["metric_name"].startswith("ValueDrift"):
            scores[metric["config"]["column"]] = float(metric["value"])
    return scores


def with_stable_ids(page: str) -> str:
    """The page with Evidently's random ids counted instead: the same report has the same bytes."""
    ids: dict[str, str] = {}
    return UUID.sub(lambda found: ids.setdefault(found[0], f"{len(ids):032x}"), page)


def main(workspace: Workspace) -> None:
    params = load_params(workspace, "monitor", MonitorParams)
    history = read_parquet(workspace.prediction_history)
    reference = history[history["part"] == "reference"]
    recent = history[history["part"] == "recent"]
    snapshot = drift_snapshot(reference, recent, params)
    psi = column_psi(snapshot)
    drifted = sorted(name for name, value in psi.items() if value > params.psi_threshold)
    with replacing(workspace.drift_page) as temporary:
        snapshot.save_html(str(temporary))
        temporary.write_text(with_stable_ids(temporary.read_text()))
    write_json(
        {
            "model_version": history["model_version"].iloc[0],
            "reference_rows": len(reference),
            "recent_rows": len(recent),
            "recent_first_session": f"{recent['event_timestamp'].min():%Y-%m-%d}",
            "recent_last_session": f"{recent['event_timestamp'].max():%Y-%m-%d}",
            "psi": psi,
            "drifted": drifted,
            "drifted_share": len(drifted) / len(psi),
            "dataset_drifted": len(drifted) / len(psi) >= params.drifted_share,
        },
        workspace.monitoring_report,
    )
    print(f"{len(drifted)} of {len(psi)} columns drifted; see {Workspace.drift_page}")


if __name__ == "__main__":
    run_stage(main)
