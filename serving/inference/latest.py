"""The forecast for each symbol that trades, from the online store, written and logged."""

from typing import TYPE_CHECKING

import pandas as pd

from pitwise.errors import StoreError
from pitwise.features.errors import NonFiniteWindowError, some_of
from pitwise.registry.model import RegisteredModel, RegistryParams
from pitwise.stage import load_params
from pitwise.workspace import Workspace, read_parquet, write_parquet
from serving.inference.marks import Marks, stored_marks
from serving.settings import PredictParams

if TYPE_CHECKING:
    from serving.inference.predictor import Forecasts, OnlineStore, Predictor


def latest_forecasts(
    workspace: Workspace, champion: RegisteredModel, marks: Marks | None = None
) -> pd.DataFrame:
    """Forecast from the newest session on, write `data/predictions/latest.parquet`, say how many.

    A symbol that has stopped trading has no later session to forecast, nor has one whose window is not
    finite, and where `predict.suspect` is withhold, a suspect one has no forecast. Beside them the
    challenger's forecasts of the same windows are logged, with the role `shadow`.

    Args:
        marks: of the newest bars; by default those of the workspace's files.

    Returns:
        symbol, as_of (UTC), horizon (sessions), score, log_return, price, p_up, scale (NaN: not known),
        model_version, window_hash, for_session, unusual (nullable bool), suspect (nullable str).

    Raises:
        StoreError: the online store or the prediction log does not answer.
    """
    from feature_repo.store import open_store
    from pitwise.registry.prediction_log import CHAMPION, append, open_log, session_after
    from serving.inference.predictor import Predictor

    params = load_params(workspace, "predict", PredictParams)
    marks = marks or stored_marks(workspace)
    symbols = read_parquet(workspace.window_features, ["symbol"])["symbol"].unique().tolist()
    store = open_store(workspace)
    forecasts, broken = _finite_forecasts(Predictor(champion, store), symbols)
    predictions = marked(forecasts, marks)
    newest = predictions["as_of"].max()
    predictions = predictions[predictions["as_of"] == newest].reset_index(drop=True)
    trade = len(predictions)
    if params.suspect == "withhold":
        predictions = predictions[predictions["suspect"].isna()].reset_index(drop=True)
    for_session = session_after(newest, champion.horizon)
    predictions["for_session"] = for_session
    write_parquet(predictions, workspace.latest_predictions)
    now = pd.Timestamp.now("UTC")
    log = open_log(workspace.database_url(params.log_url))
    new = append(log, predictions.assign(served_at=now, role=CHAMPION))
    withheld = f", {trade - len(predictions):,} withheld" if trade > len(predictions) else ""
    gone = len(symbols) - len(broken) - trade
    print(
        f"{len(predictions):,} forecasts for {for_session} by version {champion.version} "
        f"({new:,} new in the log{withheld}, {gone:,} symbols no longer trade)",
        flush=True,
    )
    if broken:
        print(f"no forecast of {some_of(broken)}: their windows have a NaN or an infinity", flush=True)
    try:
        shadow = shadow_forecasts(workspace, champion, store, predictions)
    except StoreError as error:
        print(f"the challenger is skipped: {error}", flush=True)
    else:
        if shadow is not None:
            append(log, shadow.assign(served_at=now))
    log.dispose()
    return predictions


def shadow_forecasts(
    workspace: Workspace, champion: RegisteredModel, store: "OnlineStore", predictions: pd.DataFrame
) -> pd.DataFrame | None:
    """The challenger's forecasts of the windows that the champion's stand on.

    Args:
        predictions: the champion's, of one session, with `window_hash`.

    Returns:
        rows of the prediction log but `served_at`, for the windows that are still in the store; None
        where no version but the champion has the alias `challenger`.

    Raises:
        StoreError: it cannot be fetched, or fails its check.
    """
    from pitwise.registry.champion import CHALLENGER, registered_version, registry_client
    from pitwise.registry.model import load_registered
    from pitwise.registry.prediction_log import SHADOW, session_after
    from serving.inference.check import CHECKED_SYMBOLS, as_store_error, check_predictor
    from serving.inference.predictor import THREADS, Predictor

    registry = load_params(workspace, "registry", RegistryParams)
    with as_store_error("it"):
        client = registry_client(workspace, registry)
        version = registered_version(client, registry.model, CHALLENGER)
    if version is None or str(version.version) == champion.version or predictions.empty:
        return None
    symbols = predictions["symbol"].tolist()
    with as_store_error(f"version {version.version}"):
        challenger = load_registered(registry.model, version, THREADS)
        predictor = Predictor(challenger, store)
        check_predictor(predictor, symbols[:CHECKED_SYMBOLS])
        forecasts, _ = _finite_forecasts(predictor, symbols)
    same = ["symbol", "as_of", "window_hash"]
    shadow = forecasts.frame().merge(predictions[same], on=same)
    print(
        f"{len(shadow):,} forecasts by version {version.version}, the challenger, logged beside them",
        flush=True,
    )
    for_session = session_after(predictions["as_of"].iloc[0], challenger.horizon)
    return shadow.assign(for_session=for_session, role=SHADOW)


def _finite_forecasts(predictor: "Predictor", symbols: list[str]) -> tuple["Forecasts", list[str]]:
    """Forecasts of the symbols whose windows are finite, and the other symbols."""
    broken: list[str] = []
    while True:
        try:
            return predictor.forecast([name for name in symbols if name not in set(broken)]), broken
        except NonFiniteWindowError as error:
            broken += error.symbols
            if len(broken) >= len(symbols):
                raise


def marked(forecasts: "Forecasts", marks: Marks) -> pd.DataFrame:
    """`Forecasts.frame`, and `unusual` and `suspect` of the bars that they stand on."""
    symbols = forecasts.symbols
    return forecasts.frame().assign(
        unusual=pd.array(marks.unusual_at(symbols, forecasts.as_of), "boolean"),
        suspect=pd.array(marks.suspected(symbols), "string"),
    )
