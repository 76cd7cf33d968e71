"""What the gate and the report read: the walk-forward's recipes, the log's shadow, a choice's luck."""

import numpy as np
import pandas as pd
import pytest
from support import small_runs as small

from pitwise.registry.prediction_log import insert, open_log
from pitwise.workspace import Workspace, write_json, write_parquet
from training import register
from training.recipes import recipe_of
from training.walk_forward import luck

pytestmark = pytest.mark.component

CLOSES = pd.DatetimeIndex(["2016-01-04 21:00", "2016-01-05 21:00"], tz="UTC")
DAYS = pd.DatetimeIndex(["2016-01-04", "2016-01-05"])
SYMBOLS = ["A", "B", "C"]
LABELS = [-0.01, 0.0, 0.01]


def said(kind: str, scores: list[list[float]]) -> pd.DataFrame:
    """Of three symbols in two sessions, whose order is always A, B, C."""
    parts = [
        pd.DataFrame({"symbol": SYMBOLS, "event_timestamp": close, "score": of, "label": LABELS})
        for close, of in zip(CLOSES, scores, strict=True)
    ]
    whole = pd.concat(parts, ignore_index=True)
    return whole.assign(kind=kind, fold=0, seed=1, log_return=np.nan, p_up=np.nan, label_open=np.nan)


def test_the_walk_forward_speaks_for_the_recipes_that_it_was_made_by(tmp_path):
    workspace = Workspace(tmp_path)
    assert register.walked(workspace, {"ann"}, 1) is None
    forecasts = [
        said("ann", [[1, 2, 3], [3, 2, 1]]),
        said("ridge", [[1, 2, 3], [1, 2, 3]]),
        said("reversal", [[3, 2, 1], [3, 2, 1]]),
        said("always_up", [[0, 0, 0], [0, 0, 0]]),
    ]
    write_parquet(pd.concat(forecasts), workspace.walk_forward_forecasts)
    recipes = {name: name[0] * 16 for name in ("ann", "ridge", "reversal", "always_up")}
    write_json({"recipes": recipes, "horizon": 1}, workspace.walk_forward_report)
    evidence = register.walked(workspace, {"ann", "lstm"}, 1)
    assert evidence.best_baseline == "ridge"
    assert evidence.rank_ic["a" * 16].to_dict() == {DAYS[0]: 1.0, DAYS[1]: -1.0}
    assert list(evidence.rank_ic) == ["a" * 16]
    assert register.walked(workspace, {"ann", "lstm"}, 5) is None


def test_the_shadow_is_what_the_log_holds_of_a_version_with_what_came(tmp_path):
    workspace = small.new_workspace(tmp_path)
    rows = said("", [[0, 0, 0], [0, 0, 0]])
    assert register.logged_rank_ic(workspace, "2", rows).empty
    assert not (tmp_path / "data/predictions/log.db").exists()
    log = open_log(workspace.database_url("sqlite:///data/predictions/log.db"))
    logged = [("2", 0, 1.0), ("2", 1, 2.0), ("2", 2, 3.0), ("1", 0, 9.0)]
    given = [
        {
            "symbol": SYMBOLS[i],
            "as_of": CLOSES[0].to_pydatetime(),
            "model_version": version,
            "window_hash": "w",
            "for_session": DAYS[1].date(),
            "log_return": score,
            "price": 1.0,
            "p_up": 0.5,
            "served_at": CLOSES[0].to_pydatetime(),
            "role": "shadow",
        }
        for version, i, score in logged
    ]
    insert(log, given)
    found = register.logged_rank_ic(workspace, "2", rows)
    assert found.to_dict() == {DAYS[0]: pytest.approx(1.0)}


def test_a_recipe_is_its_params_and_neither_seed_nor_data(tmp_path):
    workspace = small.new_workspace(tmp_path)
    write_json({"window": 30, "horizon": 1, "splits": {"train": 1}}, workspace.dataset_report)
    first = recipe_of(workspace, "ann")
    small.change_params(workspace, train={"seed": 99}, lstm={"dense": 3})
    write_json({"window": 30, "horizon": 1, "splits": {"train": 2}}, workspace.dataset_report)
    assert recipe_of(workspace, "ann") == first
    changed = [
        {"train": {"patience": 99}},
        {"ann": {"hidden": [3]}},
        {"select": {"max_correlation": 0.5}},
    ]
    found = {first, recipe_of(workspace, "lstm")}
    for section in changed:
        small.change_params(workspace, **section)
        found.add(recipe_of(workspace, "ann"))
    assert len(found) == 5


def test_other_trials_on_record_make_the_same_sharpe_ratio_worth_less():
    rng = np.random.default_rng(5)
    a = rng.normal(0.001, 0.01, 300)
    spreads = pd.DataFrame({"ann": a, "twin": a * 2, "ridge": rng.normal(0, 0.01, 300), "drift": np.nan})
    alone, among = luck(spreads, []), luck(spreads, [0.05, -0.05, None])
    assert (alone["effective_trials"], among["effective_trials"]) == (2, 5)
    assert among["expected_max_sharpe"] > alone["expected_max_sharpe"] > 0
    assert among["dsr"]["ann"] < alone["dsr"]["ann"] < alone["psr"]["ann"] == among["psr"]["ann"]
    assert alone["psr"]["drift"] is None
