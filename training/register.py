"""Stage `register`: every model into MLflow's registry; `champion` moves only through the gate."""

import logging
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ConfigDict, Field

from pitwise.errors import StoreError
from pitwise.evaluation.sessions import by_session, mean_of_seeds
from pitwise.features.history import KEYS
from pitwise.features.served import ENDS, ServedWindows
from pitwise.registry.champion import CHALLENGER, move_champion, open_experiment
from pitwise.registry.contract import INPUT, open_onnx, run_onnx_over
from pitwise.registry.findings import describe
from pitwise.registry.model import RegistryParams, load_registered
from pitwise.registry.prediction_log import forecasts_of, open_log
from pitwise.registry.promotions import promoted_model, record_promotion, registry_writer
from pitwise.registry.restore import (
    PROVIDERS,
    RECORDED,
    REQUIRED,
    TAGGED,
    UNPROVEN,
    restored_champion,
    signature,
    tag_promotion,
    version_of,
)
from pitwise.registry.runs import begun_in, end_abandoned_runs, ended_by_sigterm
from pitwise.stage import Params, load_params, run_stage
from pitwise.workspace import SQLITE, Workspace, read_json, read_parquet, sha256, write_json
from training import CANDIDATES
from training.card import card
from training.gate import Candidate, Decision, Rules, WalkForward, decide

BASELINES = ("persistence", "drift", "always_up")


class LogParams(Params):
    """Section predict, as far as it says where the log is; stage `predict` checks the rest."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    log_url: str


class RegisterParams(Params):
    experiment: str = Field(min_length=1)
    alpha: float = Field(gt=0, lt=0.5)
    margin: float = Field(gt=0)
    min_sessions: int = Field(ge=2)
    bootstrap_samples: int = Field(ge=100)
    bootstrap_seed: int = Field(ge=0)
    max_parity: float = Field(gt=0)

    def rules(self) -> Rules:
        return Rules(
            self.alpha,
            self.margin,
            self.min_sessions,
            self.max_parity,
            self.bootstrap_samples,
            self.bootstrap_seed,
        )


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
    rows = read_parquet(workspace.dataset_rows, filters=of_one)
    served = read_parquet(workspace.served_rows, filters=of_one)
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
    model = onnx.load(folder / "model.onnx")
    outputs = [node.name for node in model.graph.output]
    with mlflow.start_run(run_name=kind, tags=begun_in(workspace)):
        flat = {k: v for k, v in training.items() if k not in ("params", "features")}
        mlflow.log_params(flat | training["params"] | {"features": ",".join(features)})
        for name_of in dict.fromkeys((kind, *BASELINES)):
            figures = {
                f"{name_of}.{k}": v for k, v in evaluation[name_of].items() if isinstance(v, float)
            }
            mlflow.log_metrics(figures)
        if (folder / "learning_curve.csv").exists():
            for row in pd.read_csv(folder / "learning_curve.csv").to_dict("records"):
                step = int(row.pop("batches"))
                mlflow.log_metrics(row, step=step)
        mlflow.log_artifact(str(workspace.evaluation_report))
        mlflow.log_artifacts(str(workspace.plots), "plots")
        info = mlflow.onnx.log_model(
            model,
            name="model",
            save_as_external_data=False,  # else weights lie in a file that is named by chance
            signature=signature(training["window"], len(features), outputs),
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


def rank_ic_on_test(
    session: Any, features: Sequence[str], window: int, rows: pd.DataFrame, served: pd.DataFrame
) -> pd.Series:
    """A model's rank IC by session (day) of the test dates; empty where no window is whole."""
    windows = ServedWindows(rows, served, features)
    ends = np.intersect1d(windows.ends(window), np.flatnonzero(rows["split"] == "test"))
    if len(ends) == 0:
        return pd.Series(dtype=float)
    test = rows.iloc[ends]
    score = run_onnx_over(session, windows, ends, window)["score"]
    return rank_ic_by_day(test[[*KEYS, "label"]].assign(score=score))


