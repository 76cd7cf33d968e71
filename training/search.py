"""`pitwise search`: the params of a kind that forecast best, in inner folds of the training dates alone.

No session that anything is judged on takes part: neither those of the walk-forward nor the validation
and test sessions of the data set. What was tried is kept in data/search, so that a search that was
stopped goes on, and each trial is counted in the ledger: the best of many looks better than it is.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache, partial
from typing import Any, NamedTuple

import pandas as pd
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pitwise.engine import engine_of, run
from pitwise.errors import DataError, StoreError
from pitwise.evaluation.metrics import mean_and_t
from pitwise.evaluation.sessions import SESSION, by_session
from pitwise.evaluation.trials import Trial, record_trials, trial
from pitwise.evaluation.walk_forward import Fold, first_test_session, folds
from pitwise.extras import require
from pitwise.features.history import KEYS
from pitwise.features.served import ENDS
from pitwise.registry.champion import open_experiment
from pitwise.registry.model import RegistryParams
from pitwise.registry.promotions import registry_writer
from pitwise.registry.runs import begun_in
from pitwise.stage import Params, load_params
from pitwise.workspace import Workspace, read_json, read_parquet, sha256
from training import KINDS, NETS
from training.folds import COLUMNS, fit_and_forecast, fold_parts, inputs_of
from training.recipes import OF_MODELS, code_of, identity
from training.search_space import SearchParams, Values, changed, current, space_of
from training.select import SelectParams
from training.walk_forward import WalkForwardParams

STUDY = "data/search/study.db"
"""In the workspace: Optuna's studies, one for each kind, data set, space and state of the code."""
LEDGER = "trial"
"""Attribute of an Optuna trial: its line of the ledger."""
FEWEST = 5
"""Trials before any is pruned."""


class Tried(NamedTuple):
    """One set of params and how it did."""

    values: Values
    rank_ic_mean: float
    rank_ic_t: float | None
    n_sessions: int


@dataclass(frozen=True)
class Found:
    """What a search came to."""

    best: Tried
    first: Tried | None
    """Today's params, where they are in the space."""
    finished: int
    pruned: int


@dataclass(frozen=True)
class Search:
    """What is searched in a workspace, and on what."""

    workspace: Workspace
    kind: str
    params: SearchParams
    walk: WalkForwardParams
    known: dict[str, Params]
    """Today's params of each section that the kind is made by."""
    window: int
    horizon: int

    @classmethod
    def of(cls, workspace: Workspace, kind: str) -> "Search":
        """
        Raises:
            ParamsError: there is nothing to search for the kind.
        """
        walk = load_params(workspace, "walk_forward", WalkForwardParams)
        known: dict[str, Params] = {}
        if kind in KINDS:
            from training.models.fit import TrainParams
            from training.models.forecaster import BODIES

            known = {
                "train": load_params(workspace, "train", TrainParams),
                kind: load_params(workspace, kind, BODIES[kind][1]),
            }
        params = load_params(workspace, "search", SearchParams)
        space_of(params, kind, known)
        report = read_json(workspace.dataset_report)
        return cls(workspace, kind, params, walk, known, report["window"], report["horizon"])

    @cached_property
    def folds(self) -> list[Fold]:
        """The inner folds.

        Raises:
            DataError: too few sessions.
        """
        rows = read_parquet(self.workspace.dataset_rows, [SESSION, ENDS, "label", "split"])
        usable = rows[rows[ENDS] & rows["label"].notna()]
        every = pd.DatetimeIndex(usable[SESSION].unique()).sort_values()
        judged = every.get_loc(first_test_session(every, self.walk.first_test, self.walk.step))
        embargo = self.walk.embargo_sessions
        before = every[: max(judged - self.horizon - embargo, 0)]
        training = before[before.isin(usable.loc[usable["split"] == "train", SESSION].unique())]
        try:
            start = first_test_session(training, self.params.first_test, self.params.step)
            return folds(training, start, self.params.step, embargo, self.horizon)
        except DataError as error:
            raise DataError(
                f"{len(training)} training sessions before the walk-forward's first forecast "
                f"({every[judged]:%Y-%m-%d}) are too few for the inner folds. Choose a smaller "
                "search.step or search.first_test, or a later walk_forward.first_test."
            ) from error

    @cached_property
    def name(self) -> str:
        """Of the study: trials of one study can be compared."""
        files = self.workspace.dataset_rows, self.workspace.served_rows
        depends = identity(
            recipe=self.recipe({}),
            data=[sha256(path) for path in files],
            space={key: of.model_dump() for key, of in self.params.space[self.kind].items()},
            folds=[(f"{fold.train[-1]}", f"{fold.test[-1]}") for fold in self.folds],
            seeds=[self.params.seed, self.params.seeds],
        )
        return f"{self.kind}-{depends}"

    def sections(self, values: Values) -> dict[str, Any]:
        """The params with the values of a trial."""
        return {section: changed(self.known[section], section, values) for section in self.known}

    def recipe(self, values: Values) -> str:
        """What the forecasts of a trial depend on; the same as a walk-forward's with these params."""
        dumped = {name: of.model_dump(mode="json") for name, of in self.sections(values).items()}
        return identity(
            kind=self.kind,
            window=self.window,
            horizon=self.horizon,
            train={key: value for key, value in dumped["train"].items() if key != "seed"},
            body=dumped[self.kind],
            select=load_params(self.workspace, "select", SelectParams).model_dump(mode="json"),
            code=code_of(OF_MODELS),
        )

    def forecaster(self) -> Callable[[int, Values, int], pd.DataFrame]:
        """Fits in a fold, given by its number, with some values and a seed: `symbol`, `event_timestamp`,
        `score` of its test sessions. The data are read once."""
        rows = read_parquet(self.workspace.dataset_rows, COLUMNS)
        served = read_parquet(self.workspace.served_rows)

        @cache  # trials differ in how they fit, never in what
        def parts(number: int, inputs: str) -> tuple[list[str], list[Any]]:
            fold = self.folds[number]
            train, held = fold.held_out(
                self.walk.validation_fraction, self.walk.embargo_sessions, self.horizon
            )
            features = inputs_of(self.workspace, inputs, train, self.window, self.horizon)
            return features, fold_parts(rows, served, features, (train, held, fold.test), self.window)

        def forecast(number: int, values: Values, seed: int) -> pd.DataFrame:
            sections = self.sections(values)
            features, datasets = parts(number, sections[self.kind].inputs)
            settings = sections["train"].model_copy(update={"seed": seed})
            return fit_and_forecast(self.kind, rows, features, sections[self.kind], settings, datasets)

        return forecast


