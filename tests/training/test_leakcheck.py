"""Each check of the leak gate passes what is honest and fails what is planted."""

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from onnx import helper, numpy_helper
from support import small_runs as small
from support.deliveries import delivery, versions_of

from pitwise.bars.calendar import session_close
from pitwise.bars.schema import COLUMNS, NUMBERS
from pitwise.bars.versions import BarVersions
from pitwise.cleaning.clean import CleanParams
from pitwise.features.history import CREATED, KEYS, known
from pitwise.features.served import ENDS, as_served
from pitwise.features.versions import feature_history
from pitwise.stage import load_params
from pitwise.workspace import Workspace, read_json, write_json
from training import KINDS, leakcheck
from training.models.fit import fit_scaling
from training.models.forecaster import Forecaster
from training.select import SelectParams, seen_in_training, select

pytestmark = pytest.mark.unit
PARAMS = leakcheck.LeakcheckParams(instants=4, symbols=3, seed=1)
CLEAN = load_params(Workspace(small.PROJECT), "clean", CleanParams).model_copy(
    update={"min_history": 40}
)
ABSENT = pd.DataFrame(columns=COLUMNS)


@pytest.fixture(scope="module")
def delivered() -> tuple[BarVersions, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Bars of 4 symbols of which three closes are corrected later; their set as served, and history."""
    bars = small.market(4, 100, seed=5)[COLUMNS]
    closes = pd.Series(session_close(bars["date"].drop_duplicates()).array)
    wrong = bars.copy()
    at = [60, 170, 275]
    wrong.loc[at, NUMBERS[:4]] *= 1.004
    late = delivery(bars.iloc[at], closes.iloc[-2] + pd.Timedelta(hours=3))
    first = delivery(wrong, closes.iloc[-1] + pd.Timedelta(hours=1), history="assumed")
    versions = versions_of([first, late])
    _, history = feature_history(versions, CLEAN)
    ends, served = as_served(history, versions.seals, small.WINDOW)
    return versions, known(history).assign(**{ENDS: ends}), served, history


def prefix(rows, served, delivered) -> dict:
    versions, _, _, history = delivered
    first = history.drop_duplicates(KEYS).set_index(KEYS)[CREATED]
    return leakcheck.check_prefix(rows, served, versions, ABSENT, first, small.WINDOW, CLEAN, PARAMS)


def test_the_windows_as_served_are_those_of_the_bars_known_then(delivered):
    _, rows, served, _ = delivered
    assert served[ENDS].sum() > 10
    found = prefix(rows, served, delivered)
    assert found["passed"]
    assert found["windows"] >= 9


def test_corrections_that_had_not_come_are_found(delivered):
    _, rows, served, _ = delivered
    found = prefix(rows, served[:0], delivered)
    assert not found["passed"]
    assert found["first"]["symbol"] in found["says"]


def test_a_feature_of_tomorrow_is_found_and_named(delivered):
    _, rows, served, _ = delivered
    ahead = rows.assign(rsi_14=rows.groupby("symbol")["rsi_14"].shift(-1).fillna(50.0))
    found = prefix(ahead, served, delivered)
    assert not found["passed"]
    assert found["first"]["feature"] == "rsi_14"


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return small.dataset_rows(small.market(8, 200, seed=2))


def nothing_served(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[:0].assign(begins=False)


def test_a_choice_on_other_rows_than_the_training_ones_is_found(rows):
    params = SelectParams(method="correlation", n=8, max_correlation=0.9, features=("close",))
    train = rows.assign(label=rows["label"].where(rows["split"] == "train"))
    all_of_it = rows.assign(split=np.where(rows["split"] == "", "", "train"))

    def check(chosen_on: pd.DataFrame) -> dict:
        seen = seen_in_training([(chosen_on, nothing_served(rows))], small.WINDOW)
        report = select(*seen, params)
        return leakcheck.check_selection(
            [(train, nothing_served(rows))], small.WINDOW, 1, params, report
        )

    assert check(rows)["passed"]
    assert not check(all_of_it)["passed"]


def test_scaling_that_saw_validation_dates_is_found(rows, tmp_path):
    workspace = Workspace(tmp_path)

    def check(split: str | None) -> dict:
        of = rows if split else rows.assign(split=rows["split"].replace("validation", "train"))
        model = Forecaster("ann", small.FEATURES, small.WINDOW, small.BODIES["ann"])
        with torch.no_grad():
            fit_scaling(model, small.part(of, "train"))
        tensors = [
            numpy_helper.from_array(value.numpy(), name)
            for name, value in model.state_dict().items()
            if not name.startswith(("body", "heads"))
        ]
        graph = helper.make_graph([], "model", [], [], initializer=tensors)
        for kind in KINDS:
            folder = workspace.models / kind
            folder.mkdir(parents=True, exist_ok=True)
            onnx.save(helper.make_model(graph), str(folder / "model.onnx"))
            write_json(
                {"features": list(small.FEATURES), "window": small.WINDOW}, folder / "training.json"
            )
        return leakcheck.check_scaling(rows, nothing_served(rows), workspace)

    assert check("train")["passed"]
    assert not check(None)["passed"]


def test_the_gap_between_parts_is_counted_in_the_exchange_s_sessions():
    """Thanksgiving of 2014: Wednesday the 26th, then Friday, and Monday the 1st. The label looks one
    session ahead, so that of the 26th is known on the 28th, one session before the 1st."""
    days = pd.to_datetime(["2014-11-25", "2014-11-26", "2014-12-01", "2014-12-02", "2014-12-05"])
    instants = session_close(pd.Series(days.as_unit("us")))
    rows = pd.DataFrame({"event_timestamp": instants})
    rows["split"] = ["train", "train", "validation", "validation", "test"]
    fits = {"ann": {"train_last_session": "2014-11-26", "fitted_last_session": "2014-12-02"}}
    found = leakcheck.check_purge(rows, 1, 0, fits)
    assert found["gap"]["train to validation"] == 1
    assert found["gap"]["validation to test"] == 2
    assert found["passed"]
    assert not leakcheck.check_purge(rows, 1, 1, fits)["passed"]
    assert not leakcheck.check_purge(rows, 2, 0, fits)["passed"]
    late = {"ann": fits["ann"] | {"fitted_last_session": "2014-12-04"}}
    found = leakcheck.check_purge(rows, 1, 0, late)
    assert not found["passed"]
    assert "ann's fit to test 0" in found["says"]


def test_shuffled_labels_are_forecast_by_nothing_but_rows_that_were_fitted(rows):
    honest = leakcheck.check_shuffled(rows, seed=3)
    assert honest["passed"]
    assert honest["rank_ic_t"] is not None
    test = rows[rows["split"] == "test"].assign(split="train")
    found = leakcheck.check_shuffled(pd.concat([rows, test], ignore_index=True), seed=3)
    assert not found["passed"]
    assert found["rank_ic_mean"] > 0.1


def test_a_failed_check_ends_the_stage_and_is_in_its_report(tmp_path, monkeypatch):
    workspace = small.new_workspace(tmp_path)
    found = {
        "purge": {"passed": True, "says": "fine"},
        "prefix": {"passed": False, "says": "S1 differs"},
    }
    monkeypatch.setattr(leakcheck, "checks", lambda *_: found)
    with pytest.raises(
        leakcheck.LeakError, match=r"leakcheck\.json: 1 of 2 checks failed\. prefix: S1 d"
    ):
        leakcheck.main(workspace)
    assert read_json(workspace.leakcheck_report) == found
