"""The champion's forecast for each symbol that trades, from the online store, written and logged."""

import pandas as pd

from pitwise.registry.model import RegisteredModel
from pitwise.stage import load_params
from pitwise.workspace import Workspace, read_parquet, write_parquet
from serving.settings import PredictParams


def latest_forecasts(workspace: Workspace, champion: RegisteredModel) -> pd.DataFrame:
    """Forecast the session after the newest one, write `data/predictions/latest.parquet`, say how many.

    A symbol that has stopped trading has no next session to forecast.

    Returns:
        symbol, as_of (UTC), log_return, price, p_up, model_version, window_hash, for_session.

    Raises:
        StoreError: the online store or the prediction log does not answer.
    """
    from feature_repo.store import open_store
    from pitwise.registry.prediction_log import append, open_log, session_after
    from serving.inference.predictor import Predictor

    symbols = read_parquet(workspace.window_features, ["symbol"])["symbol"].unique().tolist()
    predictions = Predictor(champion, open_store(workspace)).forecast(symbols).frame()
    newest = predictions["as_of"].max()
    predictions = predictions[predictions["as_of"] == newest].reset_index(drop=True)
    predictions["for_session"] = session_after(newest)
    write_parquet(predictions, workspace.latest_predictions)
    log_url = load_params(workspace, "predict", PredictParams).log_url
    served = predictions.assign(served_at=pd.Timestamp.now("UTC"))
    new = append(open_log(workspace.database_url(log_url)), served)
    print(
        f"{len(predictions):,} forecasts for {predictions['for_session'].iloc[0]} by version "
        f"{champion.version} ({new:,} new in the log, "
        f"{len(symbols) - len(predictions):,} symbols no longer trade)",
        flush=True,
    )
    return predictions