class Fit(NamedTuple):
    """One fit of a trial."""

    trial: int
    """Its number among those that are tried together."""
    values: Values
    fold: int
    seed: int


@lru_cache(maxsize=1)  # a process makes many fits of one study
def _forecaster(root: str, kind: str, name: str) -> Callable[[int, Values, int], pd.DataFrame]:
    return Search.of(Workspace(root), kind).forecaster()


def _forecast(study: tuple[str, str, str], fit: Fit) -> tuple[Fit, pd.DataFrame]:
    """What a fit forecasts; all that it needs it reads, so that it may run in another process."""
    return fit, _forecaster(*study)(fit.fold, fit.values, fit.seed)


def search(
    workspace: Workspace,
    kind: str,
    trials: int | None = None,
    log: Callable[[Search, Values, Trial, bool], None] | None = None,
) -> Found:
    """Try params of a kind until its study has as many trials as wanted.

    Args:
        trials: in all, those of a search that was stopped included; those of `params.yaml` if not given.
        log: told of each trial that is finished; `log_run` if not given.

    Raises:
        ParamsError: there is nothing to search for the kind.
        DataError: too few sessions, or symbols.
        StoreError: another search runs in the workspace.
    """
    require("evaluation", "pitwise search")
    what = Search.of(workspace, kind)
    if read_parquet(workspace.dataset_rows, ["symbol"])["symbol"].nunique() < 2:
        raise DataError("a search compares rank ICs, and one symbol has no ranks. Load more symbols.")
    path = workspace.root / STUDY
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path.with_name("search.lock"), timeout=0):
            return _searched(what, trials or what.params.trials, log or log_run)
    except Timeout as error:
        raise StoreError(
            f"{path}: another search runs here. Wait for its end, or stop it first."
        ) from error


def _searched(what: Search, wanted: int, log: Callable[..., None]) -> Found:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    states = optuna.trial.TrialState
    study = optuna.create_study(
        storage=f"sqlite:///{what.workspace.root / STUDY}",
        study_name=what.name,
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(FEWEST)
        if what.params.pruning
        else optuna.pruners.NopPruner(),
    )
    _restart_running(study)
    before = study.get_trials(deepcopy=False)
    # With the seed alone, a search that goes on would draw again what it drew first.
    study.sampler = optuna.samplers.TPESampler(seed=what.params.seed + len(before))
    today = current(what.known, what.params.space[what.kind])
    if not before and today is not None:
        study.enqueue_trial(today)
    ended = (states.COMPLETE, states.PRUNED)
    done = [one for one in before if one.state in ended]
    # A kill may have come between the end of a trial and its line.
    record_trials(what.workspace, [Trial(**one.user_attrs[LEDGER]) for one in done])

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    hidden = not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), disable=hidden) as progress:
        bar = progress.add_task(f"{what.kind}: trials", total=wanted, completed=len(done))

        for first in range(len(done), wanted, what.params.at_once):
            drawn = [study.ask() for _ in range(min(what.params.at_once, wanted - first))]
            for one, mean in _tried_together(what, drawn, log):
                study.tell(one, mean, states.PRUNED if mean is None else states.COMPLETE)
                complete = study.get_trials(deepcopy=False, states=(states.COMPLETE,))
                best = f"best rank IC {study.best_value:+.4f}" if complete else "trials"
                progress.update(bar, advance=1, description=f"{what.kind}: {best}")
    return _found(study, what, today)


