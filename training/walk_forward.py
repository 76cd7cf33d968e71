"""Stage `evaluate_walk_forward`: every kind of model and baseline, refitted again and again.

A window of time moves over the history: each fold is fitted on all sessions before it and forecasts its
own, so that every forecast is of a session that its fit has not seen. Fold by fold what is finished is
kept in data/evaluation/folds, so that a run that was stopped goes on from there.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from datetime import date
from functools import partial
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import ConfigDict, Field, field_validator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pitwise.engine import EngineParams, engine_of, run
from pitwise.evaluation.baselines import baselines
from pitwise.evaluation.breakdown import report_breakdown
from pitwise.evaluation.figures import figures, paired
from pitwise.evaluation.luck import (
    deflated_sharpe_ratio,
    effective_trials,
    expected_max_sharpe_ratio,
    model_confidence_set,
    probabilistic_sharpe_ratio,
    track,
)
from pitwise.evaluation.sessions import COLUMNS, by_session, mean_of_seeds, price_errors
from pitwise.evaluation.trials import Trial, record_trials, recorded_trials, trial
from pitwise.evaluation.walk_forward import Fold, Step, first_test_session, folds
from pitwise.features.history import KEYS
from pitwise.features.served import ENDS
from pitwise.registry.promotions import promotions
from pitwise.stage import Params, load_params, run_stage
from pitwise.workspace import Workspace, read_json, read_parquet, sha256, write_json, write_parquet
from training import CANDIDATES, ENSEMBLE, KINDS, NETS
from training.ensemble import EnsembleParams, ensemble_forecast, recipe_of_ensemble
from training.folds import Recipe, forecast_fold, params_of
from training.recipes import OF_BASELINES as RECIPE_OF_BASELINES
from training.recipes import code_of, identity, recipe_of

CODE = Path(__file__).absolute().parents[1]
OF_MODELS = (
    "pitwise/evaluation/ranking.py",
    "training/models",
    "training/select.py",
    "training/train.py",
)
OF_BASELINES = ("pitwise/evaluation",)
OF_BOTH = ("pitwise/features", "training/folds.py")
"""Code that a forecast depends on."""


class SeedParams(Params):
    """Section train, as far as it says which seed comes first; stage `train` checks the rest."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    seed: int


class WalkForwardParams(Params):
    first_test: float | date
    """The first day to be forecast, or the share of the sessions before it."""
    step: Step
    """How often baselines are fitted anew."""
    kinds: dict[str, Step]
    """The models, and how often each is fitted anew."""
    seeds: int = Field(ge=1)
    """Fits of each model, whose forecasts are averaged: `train.seed` and those after it."""
    embargo_sessions: int = Field(ge=0)
    validation_fraction: float = Field(gt=0, lt=0.5)
    bootstrap_samples: int = Field(ge=100)
    bootstrap_seed: int = Field(ge=0)

    @field_validator("first_test", mode="before")
    @classmethod
    def _day_or_share(cls, first: Any) -> Any:
        if isinstance(first, str):
            return date.fromisoformat(first)
        if not isinstance(first, date) and not 0 < first < 1:
            raise ValueError('should be a share between 0 and 1, or a day such as "2016-01-04"')
        return first

    @field_validator("kinds")
    @classmethod
    def _known(cls, kinds: dict[str, Step]) -> dict[str, Step]:
        if unknown := sorted(set(kinds) - set(KINDS)):
            raise ValueError(f"unknown {', '.join(unknown)}; known are {', '.join(KINDS)}")
        return kinds


class Task(NamedTuple):
    """One fit, and the file of its forecasts."""

    recipe: Recipe
    fold: Fold
    seed: int
    path: Path