def rank_ic_by_day(table: pd.DataFrame) -> pd.Series:
    """Each session's rank IC with the session's day for an index; see `evaluation.sessions`."""
    rank_ic = by_session(table, 1)["rank_ic"]  # a rank IC is the same over any horizon
    return rank_ic.set_axis(pd.DatetimeIndex(rank_ic.index).tz_localize(None).normalize())


def walked(workspace: Workspace, kinds: set[str], horizon: int) -> WalkForward | None:
    """What the walk-forward says of some kinds and of all baselines; None where there is none, or one of
    another horizon."""
    if not (workspace.walk_forward_report.exists() and workspace.walk_forward_forecasts.exists()):
        return None
    report = read_json(workspace.walk_forward_report)
    if report.get("horizon", 1) != horizon:
        return None
    recipes = report.get("recipes", {})

    def rank_ic(kind: str) -> pd.Series:
        said = read_parquet(workspace.walk_forward_forecasts, filters=[("kind", "==", kind)])
        return rank_ic_by_day(mean_of_seeds(said))

    return WalkForward(
        {recipes[kind]: rank_ic(kind) for kind in sorted(kinds & set(recipes) & set(CANDIDATES))},
        {kind: rank_ic(kind) for kind in recipes if kind not in CANDIDATES},
    )


def logged_rank_ic(workspace: Workspace, version: str, rows: pd.DataFrame) -> pd.Series:
    """What a version forecast at the time, to be seen or in the shadow, by session (day).

    Of the prediction log, each forecast with the label that its session has in the rows.
    """
    url = workspace.database_url(load_params(workspace, "predict", LogParams).log_url)
    if url.startswith(SQLITE) and not Path(url.removeprefix(SQLITE)).exists():
        return pd.Series(dtype=float)
    said = forecasts_of(open_log(url), version)
    known = said.merge(rows[[*KEYS, "label"]], on=KEYS)
    if known.empty:
        return pd.Series(dtype=float)
    return rank_ic_by_day(known)


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
    versions, fits = {}, {}
    with registry_writer(workspace), ended_by_sigterm():
        experiment = client.get_experiment_by_name(params.experiment).experiment_id
        for run in end_abandoned_runs(client, experiment, workspace):
            print(f"run {run}: was killed before it had ended; it is marked so")
        for kind in CANDIDATES:
            fits[kind] = read_json(workspace.models / kind / "training.json")
            versions[kind] = register_version(workspace, client, kind, registry.model, evaluation)
    # After the candidates: the ledger's champion may be one of them, trained again in a fresh clone.
    current = current_champion(workspace, registry)
    rows, served = read_parquet(workspace.dataset_rows), read_parquet(workspace.served_rows)
    candidates = []
    for kind in CANDIDATES:
        model = open_onnx(workspace.models / kind / "model.onnx")
        candidates.append(candidate_of(workspace, versions[kind], fits[kind], rows, served, model))
    by_version = {c.version: c for c in candidates}
    champion = by_version.get(str(current.version)) if current else None
    if current and not champion:
        loaded = load_registered(registry.model, current)
        champion = candidate_of(workspace, loaded.version, loaded.metadata, rows, served, loaded.session)
        by_version |= {champion.version: champion}
    evidence = walked(workspace, {c.kind for c in by_version.values()}, candidates[0].horizon)
    decision = decide(candidates, champion, evidence, params.rules())
    if workspace.origin is not workspace and champion is not None:
        # What an experiment makes is registered, and counts as tried; the workspace's own run promotes.
        decision = replace(decision, champion=champion.version, challenger=None, promoted=False)
    if decision.champion:
        of_kind = evaluation.get(by_version[decision.champion].kind, {})
        record_champion(workspace, client, registry.model, decision, of_kind)
    apply_decision(client, registry.model, decision, str(current.version) if current else None)
    write_cards(workspace, client, registry.model, versions, fits, evaluation, rows, decision)
    report = workspace.walk_forward_report
    write_json(
        {
            "model": registry.model,
            "champion_kind": by_version[decision.champion].kind if decision.champion else None,
            **asdict(decision),
            "walk_forward_sha256": sha256(report) if report.exists() else None,
        },
        workspace.registration_report,
    )
    for finding in decision.findings:
        print(describe(finding))