@dataclass
class _Trial:
    """A trial in its way through the inner folds."""

    drawn: Any
    """Optuna's."""
    values: Values
    fits: list[pd.DataFrame] = field(default_factory=list)
    """Of the fold it is in."""
    sessions: list[pd.DataFrame] = field(default_factory=list)
    """Of the folds before."""
    pruned: bool = False


def _tried_together(
    what: Search, drawn: list[Any], log: Callable[..., None]
) -> Iterator[tuple[Any, float | None]]:
    """Optuna's trials, each as soon as it is finished, with its mean rank IC; None where it was pruned.

    Their fits are tasks side by side, fold by fold, in an order that no number of workers changes.
    """
    engine = engine_of(what.workspace)
    study = str(what.workspace.root), what.kind, what.name
    seeds = range(what.params.seed, what.params.seed + what.params.seeds)
    space = what.params.space[what.kind]
    labels = read_parquet(what.workspace.dataset_rows, [*KEYS, "label"])
    trials = [_Trial(one, {key: of.suggest(one, key) for key, of in space.items()}) for one in drawn]

    def wanted() -> Iterator[Fit]:
        for fold in range(len(what.folds)):
            for number, one in enumerate(trials):
                for seed in seeds:
                    if not one.pruned:
                        yield Fit(number, one.values, fold, seed)

    on_gpu = what.kind in NETS
    for fit, said in run(engine, partial(_forecast, study), wanted(), True, lambda _: on_gpu):
        one = trials[fit.trial]
        if one.pruned:  # what had begun by then
            continue
        one.fits.append(said)
        if len(one.fits) < len(seeds):
            continue
        scores = pd.concat(one.fits).groupby(KEYS, observed=True, as_index=False)["score"].mean()
        one.fits.clear()
        table = scores.merge(labels, on=KEYS, validate="one_to_one")
        one.sessions.append(by_session(table, what.horizon))
        so_far = mean_and_t(pd.concat(one.sessions)["rank_ic"].to_numpy())[0]
        mean = so_far or 0.0  # who says the same of all symbols ranks nothing
        one.drawn.report(mean, fit.fold)
        is_last = fit.fold == len(what.folds) - 1
        one.pruned = not is_last and one.drawn.should_prune()
        if is_last or one.pruned:
            _record(what, one, log)
            yield one.drawn, None if one.pruned else mean


def _record(what: Search, one: _Trial, log: Callable[..., None]) -> None:
    """Keep what became of a trial in the study and in the ledger, and tell it."""
    found = pd.concat(one.sessions)
    line = trial("search", what.kind, what.recipe(one.values), found, what.horizon)
    one.drawn.set_user_attr("values", one.values)
    one.drawn.set_user_attr(LEDGER, line._asdict())
    record_trials(what.workspace, [line])
    log(what, one.values, line, one.pruned)


def _restart_running(study: Any) -> None:
    """Queue anew the trials that a stop or a kill has ended; the caller is the only one who searches."""
    from optuna.trial import TrialState

    for one in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(one.number, state=TrialState.FAIL)
        if one.params:
            study.enqueue_trial(one.params, skip_if_exists=False)


def _found(study: Any, what: Search, today: dict[str, Any] | None) -> Found:
    from optuna.trial import TrialState

    def tried(one: Any) -> Tried:
        line = Trial(**one.user_attrs[LEDGER])
        return Tried(one.user_attrs["values"], line.rank_ic_mean or 0.0, line.rank_ic_t, line.n_sessions)

    complete, pruned = (
        study.get_trials(deepcopy=False, states=[state])
        for state in (TrialState.COMPLETE, TrialState.PRUNED)
    )
    first = next((one for one in complete if one.params == today), None)
    return Found(
        best=tried(max(complete, key=lambda one: one.value)),
        first=None if first is None else tried(first),
        finished=len(complete) + len(pruned),
        pruned=len(pruned),
    )


def log_run(what: Search, values: Values, line: Trial, pruned: bool) -> None:
    """A trial as a run of MLflow's, once: a kill leaves none half-written."""
    registry = load_params(what.workspace, "registry", RegistryParams)
    with registry_writer(what.workspace):
        client = open_experiment(what.workspace, registry, what.params.experiment)
        experiment = client.get_experiment_by_name(what.params.experiment).experiment_id
        marks = {"study": what.name, "recipe": line.recipe, "last_session": line.last_session}
        same = " and ".join(f"tags.{key} = '{value}'" for key, value in marks.items())
        if client.search_runs([experiment], f"{same} and attributes.status = 'FINISHED'"):
            return
        tags = begun_in(what.workspace) | marks | {"source": line.source, "pruned": str(pruned).lower()}
        run = client.create_run(experiment, tags=tags, run_name=what.kind).info.run_id
        for key, value in values.items():
            client.log_param(run, key, value)
        for name in ("n_sessions", "rank_ic_mean", "rank_ic_t", "sharpe"):
            if (figure := getattr(line, name)) is not None:
                client.log_metric(run, name, figure)
        client.set_terminated(run)
