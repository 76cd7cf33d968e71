"""Stage `evaluate_walk_forward`: every kind of model and baseline, refitted again and again.

A window of time moves over the history: each fold is fitted on all sessions before it and forecasts its
own, so that every forecast is of a session that its fit has not seen. Fold by fold what is finished is
kept in data/evaluation/folds, so that a run that was stopped goes on from there.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
from joblib import Parallel, delayed
from pydantic import Field, field_validator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pitwise.evaluation.baselines import TreesParams, baselines
from pitwise.evaluation.figures import figures, paired
from pitwise.evaluation.sessions import COLUMNS, by_session, mean_of_seeds
from pitwise.evaluation.walk_forward import Fold, Step, first_test_session, folds
from pitwise.features.history import KEYS
from pitwise.features.served import ENDS
from pitwise.registry.promotions import promotions
from pitwise.stage import Params, load_params, run_stage
from pitwise.workspace import Workspace, read_json, read_parquet, sha256, write_json, write_parquet
from training import KINDS
from training.folds import Recipe, forecast_fold, params_of

CODE = Path(__file__).absolute().parents[1]
OF_MODELS = ("training/models", "training/select.py", "training/train.py")
OF_BASELINES = ("pitwise/evaluation",)
OF_BOTH = ("pitwise/features", "training/folds.py")
"""Code that a forecast depends on."""
SEEDED = ("gradient_boosting", *KINDS)
"""Kinds that draw; the others say the same with every seed and are fitted once."""


class WalkForwardParams(Params):
    first_test: float | date
    """The first day to be forecast, or the share of the sessions before it."""
    step: Step
    """How often baselines are fitted anew."""
    kinds: dict[str, Step]
    """The models, and how often each is fitted anew."""
    seeds: int = Field(ge=1)
    """Fits of each kind that draws, whose forecasts are averaged: `train.seed` and those after it."""
    embargo_sessions: int = Field(ge=0)
    validation_fraction: float = Field(gt=0, lt=0.5)
    trees: TreesParams
    n_jobs: int
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

    @field_validator("n_jobs")
    @classmethod
    def _some(cls, n_jobs: int) -> int:
        if n_jobs == 0:
            raise ValueError("should be 1 or more, or -1 for one a core")
        return n_jobs


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
    from training.models.fit import TrainParams

    report = read_json(workspace.dataset_report)
    seed = load_params(workspace, "train", TrainParams).seed
    rows = read_parquet(workspace.dataset_rows, ["event_timestamp", ENDS, "label"])
    usable = rows.loc[rows[ENDS] & rows["label"].notna(), "event_timestamp"]
    sessions = pd.DatetimeIndex(usable.unique()).sort_values()
    first = first_test_session(sessions, params.first_test, params.step)
    data = f"{sha256(workspace.dataset_rows)} {sha256(workspace.served_rows)}"
    made = []
    steps = dict(reversed(params.kinds.items())) | dict.fromkeys(
        baselines(report["horizon"], params.trees), params.step
    )
    for kind, step in steps.items():
        recipe = Recipe(
            kind=kind,
            data=data,
            window=report["window"],
            horizon=report["horizon"],
            embargo=params.embargo_sessions,
            validation_fraction=params.validation_fraction,
            trees=params.trees,
        )
        folder = workspace.walk_forward_folds / kind / _identity(workspace, recipe)
        for fold in folds(sessions, first, step, params.embargo_sessions, recipe.horizon):
            days = "_".join(f"{day:%Y%m%d}" for day in (fold.train[-1], fold.test[0], fold.test[-1]))
            for i in range(params.seeds if kind in SEEDED else 1):
                path = folder / f"{days}_seed{seed + i}.parquet"
                made.append(Task(recipe, fold, seed + i, path))
    return made


def _identity(workspace: Workspace, recipe: Recipe) -> str:
    """Hash of what a kind's forecasts depend on, beside fold and seed."""
    is_model = recipe.kind in KINDS
    code = [*OF_BOTH, *(OF_MODELS if is_model else OF_BASELINES)]
    files = [path for name in code for path in (CODE / name, *sorted((CODE / name).rglob("*.py")))]
    depends = {
        "recipe": recipe._asdict() | {"trees": None if is_model else recipe.trees.model_dump()},
        "params": params_of(workspace, recipe.kind) if is_model else None,
        "code": [sha256(path) for path in files if path.is_file()],
        "library": version("torch" if is_model else "scikit-learn"),
    }
    text = json.dumps(depends, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run_tasks(workspace: Workspace, wanted: list[Task], n_jobs: int) -> None:
    """Make the files that are not there, each as soon as its fit is finished.

    joblib runs the fits: on the cores, or, within a `joblib.parallel_config` of another backend, on
    the machines of a cluster that see the workspace's folder. This process alone writes.
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
        for task, said in _forecasts(str(workspace.root), missing, n_jobs):
            write_parquet(said, task.path)
            progress.update(bar, advance=1, description=f"{task.recipe.kind} {task.fold.test[0]:%Y-%m}")


def _forecasts(root: str, missing: list[Task], n_jobs: int) -> Iterator[tuple[Task, pd.DataFrame]]:
    """Each fit with its forecasts, in the order in which they are finished."""
    run = Parallel(n_jobs=n_jobs, return_as="generator_unordered")
    yield from run(delayed(_run)(root, task) for task in missing)


def _run(root: str, task: Task) -> tuple[Task, pd.DataFrame]:
    return task, forecast_fold(root, task.recipe, task.fold, task.seed)


def table(rows: pd.DataFrame, of_kind: list[Task]) -> pd.DataFrame:
    """The forecasts of one kind, all folds and seeds, with what came: see `evaluation.sessions`.

    Args:
        rows: `symbol`, `event_timestamp`, `label`, `label_open`.
    """
    parts = [
        read_parquet(task.path).assign(kind=task.recipe.kind, fold=task.fold.number, seed=task.seed)
        for task in of_kind
    ]
    said = pd.concat(parts, ignore_index=True)
    return said.merge(rows, on=KEYS, how="left", validate="many_to_one")[list(COLUMNS)]


def main(workspace: Workspace) -> None:
    params = load_params(workspace, "walk_forward", WalkForwardParams)
    wanted = tasks(workspace, params)
    run_tasks(workspace, wanted, params.n_jobs)

    horizon = wanted[0].recipe.horizon
    rows = read_parquet(workspace.dataset_rows, [*KEYS, "label", "label_open"])
    report: dict[str, Any] = {}
    rank_ic: dict[str, pd.Series] = {}
    tables = []
    for kind in dict.fromkeys(task.recipe.kind for task in wanted):
        said = table(rows, [task for task in wanted if task.recipe.kind == kind])
        tables.append(pa.Table.from_pandas(said, preserve_index=False))
        mean = mean_of_seeds(said)
        report[kind] = figures(mean, horizon)
        rank_ic[kind] = by_session(mean, horizon)["rank_ic"]
    write_parquet(pa.concat_tables(tables), workspace.walk_forward_forecasts)
    sessions = pd.concat([pd.Series(task.fold.test) for task in wanted])
    earlier = promotions(workspace)
    report |= {
        "paired": _paired(rank_ic, list(baselines(horizon, params.trees)), horizon, params),
        "trials": len(rank_ic),
        "first_session": f"{sessions.min():%Y-%m-%d}",
        "last_session": f"{sessions.max():%Y-%m-%d}",
        "champion": earlier[-1]["kind"] if earlier else None,
    }
    write_json(report, workspace.walk_forward_report)
    for kind in rank_ic:
        ic, t = report[kind]["rank_ic_mean"], report[kind]["rank_ic_t"]
        shown = "ranks nothing" if ic is None else f"rank IC {ic:+.4f} (t {t or 0:.1f})"
        print(f"{kind}: {shown} over {report[kind]['n_sessions']:,} sessions")


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


if __name__ == "__main__":
    run_stage(main)
