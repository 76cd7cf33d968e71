"""The search: which sessions it may see, that a stop costs one trial, and that each trial is counted."""

import json

import pandas as pd
import pytest
from support import small_runs as small

from pitwise.errors import ParamsError
from pitwise.evaluation.trials import recorded_trials
from pitwise.workspace import Workspace
from training.search import STUDY, Search, search
from training.search_space import as_command, as_yaml

pytestmark = pytest.mark.component

SPACE = {
    "gradient_boosting.iterations": {"low": 2, "high": 5},
    "gradient_boosting.rows_per_leaf": {"choices": [20, 50]},
}
PARAMS = {
    "first_test": 0.5,
    "step": "quarter",
    "at_once": 3,
    "pruning": False,
    "space": {"gradient_boosting": SPACE},
}


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    walk = {"first_test": 0.7, "embargo_sessions": 2}
    bars = small.market(6, 300, seed=3)
    return small.make_workspace(tmp_path, bars, search=PARAMS, walk_forward=walk)


def unlogged(*_: object) -> None:
    """In place of MLflow."""


def test_inner_folds_end_before_anything_is_judged(workspace):
    folds = Search.of(workspace, "gradient_boosting").folds
    rows = pd.read_parquet(workspace.dataset_rows)
    train = rows.loc[rows["split"] == "train", "event_timestamp"]
    usable = rows[rows["ends_window"] & rows["label"].notna()]["event_timestamp"].drop_duplicates()
    walked = usable.sort_values().iloc[int(0.7 * len(usable)) :].min()
    assert len(folds) >= 2
    for fold in folds:
        assert set(fold.train) | set(fold.test) <= set(train)
        assert fold.train[-1] < fold.test[0]
        assert fold.test[-1] < walked


def test_a_stopped_search_goes_on_and_each_trial_counts_once(workspace):
    def stop(_: object, values: dict, *__: object) -> None:
        tried.append(values)
        if len(tried) == 2:
            raise KeyboardInterrupt

    tried: list[dict] = []
    with pytest.raises(KeyboardInterrupt):
        search(workspace, "gradient_boosting", 4, stop)
    found = search(workspace, "gradient_boosting", 4, stop)
    assert found.finished == 4
    assert tried[2] == tried[1], "what was running is tried again"
    assert len(tried) == 5
    lines = recorded_trials(workspace)
    assert {(line.source, line.kind) for line in lines} == {("search", "gradient_boosting")}
    assert len(lines) == len({json.dumps(values) for values in tried})
    assert found.best.rank_ic_mean == max(line.rank_ic_mean or 0 for line in lines)
    assert (workspace.root / STUDY).exists()


def test_what_cannot_be_searched_is_refused_by_name(workspace):
    with pytest.raises(ParamsError, match="nothing to search for 'ridge'; it has gradient_boosting"):
        search(workspace, "ridge", 1, unlogged)
    seed = {"gradient_boosting.seed": {"low": 1, "high": 9}}
    small.change_params(workspace, search={"space": {"gradient_boosting": seed}})
    with pytest.raises(ParamsError, match=r"gradient_boosting\.seed cannot be searched"):
        search(workspace, "gradient_boosting", 1, unlogged)


def test_the_best_is_told_as_lines_and_as_a_command():
    values = {"train.learning_rate": 0.01, "ann.hidden": [64, 32]}
    assert as_yaml(values) == "train: {learning_rate: 0.01}\nann:\n  hidden: [64, 32]"
    assert as_command(values) == ("dvc exp run -S 'train.learning_rate=0.01' -S 'ann.hidden=[64,32]'")