def tasks(workspace: Workspace, params: WalkForwardParams) -> list[Task]:
    """Every fit of the walk-forward, the dear ones first.

    Raises:
        DataError: too few sessions.
    """
    report = read_json(workspace.dataset_report)
    seed = load_params(workspace, "train", SeedParams).seed
    rows = read_parquet(workspace.dataset_rows, ["event_timestamp", ENDS, "label"])
    usable = rows.loc[rows[ENDS] & rows["label"].notna(), "event_timestamp"]
    sessions = pd.DatetimeIndex(usable.unique()).sort_values()
    first = first_test_session(sessions, params.first_test, params.step)
    data = f"{sha256(workspace.dataset_rows)} {sha256(workspace.served_rows)}"
    made = []
    steps = dict(reversed(params.kinds.items())) | dict.fromkeys(
        baselines(report["horizon"]), params.step
    )
    for kind, step in steps.items():
        recipe = Recipe(
            kind=kind,
            data=data,
            window=report["window"],
            horizon=report["horizon"],
            embargo=params.embargo_sessions,
            validation_fraction=params.validation_fraction,
        )
        folder = workspace.walk_forward_folds / kind / _identity(workspace, recipe)
        for fold in folds(sessions, first, step, params.embargo_sessions, recipe.horizon):
            days = "_".join(f"{day:%Y%m%d}" for day in (fold.train[-1], fold.test[0], fold.test[-1]))
            for i in range(params.seeds if kind in KINDS else 1):
                path = folder / f"{days}_seed{seed + i}.parquet"
                made.append(Task(recipe, fold, seed + i, path))
    return made


