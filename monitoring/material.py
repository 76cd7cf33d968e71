"""What weeks are judged by, read once for however many of them."""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pandas as pd
import pyarrow.parquet as pq

from monitoring.features import watched_sketch
from monitoring.health import bar_health
from monitoring.matured import BAR, champion_forecasts, logged, matured
from monitoring.settings import MonitorParams
from monitoring.signals import COLUMNS, decided
from monitoring.sketch import Sketch
from monitoring.weeks import TREND, Week
from pitwise.bars.calendar import is_session, session_close
from pitwise.bars.versions import read_versions
from pitwise.errors import DataError, PitwiseError
from pitwise.evaluation.sessions import SESSION, by_session, mean_of_seeds
from pitwise.features.history import CREATED
from pitwise.registry.contract import PIECE, open_onnx, run_onnx
from pitwise.registry.model import RegisteredModel, RegistryParams, load_registered
from pitwise.registry.prediction_log import open_log
from pitwise.registry.promotions import promoted_model, promotions
from pitwise.stage import load_params
from pitwise.workspace import Workspace, read_json, read_parquet, sha256

SAID = ["score", "log_return", "p_up"]
LONGEST_LAG = timedelta(days=60)
"""From a forecast to its outcome, 20 sessions at most, and the weeks of trend before."""


@dataclass
class Model:
    """A version that answered or ran in the shadow, as the registry has it."""

    version: str
    kind: str | None = None
    identity: str | None = None
    """SHA-256 of the file it was registered as, where it is that one."""
    file: Path | None = None
    """That file, where it is here."""
    registered: RegisteredModel | None = None
    """None where it cannot be fetched."""
    problem: str | None = None
    """model_gone | model_changed | model_unknown: what is wrong with it, if anything."""
    text: str = ""


@dataclass
class Material:
    """See the functions that make each part."""

    features: Sketch
    bars: pd.DataFrame
    """Figures of `bar_health`, by session (close, UTC)."""
    symbols: pd.Series
    """By session (close, UTC): symbols with a clean bar."""
    forecasts: pd.DataFrame
    """The log with its outcomes, see `matured`."""
    models: dict[str, Model] = field(default_factory=dict)
    expected: dict[str, pd.DataFrame] = field(default_factory=dict)
    """By kind, `by_session` of the walk-forward."""
    signals: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=COLUMNS))
    """What the rules made of the champion's forecasts, see `monitoring.signals.decided`."""
    tested: dict[str, pd.DataFrame] = field(default_factory=dict)
    """By version, its own forecasts of test dates: `event_timestamp`, `SAID`, `label`."""
    set_aside: pd.DataFrame = field(default_factory=pd.DataFrame)
    """`date`, `reason`, `n`, `share` of that session's bars."""
    revised: pd.DataFrame = field(default_factory=pd.DataFrame)
    """`created_timestamp` and `kind` of each revision of a feature."""
    seals: pd.DataFrame = field(default_factory=pd.DataFrame)
    notes: list[str] = field(default_factory=list)
    """What could not be read, as sentences; the report is made without it."""


def read_material(
    workspace: Workspace, params: MonitorParams, log_url: str, first: Week, last: Week
) -> Material:
    """All that the weeks from `first` to `last` need.

    Raises:
        DataError, StoreError: the pipeline has not run, or the log does not answer.
    """
    versions = read_versions(workspace)
    # As each bar was first delivered: a correction that came later does not hide a broken feed.
    delivered = versions.bars[is_session(versions.bars["date"])].drop_duplicates(["symbol", "date"])
    clean = read_parquet(workspace.clean_bars, BAR)
    health = bar_health(delivered)
    clean_days = clean["date"].value_counts().sort_index()
    made = Material(
        features=watched_sketch(workspace, params, versions.seals),
        bars=health.set_axis(pd.DatetimeIndex(session_close(health.index.to_series())), axis=0),
        symbols=clean_days.set_axis(pd.DatetimeIndex(session_close(clean_days.index.to_series()))),
        forecasts=pd.DataFrame(),
        seals=versions.seals,
        set_aside=_set_aside(workspace, delivered),
        revised=_optional_table(workspace, "revisions", [CREATED, "kind"]),
    )
    span = timedelta(days=round(params.reference_sessions * 1.5)) + LONGEST_LAG
    engine = open_log(workspace.database_url(log_url))
    try:
        rows = logged(engine, first.monday - span, last.monday + LONGEST_LAG)
    finally:
        engine.dispose()
    # What had not been said by the end of the week is not known to it.
    rows = rows[rows[SESSION] <= last.end].reset_index(drop=True)
    made.forecasts = matured(rows, clean, last.end)
    try:
        shown = champion_forecasts(made.forecasts)
        made.signals = decided(workspace, shown, pd.Timestamp(first.before(TREND).monday, tz="UTC"))
    except DataError as error:
        made.notes.append(f"Signals were not judged: {error}")
    _read_expected(workspace, made)
    return made


