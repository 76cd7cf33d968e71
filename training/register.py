"""Stage `register`: every model into MLflow's registry; `champion` moves only through the gate."""

import logging
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from pitwise.errors import StoreError
from pitwise.features.served import ENDS, ServedWindows
from pitwise.registry.champion import CHALLENGER, move_champion, open_experiment
from pitwise.registry.contract import INPUT
from pitwise.registry.findings import describe
from pitwise.registry.model import RegisteredModel, RegistryParams, load_registered
from pitwise.registry.promotions import promoted_model, record_promotion, registry_writer
from pitwise.registry.restore import (
    PROVIDERS,
    RECORDED,
    REQUIRED,
    TAGGED,
    restored_champion,
    signature,
    tag_promotion,
    version_of,
)
from pitwise.registry.runs import begun_in, end_abandoned_runs, ended_by_sigterm
from pitwise.stage import Params, load_params, run_stage
from pitwise.workspace import Workspace, read_json, read_parquet, write_json
from training import KINDS
from training.evaluate import FIGURES, EvaluateParams, measure, model_forecast
from training.gate import Candidate, Decision, decide

BASELINES = ("persistence", "drift", "always_up", "gradient_boosting")


class RegisterParams(Params):
    experiment: str = Field(min_length=1)
    metric: Literal["skill_vs_persistence", "rank_ic_mean", "direction_accuracy"]
    max_parity: float = Field(gt=0)