def _identity(workspace: Workspace, recipe: Recipe) -> str:
    """Hash of what a kind's forecasts depend on, beside fold and seed."""
    is_model = recipe.kind in KINDS
    code = [*OF_BOTH, *(OF_MODELS if is_model else OF_BASELINES)]
    files = [path for name in code for path in (CODE / name, *sorted((CODE / name).rglob("*.py")))]
    depends = {
        "recipe": recipe._asdict(),
        "params": params_of(workspace, recipe.kind) if is_model else None,
        "code": [sha256(path) for path in files if path.is_file()],
        "libraries": [version(name) for name in ("scikit-learn", *(["torch"] if is_model else []))],
    }
    text = json.dumps(depends, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run_tasks(workspace: Workspace, wanted: list[Task], engine: EngineParams) -> None:
    """Make the files that are not there, each as soon as its fit is finished.

    This process alone writes.
    """
    missing = [task for task in wanted if not task.path.exists()]
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("fits", total=len(wanted), completed=len(wanted) - len(missing))
        one = partial(_run, str(workspace.root))
        for task, said in run(engine, one, missing, on_gpu=lambda task: task.recipe.kind in NETS):
            write_parquet(said, task.path)
            progress.update(bar, advance=1, description=f"{task.recipe.kind} {task.fold.test[0]:%Y-%m}")


def _run(root: str, task: Task) -> tuple[Task, pd.DataFrame]:
    return task, forecast_fold(root, task.recipe, task.fold, task.seed)


def table(rows: pd.DataFrame, of_kind: list[Task]) -> pd.DataFrame:
    """The forecasts of one kind, all folds and seeds, with what came: see `evaluation.sessions`.

    Args:
        rows: `symbol`, `event_timestamp`, `label`, `label_open`.
    """
    parts = [
        read_parquet(task.path)
        .query("split == 'test'")
        .assign(kind=task.recipe.kind, fold=task.fold.number, seed=task.seed)
        for task in of_kind
    ]
    return _with_labels(parts, rows)


def ensemble_table(rows: pd.DataFrame, members: list[list[Task]]) -> pd.DataFrame:
    """As `table`, of the ensemble of some kinds.

    Its folds are those of the kind that is fitted most often; longer ones begin with one of them. With
    each seed it is made of its members' fits with that seed.
    """
    parts = []
    for task in max(members, key=len):
        beside = [
            next(one for one in of if one.seed == task.seed and task.fold.test[0] in one.fold.test)
            for of in members
        ]
        said = ensemble_forecast([read_parquet(one.path) for one in beside])
        parts.append(said.assign(kind=ENSEMBLE, fold=task.fold.number, seed=task.seed))
    return _with_labels(parts, rows)


def _with_labels(parts: list[pd.DataFrame], rows: pd.DataFrame) -> pd.DataFrame:
    said = pd.concat(parts, ignore_index=True)
    return said.merge(rows, on=KEYS, how="left", validate="many_to_one")[list(COLUMNS)]


def recipes_of(workspace: Workspace, kinds: Iterable[str], horizon: int) -> dict[str, str]:
    """The recipe of each kind and baseline, whatever data, folds and seeds; see `training.recipes`."""
    code = code_of(RECIPE_OF_BASELINES)

    def recipe(kind: str) -> str:
        if kind == ENSEMBLE:
            return recipe_of_ensemble(workspace)
        return (
            recipe_of(workspace, kind)
            if kind in KINDS
            else identity(kind=kind, horizon=horizon, code=code)
        )

    return {kind: recipe(kind) for kind in kinds}


def main(workspace: Workspace) -> None:
    params = load_params(workspace, "walk_forward", WalkForwardParams)
    wanted = tasks(workspace, params)
    run_tasks(workspace, wanted, engine_of(workspace))

    horizon = wanted[0].recipe.horizon
    rows = read_parquet(workspace.dataset_rows, [*KEYS, "label", "label_open"])
    report: dict[str, Any] = {}
    means: dict[str, pd.DataFrame] = {}
    sessions: dict[str, pd.DataFrame] = {}
    tables = []
    of_kinds = {kind: list(of) for kind, of in groupby(wanted, lambda task: task.recipe.kind)}
    members = load_params(workspace, "ensemble", EnsembleParams).members
    kinds = [*of_kinds, *([ENSEMBLE] if set(members) <= set(of_kinds) else [])]
    for kind in kinds:
        if kind == ENSEMBLE:
            said = ensemble_table(rows, [of_kinds[member] for member in members])
        else:
            said = table(rows, of_kinds[kind])
        tables.append(pa.Table.from_pandas(said, preserve_index=False))
        mean = means[kind] = mean_of_seeds(said)
        report[kind] = figures(mean, horizon)
        sessions[kind] = by_session(mean, horizon)
    write_parquet(pa.concat_tables(tables), workspace.walk_forward_forecasts)
    recipes = recipes_of(workspace, kinds, horizon)
    tried = [
        trial("walk_forward", kind, _tried(workspace, kind, recipes[kind], params), found, horizon)
        for kind, found in sessions.items()
    ]
    record_trials(workspace, tried)
    rank_ic = {kind: found["rank_ic"] for kind, found in sessions.items()}
    first, last = (f"{of(task.fold.test[at] for task in wanted):%Y-%m-%d}" for of, at in ENDS_OF_FOLDS)
    on_record = [one for one in recorded_trials(workspace) if _overlaps(one, first, last)]
    earlier = promotions(workspace)
    report |= {
        "paired": _paired(rank_ic, list(baselines(horizon)), horizon, params),
        "price_error_less_persistence": _less_persistence(means, horizon, params),
        "confidence_set": model_confidence_set(
            pd.DataFrame(rank_ic), horizon, params.bootstrap_samples, params.bootstrap_seed
        ),
        **luck(
            pd.DataFrame({kind: found["decile_spread"] for kind, found in sessions.items()}),
            [one.sharpe for one in on_record if one.recipe not in {own.recipe for own in tried}],
        ),
        "trials": len(on_record),
        "recipes": recipes,
        "horizon": horizon,
        "survivorship": read_json(workspace.dataset_report).get("survivorship"),
        "first_session": first,
        "last_session": last,
        "champion": earlier[-1]["kind"] if earlier else None,
    }
    report_breakdown(workspace, means, horizon)
    write_json(report, workspace.walk_forward_report)
    for line in _summary(report, list(sessions)):
        print(line)
    if report["survivorship"]:
        print(report["survivorship"])
    print("`pitwise run` holds the gate and the signals against it")


ENDS_OF_FOLDS = ((min, 0), (max, -1))


def _tried(workspace: Workspace, kind: str, recipe: str, params: WalkForwardParams) -> str:
    """What the forecasts of a recipe depend on in this walk-forward, less the data."""
    seed = load_params(workspace, "train", SeedParams).seed
    return identity(
        recipe=recipe,
        step=params.kinds if kind == ENSEMBLE else params.kinds.get(kind, params.step),
        seeds=[seed, params.seeds] if kind in CANDIDATES else None,
        embargo=params.embargo_sessions,
        validation_fraction=params.validation_fraction if kind in CANDIDATES else None,
    )


def _overlaps(one: Trial, first: str, last: str) -> bool:
    return one.first_session <= last and one.last_session >= first


def luck(spreads: pd.DataFrame, others: list[float | None]) -> dict[str, Any]:
    """How much of the best Sharpe ratio is to be expected of so many tries.

    Args:
        spreads: (n_sessions, n_kinds) decile spread of each kind.
        others: Sharpe ratios of the other trials on record, None where one has no spread. Their spreads
            are not, so that each counts as a try of its own.

    Returns:
        psr, dsr: by kind, None where it has no spread; effective_trials; expected_max_sharpe.
    """
    tracks = {kind: track(spreads[kind]) for kind in spreads}
    known = [one.sharpe for one in tracks.values() if one] + [s for s in others if s is not None]
    own = spreads[[kind for kind, one in tracks.items() if one]]
    effective = effective_trials(own) + len(others)
    variance = float(np.var(known, ddof=1)) if len(known) > 1 else 0.0
    return {
        "psr": {kind: one and probabilistic_sharpe_ratio(one) for kind, one in tracks.items()},
        "dsr": {
            kind: one and deflated_sharpe_ratio(one, effective, variance) for kind, one in tracks.items()
        },
        "expected_max_sharpe": expected_max_sharpe_ratio(effective, variance),
        "effective_trials": effective,
    }


def _summary(report: dict[str, Any], kinds: list[str]) -> Iterator[str]:
    """The figures that matter, one line a kind."""
    yield f"{'':18}{'rank IC':>9}{'t':>7}{'hits':>8}{'bp':>7}{'PSR':>7}{'DSR':>7}  among the best"
    for kind in kinds:
        found, best = report[kind], report["confidence_set"].get(kind, {}).get("included")
        cells = (
            (found["rank_ic_mean"], "+9.4f"),
            (found["rank_ic_t"], "7.1f"),
            (found["hit_rate_median"], "8.1%"),
            (found["break_even_bp"], "7.1f"),
            (report["psr"][kind], "7.2f"),
            (report["dsr"][kind], "7.2f"),
        )
        shown = "".join(
            "-".rjust(int(re.findall(r"\d+", form)[0])) if value is None else format(value, form)
            for value, form in cells
        )
        yield f"{kind:18}{shown}  {'-' if best is None else 'yes' if best else 'no'}"
    n, effective = report["trials"], report["effective_trials"]
    yield f"{n} trials stand behind the champion, {effective} of them different"


def _paired(
    rank_ic: dict[str, pd.Series], others: list[str], horizon: int, params: WalkForwardParams
) -> dict[str, dict]:
    """Each kind's rank IC less each baseline's: kind → baseline → difference, t, ci95."""
    samples, seed = params.bootstrap_samples, params.bootstrap_seed
    return {
        kind: {
            other: paired(ours, rank_ic[other], horizon, samples, seed)
            for other in others
            if other != kind
        }
        for kind, ours in rank_ic.items()
    }


def _less_persistence(
    means: dict[str, pd.DataFrame], horizon: int, params: WalkForwardParams
) -> dict[str, dict]:
    """Each kind's mean absolute price error less persistence's, in points of percent: kind →
    difference, t, ci95."""
    errors = {kind: price_errors(mean) for kind, mean in means.items()}
    samples, seed = params.bootstrap_samples, params.bootstrap_seed
    return {
        kind: paired(ours, errors["persistence"], horizon, samples, seed)
        for kind, ours in errors.items()
        if kind != "persistence"
    }


if __name__ == "__main__":
    run_stage(main)
