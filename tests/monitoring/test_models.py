"""Is the version that answered the model it was registered as, and are the logged forecasts its own?"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import helper, numpy_helper
from support.models_by_hand import FEATURES, WINDOW, contract, onnx_model, register, registry
from support.workspaces import new_run

from monitoring import follow_up
from monitoring.findings import TODO
from monitoring.material import read_models
from monitoring.rerun import rerun
from pitwise.bars.calendar import session_close, session_date, session_number
from pitwise.errors import StoreError
from pitwise.registry.contract import open_onnx, run_onnx
from pitwise.registry.model import RegisteredModel
from pitwise.registry.promotions import record_promotion
from pitwise.workspace import Workspace, sha256, write_parquet

DAYS = session_date(session_number(pd.Series(pd.to_datetime(["2024-06-03"])))[0] + np.arange(12))
SYMBOLS = ["A", "B", "C"]


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return new_run(tmp_path / "run").workspace


def test_a_version_is_held_against_the_file_it_was_registered_as(workspace, tmp_path):
    file = tmp_path / "model.onnx"
    onnx.save(onnx_model(scale=0.01), file)
    recorded = sha256(file)
    record_promotion(workspace, file, contract(), "gate", "the first")
    versions = [
        (onnx_model(scale=0.01), recorded),
        (onnx_model(scale=0.011), recorded),
        (onnx_model(scale=0.01), "f" * 64),
    ]
    for model, identity in versions:
        version = register(workspace, model, contract())
        registry(workspace).set_model_version_tag("pitwise", version, "onnx_sha256", identity)
    found = read_models(workspace, ["1", "2", "3", "9"])
    problems = {name: model.problem for name, model in found.items()}
    assert problems == {"1": None, "2": "model_changed", "3": "model_unknown", "9": "model_gone"}
    assert found["1"].identity == recorded == sha256(found["1"].file)
    assert recorded[:12] in found["2"].text


def daily() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    n = len(SYMBOLS) * len(DAYS)
    closes = session_close(DAYS.to_series()).to_numpy()
    table = pd.DataFrame(rng.uniform(1, 1e6, size=(n, len(FEATURES))), columns=list(FEATURES))
    return table.assign(
        symbol=np.repeat(SYMBOLS, len(DAYS)),
        event_timestamp=pd.to_datetime(np.tile(closes, len(SYMBOLS)), utc=True),
        created_timestamp=lambda t: t["event_timestamp"],
        price_factor=1.0,
        share_factor=1.0,
    )


def served(workspace: Workspace, file: Path) -> tuple[RegisteredModel, dict, np.ndarray]:
    """The model of a file, what `rerun` takes of the last two sessions, and their windows."""
    session = open_onnx(file, threads=1)
    model = RegisteredModel("1", "by_hand", FEATURES, WINDOW, session, {})
    table = daily()
    last = table["event_timestamp"] >= table["event_timestamp"].unique()[-2]
    windows = np.stack(
        [
            table.loc[at - WINDOW + 1 : at, list(FEATURES)].to_numpy("float32")
            for at in np.flatnonzero(last)
        ]
    )
    rows = table.loc[last, ["symbol", "event_timestamp"]].reset_index(drop=True)
    rows = rows.assign(label=np.nan, log_return=run_onnx(session, windows)["log_return"])
    seals = pd.DataFrame({"date": DAYS, "sealed_at": session_close(DAYS.to_series()).to_numpy()})
    seals["sealed_at"] = pd.to_datetime(seals["sealed_at"], utc=True)
    # A correction of the day after is in no window that had been served.
    corrected = table[table["symbol"] == "A"].iloc[-3:-2].assign(close=1e9)
    corrected["created_timestamp"] = table["event_timestamp"].max() + pd.Timedelta(days=1)
    history = pd.concat([table, corrected]).sort_values(
        ["symbol", "event_timestamp", "created_timestamp"]
    )
    write_parquet(history, workspace.daily_features)
    return model, {"rows": rows, "seals": seals, "most": 100, "seed": 1}, windows


def test_logged_forecasts_are_those_of_the_model_on_the_windows_as_they_were(workspace, tmp_path):
    onnx.save(onnx_model(), tmp_path / "model.onnx")
    model, given, _ = served(workspace, tmp_path / "model.onnx")
    rows = given["rows"]
    found, findings = rerun(workspace, model, **given)
    assert (found["n"], found["differ"], findings) == (6, 0.0, [])
    assert {row["feature"] for row in found["importance"]} == set(FEATURES)
    other = rows.assign(log_return=rows["log_return"] + 0.001)
    found, findings = rerun(workspace, model, **given | {"rows": other})
    assert (found["differ"], [f.kind for f in findings]) == (1.0, ["not_of_the_model"])
    one = rows.assign(log_return=rows["log_return"] + 0.001 * (rows.index == 0))
    found, findings = rerun(workspace, model, **given | {"rows": one})
    assert [f.kind for f in findings] == ["other_windows"]


def test_the_attention_of_a_transformer_is_told_by_sessions_back(workspace, tmp_path):
    graph = onnx_model()  # looks at a session the more, the larger the mean of its features is
    graph.graph.initializer.append(numpy_helper.from_array(np.array([2], "int64"), "of_features"))
    graph.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["windows", "of_features"], ["by_session"], keepdims=0),
            helper.make_node("Mul", ["by_session", "millionth"], ["looked_at"]),
            helper.make_node("Softmax", ["looked_at"], ["attention"]),
        ]
    )
    file = tmp_path / "model.onnx"
    onnx.save(graph, file)
    model, given, windows = served(workspace, file)
    assert rerun(workspace, model, **given, file=file)[0]["attention"] == []
    told = rerun(workspace, replace(model, kind="transformer"), **given, file=file)[0]["attention"]

    weights = np.exp(windows.astype(float).mean(axis=2) / 1e6)
    shares = weights / weights.sum(axis=1, keepdims=True)
    # Rows are by symbol, of each its two sessions.
    first, second = shares[::2].mean(axis=0)[::-1], shares[1::2].mean(axis=0)[::-1]
    assert [row["back"] for row in told] == list(range(WINDOW))
    np.testing.assert_allclose([row["share"] for row in told], (first + second) / 2, rtol=1e-5)
    # The standard error of two values' mean is half their distance.
    noise = [row["share_se"] for row in told]
    np.testing.assert_allclose(noise, np.abs(first - second) / 2, atol=1e-7)
    json.dumps(told, allow_nan=False)


def test_a_worse_model_is_trained_anew_where_that_is_wanted(workspace, monkeypatch):
    did = []
    monkeypatch.setattr(follow_up, "retrain", lambda _, week: did.append(week))
    worse = {"week": "2024-W23", "verdict": "act", "todo": TODO["retrain"]}
    follow_up.follow_up(workspace, worse)
    assert did == []
    text = workspace.params.read_text()
    workspace.params.write_text(text.replace("retrain: propose", "retrain: auto"))
    follow_up.follow_up(workspace, worse | {"todo": TODO["bars"]})
    follow_up.follow_up(workspace, worse)
    assert did == ["2024-W23"]


def test_a_retraining_that_fails_says_what_it_needs(workspace, monkeypatch):
    asked = {}

    def no_git(command, **options):
        asked.update(options, command=command)
        return SimpleNamespace(returncode=255)

    monkeypatch.setattr(follow_up, "track_landings", lambda _: None)
    monkeypatch.setattr(follow_up.subprocess, "run", no_git)
    with pytest.raises(StoreError, match="Git repository"):
        follow_up.retrain(workspace, "2024-W23")
    assert asked["command"][1:] == ["-m", "dvc", "exp", "run", "--message", "retrain of 2024-W23"]
    # What the stages call `python` is this one.
    assert asked["env"]["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
