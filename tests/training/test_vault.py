"""The vault: opened once a release, on record, and by nobody else."""

from types import SimpleNamespace

import onnxruntime as ort
import pandas as pd
import pytest
from support import small_runs as small
from support.models_by_hand import FEATURES, WINDOW, contract, onnx_model

from feature_repo import publish
from pitwise.errors import ParamsError, StoreError
from pitwise.registry.model import RegisteredModel
from pitwise.workspace import read_parquet
from training import dataset, unseen, vault

pytestmark = pytest.mark.component


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A workspace with a vault and champion `a`; what scores it answers its own sha256."""
    made = small.new_workspace(tmp_path, evaluate={"vault": "kept.csv"})
    (tmp_path / "kept.csv").touch()
    made.scored = []
    champion_is(monkeypatch, made, "a" * 64)
    return made


def champion_is(monkeypatch, workspace, identity: str) -> None:
    def evaluate(of, data):
        workspace.scored.append(data)
        return {"data": str(data), "champion": {"onnx_sha256": identity}}

    champion = SimpleNamespace(tags={"onnx_sha256": identity})
    monkeypatch.setattr(vault, "restored_champion", lambda *_: champion)
    monkeypatch.setattr(vault, "evaluate", evaluate)


def test_a_release_opens_it_once_and_reads_its_record_after(workspace):
    first = vault.open_vault(workspace, "1.0")
    assert (first["release"], first["onnx_sha256"]) == ("1.0", "a" * 64)
    assert first["report"]["data"] == "kept.csv"  # as the params name it: the ledger is for everybody
    assert vault.open_vault(workspace, "1.0") == first
    assert workspace.scored == [workspace.root / "kept.csv"]
    vault.open_vault(workspace, "1.1")
    assert [entry["release"] for entry in vault.openings(workspace)] == ["1.0", "1.1"]


def test_another_champion_may_not_open_it_for_the_same_release(workspace, monkeypatch):
    vault.open_vault(workspace, "1.0")
    champion_is(monkeypatch, workspace, "b" * 64)
    with pytest.raises(StoreError, match=r"release 1\.0 .* by another champion"):
        vault.open_vault(workspace, "1.0")
    assert len(workspace.scored) == 1
    assert vault.open_vault(workspace, "1.1")["onnx_sha256"] == "b" * 64


@pytest.mark.parametrize(("given", "says"), [(None, "is null"), ("gone.csv", "no file or folder")])
def test_without_a_vault_nothing_is_opened(workspace, given, says):
    small.change_params(workspace, evaluate={"vault": given})
    with pytest.raises(ParamsError, match=says):
        vault.open_vault(workspace, "1.0")
    assert vault.openings(workspace) == []


def test_sessions_of_the_own_bars_are_closed_until_it_is_opened(tmp_path, monkeypatch):
    workspace = small.make_workspace(tmp_path / "workspace", small.market(5, 120, seed=21))
    publish.main(workspace)
    every = sorted(read_parquet(workspace.daily_features)["event_timestamp"].unique())
    day = {"from": f"{every[90]:%Y-%m-%d}"}
    split = {"validation_fraction": 0.4, "embargo_sessions": 0}
    small.change_params(workspace, evaluate={"vault": day}, label={"horizon": 5}, dataset=split)
    dataset.main(workspace)
    rows = read_parquet(workspace.dataset_rows)
    assert rows["event_timestamp"].max() == every[89]
    last = {
        name: rows.loc[rows[name].notna(), "event_timestamp"].max() for name in ("label", "label_open")
    }
    assert last == {"label": every[84], "label_open": every[83]}  # five sessions later is in the vault

    fitted = contract(fitted_last_session=f"{every[80]:%Y-%m-%d}", horizon=5)
    session = ort.InferenceSession(onnx_model().SerializeToString())
    champion = RegisteredModel("1", "by_hand", FEATURES, WINDOW, session, fitted)
    monkeypatch.setattr(unseen, "_champion", lambda _: champion)
    monkeypatch.setattr(vault, "restored_champion", lambda *_: SimpleNamespace(tags={}))
    report = vault.open_vault(workspace, "1.0")["report"]
    assert report["first_session"] == day["from"]
    assert report["last_session"] == f"{pd.Timestamp(every[-6]):%Y-%m-%d}"
    assert report["figures"]["champion"]["n_predictions"] == 5 * (len(every) - 5 - 90)
    assert report["horizon"] == 5
