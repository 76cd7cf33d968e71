"""Stage `evaluate`: both models beside the baselines, on the same test dates."""

import hashlib

import numpy as np
import pandas as pd
from onnxruntime import InferenceSession
from pydantic import Field

from pitwise.errors import ParamsError
from pitwise.evaluation import metrics
from pitwise.evaluation.baselines import (
    Forecast,
    GradientBoostingParams,
    always_up,
    drift,
    gradient_boosting,
    of_model,
    persistence,
)
from pitwise.evaluation.sessions import by_session
from pitwise.evaluation.trials import Trial, record_trials, trial
from pitwise.features.daily import FACTORS
from pitwise.features.history import KEYS
from pitwise.features.served import ENDS, ServedWindows, last_sessions
from pitwise.registry.contract import open_onnx, run_onnx_over
from pitwise.stage import Params, load_params, run_stage
from pitwise.workspace import Workspace, read_json, read_parquet, replacing, write_json, write_parquet
from training import KINDS

FIGURES = (
    "mape",
    "price_accuracy",
    "r2_price",
    "r2_return",
    "mae",
    "rmse",
    "direction_accuracy",
    "direction_accuracy_ci95",
    "brier",
    "rank_ic_mean",
    "rank_ic_t",
    "skill_vs_persistence",
)


class EvaluateParams(Params):
    bootstrap_samples: int = Field(ge=100)
    bootstrap_seed: int = Field(ge=0)
    gradient_boosting: GradientBoostingParams
    vault: str | None = None
    """A file or a folder of prices that nothing is made on; `pitwise vault open` alone reads it."""


def measure(forecast: Forecast, test: pd.DataFrame, params: EvaluateParams) -> dict:
    """Every figure of one forecast; None where the forecast has none.

    Args:
        test: the test rows: close (USD), next_close (USD), label (log return), event_timestamp.
    """
    returns = test["label"].to_numpy()
    sessions = test["event_timestamp"].to_numpy()
    figures: dict = dict.fromkeys(FIGURES)
    if forecast.log_return is not None:
        price = test["close"].to_numpy() * np.exp(forecast.log_return)
        actual = test["next_close"].to_numpy()
        figures["mape"] = metrics.mape(price, actual)
        figures["price_accuracy"] = 100 - figures["mape"]
        figures["r2_price"] = metrics.r2(price, actual)
        figures["r2_return"] = metrics.r2(forecast.log_return, returns)
        figures["mae"] = metrics.mae(price, actual)
        figures["rmse"] = metrics.rmse(price, actual)
        ic = metrics.rank_ic(forecast.log_return, returns, sessions)
        figures["rank_ic_mean"], figures["rank_ic_t"] = metrics.mean_and_t(ic)
        figures["skill_vs_persistence"] = metrics.skill(
            forecast.log_return, returns, np.zeros_like(returns)
        )
    if forecast.up is not None:
        figures["direction_accuracy"] = metrics.direction_accuracy(forecast.up, returns)
        figures["direction_accuracy_ci95"] = metrics.direction_ci95(
            forecast.up, returns, sessions, params.bootstrap_samples, params.bootstrap_seed
        )
    if forecast.p_up is not None:
        figures["brier"] = metrics.brier(forecast.p_up, returns)
    return figures


def model_forecast(
    session: InferenceSession, windows: ServedWindows, ends: np.ndarray, length: int
) -> Forecast:
    """An exported model's forecast of the windows of its features that end at `ends`."""
    outputs = run_onnx_over(session, windows, ends, length)
    return of_model(outputs["log_return"], outputs["p_up"])


def _trial(workspace: Workspace, kind: str, forecast: Forecast, test: pd.DataFrame) -> Trial:
    fit = read_json(workspace.models / kind / "training.json")
    fitted_on = fit["train_first_session"], fit["fitted_last_session"]
    depends = f"{fit['recipe']} {fit['params']['seed']} {fitted_on}"
    recipe = hashlib.sha256(depends.encode()).hexdigest()[:16]
    said = test[[*KEYS, "label"]].assign(score=forecast.log_return)
    return trial("evaluate", kind, recipe, by_session(said, fit["horizon"]), fit["horizon"])


def main(workspace: Workspace) -> None:
    params = load_params(workspace, "evaluate", EvaluateParams)
    features = read_json(workspace.selection_report)["features"]
    dataset = read_json(workspace.dataset_report)
    window = dataset["window"]
    if dataset["horizon"] != 1:
        raise ParamsError(
            f"label.horizon: {dataset['horizon']} sessions. The gate, the service and the log "
            "forecast the next one; `dvc repro walk_forward/dvc.yaml` measures others. Set it back to 1."
        )
    columns = [*KEYS, *features, *FACTORS, ENDS, "split", "label", "next_close"]
    rows = read_parquet(workspace.dataset_rows, columns)
    served = read_parquet(workspace.served_rows)
    windows = ServedWindows(rows, served, features)
    in_train, ends = (np.flatnonzero(rows["split"] == name) for name in ("train", "test"))
    test, labels = rows.iloc[ends], rows["label"].to_numpy()[in_train]
    train_seen, test_seen = (last_sessions(rows, served, at) for at in (in_train, ends))

    forecasts = {
        kind: model_forecast(open_onnx(workspace.models / kind / "model.onnx"), windows, ends, window)
        for kind in KINDS
    }
    forecasts |= {
        "persistence": persistence(len(test)),
        "drift": drift(labels, len(test)),
        "always_up": always_up(labels, len(test)),
        "gradient_boosting": gradient_boosting(
            train_seen, test_seen, features, params.gradient_boosting
        ),
    }
    report: dict = {name: measure(forecast, test, params) for name, forecast in forecasts.items()}
    report |= {
        "n_predictions": len(test),
        "n_symbols": int(test["symbol"].nunique()),
        "n_sessions": int(test["event_timestamp"].nunique()),
        "first_session": f"{test['event_timestamp'].min():%Y-%m-%d}",
        "last_session": f"{test['event_timestamp'].max():%Y-%m-%d}",
    }
    record_trials(workspace, [_trial(workspace, kind, forecasts[kind], test) for kind in KINDS])
    predictions = test[["symbol", "event_timestamp", "close", "next_close", "label"]].copy()
    for name, forecast in forecasts.items():
        if name in KINDS or name == "gradient_boosting":
            predictions[f"{name}_log_return"] = forecast.log_return
            predictions[f"{name}_p_up"] = forecast.p_up
    write_parquet(predictions, workspace.test_predictions)
    write_json(report, workspace.evaluation_report)

    from training import plots

    curves = {kind: pd.read_csv(workspace.models / kind / "learning_curve.csv") for kind in KINDS}
    fitted = {kind: read_json(workspace.models / kind / "training.json") for kind in KINDS}
    for name, figure in {
        "learning_curves": plots.learning_curves(curves, fitted),
        "predicted_vs_actual": plots.predicted_vs_actual(predictions, KINDS),
        "calibration": plots.calibration(predictions, KINDS),
        "cumulative_rank_ic": plots.cumulative_rank_ic(predictions, KINDS),
        "per_symbol_error": plots.per_symbol_error(predictions, KINDS),
    }.items():
        with replacing(workspace.plots / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png", dpi=110)
    for name in ("ann", "lstm", "persistence"):
        print(f"{name}: MAPE {report[name]['mape']:.3f}% over {len(test):,} predictions")


if __name__ == "__main__":
    run_stage(main)
