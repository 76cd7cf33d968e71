"""Stage `evaluate`: the models beside the baselines, on the same test dates."""

import hashlib

import numpy as np
import pandas as pd
from onnxruntime import InferenceSession
from pydantic import Field

from pitwise.evaluation import metrics
from pitwise.evaluation.baselines import (
    Forecast,
    always_up,
    drift,
    of_model,
    persistence,
)
from pitwise.evaluation.figures import block_length
from pitwise.evaluation.sessions import by_session
from pitwise.evaluation.trials import Trial, record_trials, trial
from pitwise.features.daily import FACTORS
from pitwise.features.history import KEYS
from pitwise.features.served import ENDS, ServedWindows
from pitwise.registry.contract import open_onnx, run_onnx_over
from pitwise.stage import Params, load_params, run_stage
from pitwise.workspace import Workspace, read_json, read_parquet, replacing, write_json, write_parquet
from training import CANDIDATES
from training.closed import VaultFrom

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
    vault: str | VaultFrom | None = None
    """What nothing is made on, and `pitwise vault open` alone reads: a file or a folder of prices, or
    the workspace's own sessions from a day on."""


def measure(forecast: Forecast, test: pd.DataFrame, params: EvaluateParams, horizon: int = 1) -> dict:
    """Every figure of one forecast; None where the forecast has none.

    Args:
        test: the test rows: close (USD), next_close (USD), label (log return), event_timestamp.
        horizon: sessions that the label looks ahead; t and the interval know that labels overlap.
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
        score = forecast.log_return if forecast.score is None else forecast.score
        ic = metrics.rank_ic(score, returns, sessions)
        figures["rank_ic_mean"], figures["rank_ic_t"] = metrics.mean_and_t(ic, horizon - 1)
        figures["skill_vs_persistence"] = metrics.skill(
            forecast.log_return, returns, np.zeros_like(returns)
        )
    if forecast.up is not None:
        figures["direction_accuracy"] = metrics.direction_accuracy(forecast.up, returns)
        n = test["event_timestamp"].nunique()
        block = block_length(n, horizon) if horizon > 1 else 1
        figures["direction_accuracy_ci95"] = metrics.direction_ci95(
            forecast.up, returns, sessions, params.bootstrap_samples, params.bootstrap_seed, block
        )
    if forecast.p_up is not None:
        figures["brier"] = metrics.brier(forecast.p_up, returns)
    return figures


def model_forecast(
    session: InferenceSession, windows: ServedWindows, ends: np.ndarray, length: int
) -> Forecast:
    """An exported model's forecast of the windows of its features that end at `ends`."""
    outputs = run_onnx_over(session, windows, ends, length)
    return of_model(outputs["log_return"], outputs["p_up"], outputs["score"])


def _trial(fit: dict, forecast: Forecast, test: pd.DataFrame) -> Trial:
    fitted_on = fit["train_first_session"], fit["fitted_last_session"]
    depends = f"{fit['recipe']} {fit['params']['seed']} {fitted_on}"
    recipe = hashlib.sha256(depends.encode()).hexdigest()[:16]
    said = test[[*KEYS, "label"]].assign(score=forecast.score)
    return trial("evaluate", fit["kind"], recipe, by_session(said, fit["horizon"]), fit["horizon"])


def main(workspace: Workspace) -> None:
    params = load_params(workspace, "evaluate", EvaluateParams)
    dataset = read_json(workspace.dataset_report)
    window, horizon = dataset["window"], dataset["horizon"]
    fits = {kind: read_json(workspace.models / kind / "training.json") for kind in CANDIDATES}
    inputs = sorted(set().union(*(fit["features"] for fit in fits.values())))
    columns = [*KEYS, *inputs, *FACTORS, ENDS, "split", "label", "next_close"]
    rows = read_parquet(workspace.dataset_rows, columns)
    served = read_parquet(workspace.served_rows)
    in_train, ends = (np.flatnonzero(rows["split"] == name) for name in ("train", "test"))
    test, labels = rows.iloc[ends], rows["label"].to_numpy()[in_train]

    forecasts = {}
    for kind, fit in fits.items():
        model = open_onnx(workspace.models / kind / "model.onnx")
        windows = ServedWindows(rows, served, fit["features"])
        forecasts[kind] = model_forecast(model, windows, ends, window)
    forecasts |= {
        "persistence": persistence(len(test)),
        "drift": drift(labels, len(test)),
        "always_up": always_up(labels, len(test)),
    }
    report: dict = {
        name: measure(forecast, test, params, horizon) for name, forecast in forecasts.items()
    }
    report |= {
        "horizon": horizon,
        "n_predictions": len(test),
        "n_symbols": int(test["symbol"].nunique()),
        "n_sessions": int(test["event_timestamp"].nunique()),
        "first_session": f"{test['event_timestamp'].min():%Y-%m-%d}",
        "last_session": f"{test['event_timestamp'].max():%Y-%m-%d}",
    }
    record_trials(workspace, [_trial(fit, forecasts[kind], test) for kind, fit in fits.items()])
    predictions = test[["symbol", "event_timestamp", "close", "next_close", "label"]].copy()
    for name in CANDIDATES:
        predictions[f"{name}_score"] = forecasts[name].score
        predictions[f"{name}_log_return"] = forecasts[name].log_return
        predictions[f"{name}_p_up"] = forecasts[name].p_up
    write_parquet(predictions, workspace.test_predictions)
    write_json(report, workspace.evaluation_report)

    from training import plots

    paths = {kind: workspace.models / kind / "learning_curve.csv" for kind in CANDIDATES}
    curves = {kind: pd.read_csv(path) for kind, path in paths.items() if path.exists()}
    for name, figure in {
        "learning_curves": plots.learning_curves(curves, fits),
        "predicted_vs_actual": plots.predicted_vs_actual(predictions, CANDIDATES, horizon),
        "calibration": plots.calibration(predictions, CANDIDATES),
        "cumulative_rank_ic": plots.cumulative_rank_ic(predictions, CANDIDATES, horizon),
        "per_symbol_error": plots.per_symbol_error(predictions, CANDIDATES),
    }.items():
        with replacing(workspace.plots / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png", dpi=110)
    for name in (*CANDIDATES, "persistence"):
        print(f"{name}: MAPE {report[name]['mape']:.3f}% over {len(test):,} predictions")


if __name__ == "__main__":
    run_stage(main)