def candidate_of(
    workspace: Workspace,
    version: str,
    fit: dict[str, Any],
    rows: pd.DataFrame,
    served: pd.DataFrame,
    session: Any,
) -> Candidate:
    """A version with what it says of the current test dates, with its own features and window.

    Args:
        fit: its `training.json`, or its metadata.
    """
    return Candidate(
        version,
        fit["kind"],
        fit.get("recipe"),
        fit["onnx_parity"],
        fit.get("best_validation_loss", 0.0),
        fit["fitted_last_session"],
        rank_ic_on_test(session, fit["features"], fit["window"], rows, served),
        logged_rank_ic(workspace, version, rows),
        fit.get("horizon", 1),
    )


def record_champion(
    workspace: Workspace, client: Any, model: str, decision: Decision, figures: dict[str, Any]
) -> None:
    """The champion's model among the promoted ones, and a line in the ledger if it is a new one."""
    version = decision.champion or ""
    identity = client.get_model_version(model, version).tags.get("onnx_sha256")
    promoted = promoted_model(workspace, identity) if identity else None
    if promoted is None:  # moved there by hand, and not from here
        return
    reasons = [describe(finding) for finding in decision.findings if finding.version == version]
    entry = record_promotion(
        workspace,
        *promoted,
        "gate",
        reasons[0] if decision.promoted else "champion of the registry",
        figures,
        decision.unproven,
    )
    if entry:
        tag_promotion(client, model, version, entry)


def apply_decision(client: Any, model: str, decision: Decision, current: str | None) -> None:
    """Move the aliases as the gate decided, and leave its findings at the versions they are about."""
    notes = {f.version: describe(f) for f in decision.findings if f.version}
    for version, note in notes.items():
        client.set_model_version_tag(model, version, "gate", note)
    if decision.champion and decision.champion != current:
        move_champion(client, model, decision.champion, "gate", notes[decision.champion])
    if decision.champion:
        unproven = str(decision.unproven).lower()
        client.set_model_version_tag(model, decision.champion, UNPROVEN, unproven)
    if decision.challenger:
        client.set_registered_model_alias(model, CHALLENGER, decision.challenger)


def write_cards(
    workspace: Workspace,
    client: Any,
    model: str,
    versions: dict[str, str],
    fits: dict[str, dict[str, Any]],
    evaluation: dict[str, Any],
    rows: pd.DataFrame,
    decision: Decision,
) -> None:
    """The model card of each version of this run, as its description and as a file of its MLflow run.

    One that was registered before gets it anew: a walk-forward may have come since.
    """
    import mlflow

    symbols = rows.groupby("split")["symbol"].nunique().to_dict()
    survivorship = read_json(workspace.dataset_report).get("survivorship")
    path = workspace.walk_forward_report
    walk_forward = read_json(path) if path.exists() else {}
    for kind, version in versions.items():
        info = mlflow.models.get_model_info(f"models:/{model}/{version}")
        text = card(
            model,
            version,
            fits[kind],
            (info.metadata or {}).get("code_version", "unknown"),
            symbols,
            survivorship,
            evaluation,
            walk_forward if walk_forward.get("recipes", {}).get(kind) == fits[kind]["recipe"] else None,
            [
                finding
                for finding in decision.findings
                if (finding.version or finding.figures.get("champion")) == version
            ],
        )
        client.update_model_version(model, version, text)
        client.log_text(info.run_id, text, "card.md")


if __name__ == "__main__":
    run_stage(main)
