"""The champion's forecast for each symbol that trades, from the online store, written and logged."""

from typing import TYPE_CHECKING

import pandas as pd

from pitwise.registry.model import RegisteredModel
from pitwise.stage import load_params
from pitwise.workspace import Workspace, read_parquet, write_parquet
from serving.inference.marks import Marks, stored_marks
from serving.settings import PredictParams

if TYPE_CHECKING:
    from serving.inference.predictor import Forecasts


def latest_forecasts(
    workspace: Workspace, champion: RegisteredModel, marks: Marks | None = None
) -> pd.DataFrame:
    """Forecast the session after the newest one, write `data/predictions/latest.parquet`, say how many.

    A symbol that has stopped trading has no next session to forecast, and where `predict.suspect` is
    withhold, a suspect one has no forecast.

    Args:
        marks: of the newest bars; by default those of the workspace's files.

    Returns:
        symbol, as_of (UTC), log_return, price, p_up, model_version, window_hash, for_session, unusual
        (nullable bool), suspect (nullable str).

    Raises:
        StoreError: the online store or the prediction log does not answer.
    """
    from feature_repo.store import open_store
    from pitwise.registry.prediction_log import append, open_log, session_after
    from serving.inference.predictor import Predictor

    params = load_params(workspace, "predict", PredictParams)
    marks = marks or stored_marks(workspace)
    symbols = read_parquet(workspace.window_features, ["symbol"])["symbol"].unique().tolist()
    forecasts = Predictor(champion, open_store(workspace)).forecast(symbols)
    predictions = marked(forecasts, marks)
    newest = predictions["as_of"].max()
    predictions = predictions[predictions["as_of"] == newest].reset_index(drop=True)
    trade = len(predictions)
    if params.suspect == "withhold":
        predictions = predictions[predictions["suspect"].isna()].reset_index(drop=True)
    predictions["for_session"] = session_after(newest)
    write_parquet(predictions, workspace.latest_predictions)
    served = predictions.assign(served_at=pd.Timestamp.now("UTC"))
    new = append(open_log(workspace.database_url(params.log_url)), served)
    withheld = f", {trade - len(predictions):,} withheld" if trade > len(predictions) else ""
    print(
        f"{len(predictions):,} forecasts for {session_after(newest)} by version {champion.version} "
        f"({new:,} new in the log{withheld}, {len(symbols) - trade:,} symbols no longer trade)",
        flush=True,
    )
    return predictions


def marked(forecasts: "Forecasts", marks: Marks) -> pd.DataFrame:
    """`Forecasts.frame`, and `unusual` and `suspect` of the bars that they stand on."""
    symbols = forecasts.symbols
    return forecasts.frame().assign(
        unusual=pd.array(marks.unusual_at(symbols, forecasts.as_of), "boolean"),
        suspect=pd.array(marks.suspected(symbols), "string"),
    )
