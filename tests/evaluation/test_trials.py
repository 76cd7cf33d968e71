"""The ledger of trials: what it counts, and where those of an experiment go."""

import numpy as np
import pandas as pd
import pytest

from pitwise.errors import StoreError
from pitwise.evaluation.trials import LEDGER, Trial, record_trials, recorded_trials, trial
from pitwise.workspace import Workspace

pytestmark = pytest.mark.unit


def tried(recipe: str, **others) -> Trial:
    given = {"first_session": "2016-01-04", "last_session": "2017-12-28", "rank_ic_mean": 0.01}
    given |= {"at": "2026-01-01T00:00:00+00:00", "source": "search", "kind": "ann", "n_sessions": 502}
    return Trial(**given | {"rank_ic_t": 1.0, "sharpe": None} | others, recipe=recipe)


def test_a_recipe_counts_once_for_the_same_sessions_whatever_its_figures(tmp_path):
    workspace = Workspace(tmp_path)
    one, two = tried("a" * 16), tried("b" * 16)
    assert record_trials(workspace, [one, two, one]) == 2
    content = (tmp_path / LEDGER).read_bytes()
    again = tried("a" * 16, rank_ic_mean=0.0100000001, at="2026-02-02T00:00:00+00:00")
    assert record_trials(workspace, [again]) == 0
    assert (tmp_path / LEDGER).read_bytes() == content
    later = tried("a" * 16, last_session="2018-12-28")
    assert record_trials(workspace, [later]) == 1
    assert recorded_trials(workspace) == [one, two, later]


def test_a_line_that_a_power_loss_cut_off_was_never_written(tmp_path):
    workspace = Workspace(tmp_path)
    record_trials(workspace, [tried("a" * 16), tried("b" * 16)])
    path = tmp_path / LEDGER
    path.write_bytes(path.read_bytes()[:-5])
    assert recorded_trials(workspace) == [tried("a" * 16)]
    assert record_trials(workspace, [tried("b" * 16)]) == 1
    assert len(recorded_trials(workspace)) == 2
    path.write_text(path.read_text() + "<<<<<<< HEAD\n")
    with pytest.raises(StoreError, match="line 3: is no trial"):
        recorded_trials(workspace)


def test_the_trials_of_an_experiment_reach_the_workspace_it_comes_from(tmp_path, monkeypatch):
    workspace = Workspace(tmp_path)
    copy = Workspace(tmp_path / ".dvc/tmp/exps/standalone/tmp1")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))  # as DVC sets it for the commands of its stages
    assert copy.origin.root == workspace.origin.root == tmp_path
    assert record_trials(copy, [tried("a" * 16)]) == 1
    assert recorded_trials(workspace) == recorded_trials(copy) == [tried("a" * 16)]
    assert not copy.root.exists()
    elsewhere = Workspace(tmp_path / "nested")  # another workspace's stage may run in a shell of DVC's
    assert elsewhere.origin is elsewhere


def test_the_figures_of_a_trial_are_of_its_sessions():
    days = pd.DatetimeIndex(["2016-01-04 21:00", "2016-01-05 21:00", "2016-01-06 21:00"], tz="UTC")
    spread = [0.01, 0.02, 0.06]
    sessions = pd.DataFrame({"rank_ic": [0.1, 0.2, 0.3], "decile_spread": spread}, index=days)
    found = trial("evaluate", "ann", "a" * 16, sessions, 1)
    assert (found.first_session, found.last_session, found.n_sessions) == ("2016-01-04", "2016-01-06", 3)
    assert found.rank_ic_mean == pytest.approx(0.2)
    assert found.sharpe == pytest.approx(np.mean(spread) / np.std(spread, ddof=1))
    no_books = trial("evaluate", "ann", "a" * 16, sessions.assign(decile_spread=np.nan), 1)
    assert no_books.sharpe is None
