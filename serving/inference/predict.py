"""Stage `predict`: the champion's forecast for each symbol, from the online store, logged."""

import numpy as np
import pandas as pd

from pitwise.features.indicators import NAMES
from pitwise.features.windows import window_ends
from pitwise.registry.contract import run_onnx_over
from pitwise.registry.model import RegisteredModel, RegistryParams
from pitwise.stage import load_params, run_stage
from pitwise.workspace import Workspace, read_parquet, write_parquet
from serving.settings import PredictParams


def history(model: RegisteredModel, rows: pd.DataFrame, params: PredictParams) -> pd.DataFrame:
    """This model's outputs for past windows, for monitoring to compare.

    Returns:
        the rows that end a window in a sample of the training dates (`part` = reference) and in
        the last `recent_sessions` sessions (recent), with `log_return` and `p_up`.
    """
    values = rows[list(model.features)].to_numpy("float32")
    ends = window_ends(rows["symbol"].to_numpy(object), rows[NAMES].to_numpy(), model.window)
    instants = rows["event_timestamp"]
    recent_from = instants.iloc[ends].drop_duplicates().nlargest(params.recent_sessions).min()
    recent = ends[(instants.iloc[ends] >= recent_from).to_numpy()]
    train = ends[(rows["split"].iloc[ends] == "train").to_numpy()]
    size = min(params.reference_windows, len(train))
    reference = np.sort(np.random.default_rng(params.seed).choice(train, size, replace=False))

    chosen = np.concatenate([reference, recent])
    outputs = run_onnx_over(model.session, values, chosen, model.window)
    part = ["reference"] * len(reference) + ["recent"] * len(recent)
    features = rows.iloc[chosen].drop(columns=["ends_window", "split", "label", "next_close"])
    return features.assign(part=part, model_version=model.version, **outputs)


def main(workspace: Workspace) -> None:
    params = load_params(workspace, "predict", PredictParams)
    registry = load_params(workspace, "registry", RegistryParams)
    rows = read_parquet(workspace.dataset_rows)

    from feature_repo.store import open_store
    from pitwise.registry.prediction_log import append, open_log, session_after
    from serving.inference.predictor import Predictor, load_champion

    champion = load_champion(workspace, registry)
    predictor = Predictor(champion, open_store(workspace))
    symbols = rows.loc[rows["ends_window"], "symbol"].unique().tolist()
    predictions = predictor.forecast(symbols).frame()
    # A symbol that has stopped trading has no next session to forecast.
    newest = predictions["as_of"].max()
    predictions = predictions[predictions["as_of"] == newest].reset_index(drop=True)
    predictions["for_session"] = session_after(newest)

    write_parquet(predictions, workspace.latest_predictions)
    write_parquet(history(champion, rows, params), workspace.prediction_history)
    served = predictions.assign(served_at=pd.Timestamp.now("UTC"))
    new = append(open_log(workspace.database_url(params.log_url)), served)
    print(
        f"{len(predictions):,} forecasts for {predictions['for_session'].iloc[0]} by version "
        f"{champion.version} ({new:,} new in the log, "
        f"{len(symbols) - len(predictions):,} symbols no longer trade)"
    )


if __name__ == "__main__":
    run_stage(main)
