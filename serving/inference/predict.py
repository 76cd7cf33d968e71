"""Stage `predict`: the champion's forecast for each symbol, from the online store, logged."""

import numpy as np
import pandas as pd

from pitwise.features.daily import FACTORS
from pitwise.features.served import ServedWindows, last_sessions
from pitwise.registry.contract import run_onnx_over
from pitwise.registry.model import RegisteredModel, RegistryParams
from pitwise.stage import load_params, run_stage
from pitwise.workspace import Workspace, read_parquet, write_parquet
from serving.inference.latest import latest_forecasts
from serving.settings import PredictParams


def history(
    model: RegisteredModel, rows: pd.DataFrame, served: pd.DataFrame, params: PredictParams
) -> pd.DataFrame:
    """This model's outputs for past windows, for monitoring to compare.

    Args:
        rows: as stage `dataset` leaves them.
        served: those served otherwise, see `ServedWindows`.

    Returns:
        the rows that end a window in a sample of the training dates (`part` = reference) and in
        the last `recent_sessions` sessions (recent), as they were served, with the model's outputs.
    """
    windows = ServedWindows(rows, served, model.features)
    ends = windows.ends(model.window)
    instants = rows["event_timestamp"]
    recent_from = instants.iloc[ends].drop_duplicates().nlargest(params.recent_sessions).min()
    recent = ends[(instants.iloc[ends] >= recent_from).to_numpy()]
    train = ends[(rows["split"].iloc[ends] == "train").to_numpy()]
    size = min(params.reference_windows, len(train))
    reference = np.sort(np.random.default_rng(params.seed).choice(train, size, replace=False))

    chosen = np.concatenate([reference, recent])
    outputs = run_onnx_over(model.session, windows, chosen, model.window)
    part = ["reference"] * len(reference) + ["recent"] * len(recent)
    features = last_sessions(rows, served, chosen).drop(
        columns=[*FACTORS, "ends_window", "split", "label", "next_close"]
    )
    return features.assign(part=part, model_version=model.version, **outputs)


def main(workspace: Workspace) -> None:
    params = load_params(workspace, "predict", PredictParams)
    registry = load_params(workspace, "registry", RegistryParams)
    rows = read_parquet(workspace.dataset_rows)
    served = read_parquet(workspace.served_rows)

    from serving.inference.predictor import load_champion

    champion = load_champion(workspace, registry)
    latest_forecasts(workspace, champion)
    write_parquet(history(champion, rows, served, params), workspace.prediction_history)


if __name__ == "__main__":
    run_stage(main)
