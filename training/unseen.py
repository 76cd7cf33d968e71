"""The champion and the baselines on bars that they have never seen: what `pitwise evaluate` shows."""

import hashlib
import sys
import tempfile
from contextlib import redirect_stdout
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from pitwise.bars import __main__ as bars
from pitwise.bars.calendar import session_days, session_number
from pitwise.cleaning import __main__ as cleaning
from pitwise.errors import DataError, StoreError
from pitwise.evaluation.baselines import Baseline, baselines
from pitwise.evaluation.figures import figures, paired
from pitwise.evaluation.labels import labels
from pitwise.evaluation.sessions import by_session
from pitwise.evaluation.trials import record_trials, trial
from pitwise.features import __main__ as features
from pitwise.features.daily import FACTORS
from pitwise.features.history import KEYS, known
from pitwise.features.indicators import NAMES
from pitwise.features.served import ENDS, ServedWindows, as_served, last_sessions
from pitwise.load import load
from pitwise.registry.contract import run_onnx_over
from pitwise.registry.model import RegisteredModel, RegistryParams, load_registered
from pitwise.registry.promotions import promoted_model
from pitwise.registry.restore import restored_champion
from pitwise.stage import load_params
from pitwise.universe import UNIVERSE, members, read_universe, survivorship
from pitwise.workspace import Workspace, read_parquet, sha256
from training.walk_forward import WalkForwardParams

CHAMPION = "champion"
ANSWERS = [*KEYS, "label", "label_open"]


def evaluate(workspace: Workspace, data: Path) -> dict[str, Any]:
    """Score the registered champion and the baselines on the bars of a file or folder; none is fitted
    on them.

    The bars are cleaned as the workspace's params say, in a workspace of their own that is gone after.
    Sessions that the champion's fit has seen, of whatever market, are left out.

    Returns:
        data, horizon, first_session, last_session, n_symbols, sessions_left_out; champion: version,
        kind, onnx_sha256, fitted_last_session; figures: by forecast, see `evaluation.figures`; paired:
        by baseline, the champion's rank IC less the baseline's; left_out: by baseline, why.

    Raises:
        StoreError: there is no champion.
        DataError: the bars cannot be used, or hold no session that the champion has not seen.
    """
    champion = _champion(workspace)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Workspace(folder)
        rows, served = cleaned_rows(workspace, scratch, data, champion.window, champion.horizon)
    return _scored(workspace, champion, rows, served, data.name) | {"data": str(data)}


def evaluate_from(workspace: Workspace, day: date) -> dict[str, Any]:
    """As `evaluate`, on the workspace's own sessions from a day on, those of its vault."""
    from training.dataset import DatasetParams, groups

    champion = _champion(workspace)
    params = load_params(workspace, "dataset", DatasetParams)
    parts = groups(workspace, params, champion.window, champion.horizon)
    rows, served = (pd.concat(part, ignore_index=True) for part in zip(*parts, strict=True))
    rows["label"] = rows["label"].where(rows["event_timestamp"] >= pd.Timestamp(day, tz="UTC"))
    name = f"the sessions from {day} on"
    return _scored(workspace, champion, rows, served, name) | {"data": name}


def _scored(
    workspace: Workspace, champion: RegisteredModel, rows: pd.DataFrame, served: pd.DataFrame, data: str
) -> dict[str, Any]:
    """See `evaluate`.

    Args:
        rows, served: see `cleaned_rows`; those without a label are only there as windows.
        data: what a person calls them.
    """
    params = load_params(workspace, "walk_forward", WalkForwardParams)
    fit = _recorded_fit(workspace, champion)
    horizon = champion.horizon
    windows = ServedWindows(rows, served, champion.features)
    usable = np.intersect1d(windows.ends(champion.window), np.flatnonzero(rows["label"].notna()))
    seen = seen_by_fit(rows["event_timestamp"].iloc[usable], fit, horizon)
    ends = usable[~seen]
    if len(ends) == 0:
        raise DataError(
            f"{data}: holds no window with a label in a session that the champion has not seen. It was "
            f"fitted up to {fit['fitted_last_session']}: bring other years."
        )
    outputs = run_onnx_over(champion.session, windows, ends, champion.window)
    at_end = last_sessions(rows, served, ends)
    said = {CHAMPION: pd.DataFrame(outputs, at_end.index)}
    fitted, left_out = _fitted(workspace, champion, baselines(horizon))
    said |= {name: baseline.predict(at_end) for name, baseline in fitted.items()}
    if left_out.pop("reversal", None):  # its order of the symbols needs no fit, only its returns do
        unknown = {"log_return": np.nan, "p_up": np.nan}
        said["reversal"] = at_end[[]].assign(score=-at_end["daily_return"], **unknown)
    tables = {name: at_end[ANSWERS].join(forecast) for name, forecast in said.items()}
    sessions = {name: by_session(table, horizon) for name, table in tables.items()}
    ic = {name: found["rank_ic"] for name, found in sessions.items()}
    recipe = hashlib.sha256(f"{champion.metadata.get('onnx_sha256')} {data}".encode()).hexdigest()
    tried = trial("unseen", champion.kind, recipe[:16], sessions[CHAMPION], horizon)
    record_trials(workspace, [tried])
    return {
        "horizon": horizon,
        "first_session": f"{at_end['event_timestamp'].min():%Y-%m-%d}",
        "last_session": f"{at_end['event_timestamp'].max():%Y-%m-%d}",
        "n_symbols": int(at_end["symbol"].nunique()),
        "sessions_left_out": int(rows["event_timestamp"].iloc[usable[seen]].nunique()),
        "champion": {
            "version": champion.version,
            "kind": champion.kind,
            "onnx_sha256": champion.metadata.get("onnx_sha256"),
            "fitted_last_session": fit["fitted_last_session"],
        },
        "figures": {name: figures(table, horizon) for name, table in tables.items()},
        "paired": {
            name: paired(ic[CHAMPION], other, horizon, params.bootstrap_samples, params.bootstrap_seed)
            for name, other in ic.items()
            if name != CHAMPION
        },
        "left_out": left_out,
    }