def code_version(workspace: Workspace) -> str:
    """The git commit, marked `-dirty` where files differ from it; `unknown` outside git."""
    command = [
        "git",
        "-C",
        str(workspace.root),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def example_windows(workspace: Workspace, features: Sequence[str], window: int) -> np.ndarray:
    """Windows of one symbol as MLflow shows them: (2 or 1, window, n_features) float64."""
    ends = read_parquet(workspace.dataset_rows, ["symbol", ENDS])
    of_one = [("symbol", "=", ends.loc[ends[ENDS], "symbol"].iloc[0])]
    rows = pd.read_parquet(workspace.dataset_rows, filters=of_one)
    served = pd.read_parquet(workspace.served_rows, filters=of_one)
    windows = ServedWindows(rows, served, features)
    return windows.gather(windows.ends(window)[-2:], window).astype("float64")


def register_version(workspace: Workspace, client: Any, kind: str, name: str, evaluation: dict) -> str:
    """Log one fitted model as an MLflow run and register it; the version's number.

    The same ONNX file is registered once: a rerun finds its version by its hash.
    """
    import mlflow
    import onnx

    folder = workspace.models / kind
    training = read_json(folder / "training.json")
    known = version_of(client, name, training["onnx_sha256"])
    if known:
        return known
    features = training["features"]
    contract = {key: training[key] for key in RECORDED} | {"code_version": code_version(workspace)}
    with mlflow.start_run(run_name=kind, tags=begun_in(workspace)):
        flat = {k: v for k, v in training.items() if k not in ("params", "features")}
        mlflow.log_params(flat | training["params"] | {"features": ",".join(features)})
        for name_of in (kind, *BASELINES):
            figures = {
                f"{name_of}.{k}": v for k, v in evaluation[name_of].items() if isinstance(v, float)
            }
            mlflow.log_metrics(figures)
        curve = pd.read_csv(folder / "learning_curve.csv")
        for row in curve.to_dict("records"):
            step = int(row.pop("batches"))
            mlflow.log_metrics(row, step=step)
        mlflow.log_artifact(str(workspace.evaluation_report))
        mlflow.log_artifacts(str(workspace.plots), "plots")
        info = mlflow.onnx.log_model(
            onnx.load(folder / "model.onnx"),
            name="model",
            signature=signature(training["window"], len(features)),
            input_example={INPUT: example_windows(workspace, features, training["window"])},
            registered_model_name=name,
            metadata=contract,
            pip_requirements=REQUIRED,
            onnx_execution_providers=PROVIDERS,
        )
    version = str(info.registered_model_version)
    for key in TAGGED:
        client.set_model_version_tag(name, version, key, str(contract[key]))
    return version


def measure_champion(
    champion: RegisteredModel, rows: pd.DataFrame, served: pd.DataFrame, params: EvaluateParams
) -> Candidate:
    """The champion on the current test dates, with its own features and window."""
    windows = ServedWindows(rows, served, champion.features)
    ends = np.intersect1d(windows.ends(champion.window), np.flatnonzero(rows["split"] == "test"))
    figures: dict = dict.fromkeys(FIGURES)
    if len(ends):
        forecast = model_forecast(champion.session, windows, ends, champion.window)
        figures = measure(forecast, rows.iloc[ends], params)
    return Candidate(
        champion.version,
        champion.kind,
        champion.metadata["onnx_parity"],
        figures,
        champion.metadata["fitted_last_session"],
        len(ends),
    )


def current_champion(workspace: Workspace, registry: RegistryParams) -> Any | None:
    """The version to beat; None where nobody was promoted or the last one promoted cannot be had."""
    try:
        return restored_champion(workspace, registry)
    except StoreError as error:
        print(f"no champion to compare with: {error}")
        return None


def main(workspace: Workspace) -> None:
    params = load_params(workspace, "register", RegisterParams)
    registry = load_params(workspace, "registry", RegistryParams)
    evaluation = read_json(workspace.evaluation_report)

    logging.getLogger("alembic").setLevel(logging.WARNING)
    client = open_experiment(workspace, registry, params.experiment)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    candidates = []
    with registry_writer(workspace), ended_by_sigterm():
        experiment = client.get_experiment_by_name(params.experiment).experiment_id
        for run in end_abandoned_runs(client, experiment, workspace):
            print(f"run {run}: was killed before it had ended; it is marked so")
        for kind in KINDS:
            training = read_json(workspace.models / kind / "training.json")
            candidates.append(
                Candidate(
                    register_version(workspace, client, kind, registry.model, evaluation),
                    kind,
                    training["onnx_parity"],
                    evaluation[kind],
                    training["fitted_last_session"],
                    evaluation["n_predictions"],
                )
            )
    by_version = {c.version: c for c in candidates}
    # After the candidates: the ledger's champion may be one of them, trained again in a fresh clone.
    current = current_champion(workspace, registry)
    champion = by_version.get(str(current.version)) if current else None
    if current and not champion:
        champion = measure_champion(
            load_registered(registry.model, current),
            read_parquet(workspace.dataset_rows),
            read_parquet(workspace.served_rows),
            load_params(workspace, "evaluate", EvaluateParams),
        )
    decision = decide(
        candidates,
        champion,
        {name: evaluation[name] for name in BASELINES},
        evaluation["first_session"],
        params.metric,
        params.max_parity,
    )
    kinds = by_version | ({champion.version: champion} if champion else {})
    if decision.champion:
        record_champion(workspace, client, registry.model, kinds[decision.champion], decision, params)
    apply_decision(client, registry.model, decision, str(current.version) if current else None)
    write_json(
        {
            "model": registry.model,
            "metric": params.metric,
            "champion_kind": kinds[decision.champion].kind if decision.champion else None,
            **asdict(decision),
        },
        workspace.registration_report,
    )
    for finding in decision.findings:
        print(describe(finding))


def record_champion(
    workspace: Workspace,
    client: Any,
    model: str,
    champion: Candidate,
    decision: Decision,
    params: RegisterParams,
) -> None:
    """The champion's model among the promoted ones, and a line in the ledger if it is a new one."""
    identity = client.get_model_version(model, champion.version).tags.get("onnx_sha256")
    promoted = promoted_model(workspace, identity) if identity else None
    if promoted is None:  # moved there by hand, and not from here
        return
    reasons = [describe(finding) for finding in decision.findings if finding.version == champion.version]
    entry = record_promotion(
        workspace,
        *promoted,
        "gate",
        reasons[0] if decision.promoted else "champion of the registry",
        params.metric,
        champion.figures,
    )
    if entry:
        tag_promotion(client, model, champion.version, entry)


def apply_decision(client: Any, model: str, decision: Decision, current: str | None) -> None:
    """Move the aliases as the gate decided, and leave its findings at the versions they are about."""
    notes = {f.version: describe(f) for f in decision.findings if f.version}
    for version, note in notes.items():
        client.set_model_version_tag(model, version, "gate", note)
    if decision.champion and decision.champion != current:
        move_champion(client, model, decision.champion, "gate", notes[decision.champion])
    if decision.challenger:
        client.set_registered_model_alias(model, CHALLENGER, decision.challenger)


if __name__ == "__main__":
    run_stage(main)
