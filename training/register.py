"""Stage `register`: every model into MLflow's registry; `champion` moves only through the gate."""

import logging
import subprocess
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from feature_repo.artifacts import (
    EVALUATION_REPORT,
    MODELS,
    PLOTS,
    REGISTRATION_REPORT,
    ROWS,
    read_json,
    read_parquet,
    write_json,
)
from feature_repo.indicators import NAMES
from feature_repo.model import (
    OUTPUTS,
    RegisteredModel,
    RegistryParams,
    load_registered,
    move_champion,
    registered_version,
)
from feature_repo.stage import Params, load_params, run_stage
from feature_repo.windows import window_ends
from training import KINDS
from training.evaluate import FIGURES, EvaluateParams, measure, model_forecast
from training.gate import Candidate, decide

CONTRACT = (
    "kind",
    "features",
    "window",
    "rows_sha256",
    "onnx_sha256",
    "onnx_parity",
    "fitted_last_session",
)
"""What a version says of itself, of all that `training.json` says of a fit."""

BASELINES = ("persistence", "drift", "always_up", "gradient_boosting")


class RegisterParams(Params):
    experiment: str = Field(min_length=1)
    metric: Literal["skill_vs_persistence", "rank_ic_mean", "direction_accuracy"]
    max_parity: float = Field(gt=0)


def code_version() -> str:
    """The git commit, marked `-dirty` where files differ from it; `unknown` outside git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def register_version(client: Any, kind: str, name: str, evaluation: dict) -> str:
    """Log one fitted model as an MLflow run and register it; the version's number.

    The same ONNX file is registered once: a rerun finds its version by its hash.
    """
    import mlflow
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    folder = MODELS / kind
    training = read_json(folder / "training.json")
    for version in client.search_model_versions(f"name='{name}'"):
        if version.tags.get("onnx_sha256") == training["onnx_sha256"]:
            return str(version.version)

    window, features = training["window"], training["features"]
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("float32"), (-1, window, len(features)), "windows")]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1,), name) for name in OUTPUTS]),
    )
    contract = {key: training[key] for key in CONTRACT} | {"code_version": code_version()}
    with mlflow.start_run(run_name=kind):
        flat = {k: v for k, v in training.items() if k not in ("params", "features")}
        mlflow.log_params(flat | training["params"] | {"features": ",".join(features)})
        for who in (kind, *BASELINES):
            figures = {f"{who}.{k}": v for k, v in evaluation[who].items() if isinstance(v, float)}
            mlflow.log_metrics(figures)
        curve = pd.read_csv(folder / "learning_curve.csv")
        for row in curve.to_dict("records"):
            step = int(row.pop("batches"))
            mlflow.log_metrics(row, step=step)
        mlflow.log_artifact(str(EVALUATION_REPORT))
        mlflow.log_artifacts(str(PLOTS), "plots")
        info = mlflow.onnx.log_model(
            onnx.load(folder / "model.onnx"),
            name="model",
            signature=signature,
            registered_model_name=name,
            metadata=contract,
            pip_requirements=["onnxruntime", "numpy"],
        )
    version = str(info.registered_model_version)
    for key in ("kind", "onnx_sha256", "onnx_parity", "fitted_last_session"):
        client.set_model_version_tag(name, version, key, str(contract[key]))
    return version


def measured_again(champion: RegisteredModel, rows: pd.DataFrame) -> Candidate:
    """The champion on the current test dates, with the features and window it asks for."""
    whole = window_ends(rows["symbol"].to_numpy(object), rows[NAMES].to_numpy(), champion.window)
    ends = np.intersect1d(whole, np.flatnonzero(rows["split"] == "test"))
    figures: dict = dict.fromkeys(FIGURES)
    if len(ends):
        values = rows[list(champion.features)]
        forecast = model_forecast(champion.session, values, ends, champion.window)
        figures = measure(forecast, rows.iloc[ends], load_params("evaluate", EvaluateParams))
    return Candidate(
        champion.version,
        champion.kind,
        champion.metadata["onnx_parity"],
        figures,
        champion.metadata["fitted_last_session"],
        len(ends),
    )


def main() -> None:
    params = load_params("register", RegisterParams)
    registry = load_params("registry", RegistryParams)
    evaluation = read_json(EVALUATION_REPORT)

    logging.getLogger("alembic").setLevel(logging.WARNING)

    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    mlflow.set_tracking_uri(registry.tracking_uri)
    mlflow.set_experiment(params.experiment)
    client = mlflow.MlflowClient()
    in_office = registered_version(client, registry.model, "champion")
    candidates = []
    for kind in KINDS:
        training = read_json(MODELS / kind / "training.json")
        candidates.append(
            Candidate(
                register_version(client, kind, registry.model, evaluation),
                kind,
                training["onnx_parity"],
                evaluation[kind],
                training["fitted_last_session"],
                evaluation["n_predictions"],
            )
        )
    by_version = {c.version: c for c in candidates}
    office = str(in_office.version) if in_office else None
    champion = by_version.get(office) if office else None
    if in_office and not champion:
        champion = measured_again(load_registered(registry.model, in_office), read_parquet(ROWS))
    decision = decide(
        candidates,
        champion,
        {name: evaluation[name] for name in BASELINES},
        evaluation["first_session"],
        params.metric,
        params.max_parity,
    )
    notes = {r.split()[1]: r for r in decision.reasons if r.startswith("version ")}
    for version, note in notes.items():
        client.set_model_version_tag(registry.model, version, "gate", note)
    if decision.champion and decision.champion != office:
        move_champion(client, registry.model, decision.champion, "gate", notes[decision.champion])
    if decision.challenger:
        client.set_registered_model_alias(registry.model, "challenger", decision.challenger)
    kinds = by_version | ({champion.version: champion} if champion else {})
    write_json(
        {
            "model": registry.model,
            "metric": params.metric,
            "champion_kind": kinds[decision.champion].kind if decision.champion else None,
            **asdict(decision),
        },
        REGISTRATION_REPORT,
    )
    for reason in decision.reasons:
        print(reason)


if __name__ == "__main__":
    run_stage(main)