def _set_aside(workspace: Workspace, delivered: pd.DataFrame) -> pd.DataFrame:
    table = _optional_table(workspace, "quarantine", ["date", "reason"])
    counted = table.groupby(["date", "reason"]).size().rename("n").reset_index()
    return counted.assign(share=counted["n"] / counted["date"].map(delivered["date"].value_counts()))


def _optional_table(workspace: Workspace, artifact: str, columns: list[str]) -> pd.DataFrame:
    path = getattr(workspace, artifact)
    return read_parquet(path, columns) if path.exists() else pd.DataFrame(columns=columns)


def _read_expected(workspace: Workspace, made: Material) -> None:
    """The models behind the log's versions, what to expect of them, and their own test forecasts."""
    shown = [str(version) for version in made.forecasts["model_version"].unique()]
    if not shown and workspace.registration_report.exists():
        shown = [str(read_json(workspace.registration_report)["champion"])]
    try:
        made.models = read_models(workspace, shown)
    except PitwiseError as error:
        made.notes.append(f"The registry was not read: {error}")
    kinds = {model.kind for model in made.models.values() if model.kind}
    for kind in sorted(kinds):
        table = expected_of(workspace, kind)
        if table is not None:
            made.expected[kind] = table
    for version, model in made.models.items():
        file = workspace.models / str(model.kind) / "model.onnx"
        if model.identity and file.exists() and sha256(file) == model.identity:
            made.tested[version] = tested_of(workspace, str(model.kind))


def expected_of(workspace: Workspace, kind: str) -> pd.DataFrame | None:
    """What each session of the walk-forward says of a kind; None where there is none of it."""
    path = workspace.walk_forward_forecasts
    if not path.exists():
        return None
    table = pq.read_table(path, filters=[("kind", "=", kind)]).to_pandas()
    if table.empty:
        return None
    return by_session(mean_of_seeds(table), _horizon(workspace))


def tested_of(workspace: Workspace, kind: str) -> pd.DataFrame:
    """What the run's own model of a kind said of its test dates: out of sample, and by itself."""
    path = workspace.test_predictions
    there = pq.read_schema(path).names if path.exists() else []
    names = {f"{kind}_{part}": part for part in SAID if f"{kind}_{part}" in there}
    if not names:
        return pd.DataFrame(columns=[SESSION, *SAID, "label"])
    table = read_parquet(path, [SESSION, "label", *names]).rename(columns=names)
    return table if "score" in table else table.assign(score=table["log_return"])


def _horizon(workspace: Workspace) -> int:
    return int(read_json(workspace.dataset_report)["horizon"])


def read_models(workspace: Workspace, shown: list[str]) -> dict[str, Model]:
    """The versions, each held against what was recorded of it.

    A version is fetched from the registry and compared with the file whose hash was recorded when it was
    registered; that hash must be in the ledger of promotions, unless it only ran in the shadow.

    Raises:
        StoreError: the registry does not answer.
    """
    from pitwise.registry.versions import open_registry

    registry = load_params(workspace, "registry", RegistryParams)
    promoted = {entry["onnx_sha256"] for entry in promotions(workspace)}
    found = {}
    with open_registry(workspace, registry) as client:
        listed = {
            str(version.version): version
            for version in client.search_model_versions(f"name='{registry.model}'")
        }
        for name in shown:
            if name not in listed:
                text = f"version {name} is in the log and not in the registry"
                found[name] = Model(name, problem="model_gone", text=text)
                continue
            tags = listed[name].tags or {}
            model = Model(name, tags.get("kind"))
            found[name] = model
            try:
                model.registered = load_registered(registry.model, listed[name], threads=1)
            except (PitwiseError, OSError):
                model.problem = "model_gone"
                model.text = f"version {name} is in the registry and its files are not to be had"
                continue
            model.kind = model.registered.kind
            recorded = tags.get("onnx_sha256")
            file = promoted_model(workspace, recorded) if recorded else None
            if recorded and file and not is_same(model.registered, open_onnx(file[0], threads=1)):
                model.problem = "model_changed"
                model.text = (
                    f"version {name} is not the model it was registered as: it forecasts otherwise than "
                    f"the file of hash {recorded[:12]}"
                )
                continue
            model.identity = recorded
            model.file = file[0] if file else None
            if promoted and recorded not in promoted:
                model.problem = "model_unknown"
                model.text = (
                    f"version {name} (hash {str(recorded)[:12]}) is in no promotion of the ledger"
                )
    return found


def is_same(model: RegisteredModel, file: ort.InferenceSession) -> bool:
    """Whether two models say the same of made-up windows; MLflow stores the weights beside the graph, so
    that a hash of its file cannot tell."""
    rng = np.random.default_rng(0)
    size = (PIECE, model.window, len(model.features))
    windows = (rng.uniform(1, 2, size) * 10.0 ** rng.integers(-1, 3, size)).astype("float32")
    ours, theirs = run_onnx(model.session, windows), run_onnx(file, windows)
    return all(np.array_equal(ours[name], theirs[name], equal_nan=True) for name in ours)
