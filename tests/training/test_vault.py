"""The vault: opened once a release, on record, and by nobody else."""

from types import SimpleNamespace

import pytest
from support import small_runs as small

from pitwise.errors import ParamsError, StoreError
from training import vault

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