def cleaned_rows(
    workspace: Workspace, scratch: Workspace, data: Path, window: int, horizon: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Bars by the same way as the workspace's own, up to windows and labels.

    Args:
        scratch: an empty folder.

    Returns:
        as stage `dataset` leaves them, without a split: the rows, and those served otherwise.
    """
    params = yaml.safe_load(workspace.params.read_text())
    params["load"] |= {"source": "csv", "path": str(data), "actions": None}
    scratch.params.write_text(yaml.safe_dump(params))
    with redirect_stdout(sys.stderr):  # what the stages say; the answer alone is on stdout
        load(scratch, "csv", data)
        for stage in (bars, cleaning, features):
            stage.main(scratch)
    history = read_parquet(scratch.daily_features)
    ends, served = as_served(history, read_parquet(scratch.seals), window)
    daily = known(history)
    universe = read_universe(workspace)
    survivorship(universe, set(daily["symbol"]), workspace.root / UNIVERSE)  # which refuses other names
    rows = daily[[*KEYS, *NAMES, *FACTORS]].assign(**{ENDS: ends & members(universe, daily)})
    return pd.concat([rows, labels(daily, horizon)], axis=1), served


def _champion(workspace: Workspace) -> RegisteredModel:
    registry = load_params(workspace, "registry", RegistryParams)
    version = restored_champion(workspace, registry)
    if version is None:
        raise StoreError(
            f"{workspace.root}: has no champion yet. `pitwise run` trains and promotes one."
        )
    champion = load_registered(registry.model, version)
    if "fitted_last_session" not in champion.metadata:
        raise StoreError(
            f"model {registry.model} version {champion.version} does not say up to which session it was "
            "fitted, so nothing is known to be unseen. Promote a version that this pipeline registered."
        )
    return champion


def _recorded_fit(workspace: Workspace, champion: RegisteredModel) -> dict[str, Any]:
    """What is known of its fit: the whole `training.json` where it was promoted from this workspace."""
    found = promoted_model(workspace, champion.metadata.get("onnx_sha256", ""))
    return champion.metadata | (found[1] if found else {})


def seen_by_fit(instants: pd.Series, fit: dict[str, Any], horizon: int) -> np.ndarray:
    """Which sessions' returns overlap with the dates of a fit, its validation included; (n,) bool.

    Where the fit's first session is not recorded, all before its last count as seen.

    Args:
        fit: `fitted_last_session` and, if recorded, `train_first_session`, as `YYYY-MM-DD`.
    """
    session = session_number(session_days(instants))
    days = [fit["fitted_last_session"], fit.get("train_first_session", fit["fitted_last_session"])]
    last, first = session_number(pd.Series(pd.to_datetime(days)))
    seen = session < last + horizon
    return seen & (session + horizon > first) if "train_first_session" in fit else seen


def _fitted(
    workspace: Workspace, champion: RegisteredModel, wanted: dict[str, Baseline]
) -> tuple[dict[str, Baseline], dict[str, str]]:
    """The baselines, fitted on the champion's own training and validation rows, and why some are not."""
    path = workspace.dataset_rows
    if path.exists() and sha256(path) == champion.metadata.get("rows_sha256"):
        rows, served = read_parquet(path), read_parquet(workspace.served_rows)
        train = last_sessions(rows, served, np.flatnonzero(rows["split"].isin(["train", "validation"])))
        return {name: baseline.fit(train) for name, baseline in wanted.items()}, {}
    why = f"the rows that the champion was fitted on are not at {path}"
    return (
        {"persistence": wanted["persistence"]},
        {name: why for name in wanted if name != "persistence"},
    )
