"""The ledger of promotions, and a registry made again from it."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.models_by_hand import FEATURES, WINDOW, contract, onnx_model

from pitwise.errors import StoreError
from pitwise.registry import restore
from pitwise.registry.champion import (
    champion_history,
    open_experiment,
    registered_version,
    registry_client,
)
from pitwise.registry.model import RegistryParams, load_registered
from pitwise.registry.promotions import LEDGER, promoted_model, promotions, record_promotion
from pitwise.registry.restore import PROMOTION, restored_champion
from pitwise.registry.runs import begun_in
from pitwise.registry.versions import promote, rollback
from pitwise.workspace import Workspace

REGISTRY = RegistryParams(tracking_uri="sqlite:///mlflow.db", model="pitwise")
TRAINING = contract(rows_sha256="ab" * 32, onnx_parity=1e-7, fitted_last_session="2014-01-03")


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path / "workspace")


def model_file(folder: Path, scale: float) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{scale}.onnx"
    path.write_bytes(onnx_model(scale).SerializeToString())
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def promoted(workspace: Workspace, folder: Path, *scales: float) -> list[str]:
    """These models champion one after the other; their sha256."""
    files = [model_file(folder, scale) for scale in scales]
    for file, scale in zip(files, scales, strict=True):
        figures = {"skill_vs_persistence": scale, "direction_accuracy": None}
        record_promotion(workspace, file, TRAINING, "gate", f"won at {scale}", figures, unproven=True)
    return [digest(file) for file in files]


def test_a_promotion_is_one_line_and_its_model_is_kept(workspace, tmp_path):
    one, two = promoted(workspace, tmp_path, 0.01, 0.02)
    lines = (workspace.root / "ledger/promotions.jsonl").read_text().splitlines()
    assert [json.loads(line)["onnx_sha256"] for line in lines] == [one, two]
    first, second = (json.loads(line) for line in lines)
    assert first | {"at": ""} == {
        "at": "",
        "by": "gate",
        "kind": "by_hand",
        "onnx_sha256": one,
        "rows_sha256": "ab" * 32,
        "previous": None,
        "unproven": True,
        "figures": {"skill_vs_persistence": 0.01, "direction_accuracy": None},
        "reason": "won at 0.01",
    }
    assert first["at"].endswith("+00:00")
    assert second["previous"] == one
    assert digest(workspace.root / f"data/promoted/{one}/model.onnx") == one
    assert promoted_model(workspace, two)[1] == TRAINING
    assert promoted_model(workspace, "0" * 64) is None


def test_who_is_champion_already_is_not_promoted_again_but_may_come_back(workspace, tmp_path):
    one, two = promoted(workspace, tmp_path, 0.01, 0.01, 0.02, 0.02, 0.01)[::2][:2]
    whole = (workspace.root / LEDGER).read_bytes()
    assert [entry["onnx_sha256"] for entry in promotions(workspace)] == [one, two, one]
    promoted(workspace, tmp_path, 0.01)
    assert (workspace.root / LEDGER).read_bytes() == whole


def test_a_line_that_a_power_loss_cut_off_was_never_written(workspace, tmp_path):
    one, two = promoted(workspace, tmp_path, 0.01, 0.02)
    path = workspace.root / LEDGER
    path.write_bytes(path.read_bytes()[:-9])
    assert [entry["onnx_sha256"] for entry in promotions(workspace)] == [one]
    promoted(workspace, tmp_path, 0.02)
    assert [entry["onnx_sha256"] for entry in promotions(workspace)] == [one, two]


def test_a_line_that_is_no_promotion_is_named(workspace, tmp_path):
    promoted(workspace, tmp_path, 0.01)
    with (workspace.root / LEDGER).open("a") as file:
        file.write("<<<<<<< HEAD\n")
    with pytest.raises(StoreError, match="line 2: is no promotion"):
        promotions(workspace)


def test_an_empty_registry_gets_its_champion_and_its_history_back(workspace, tmp_path):
    one, two = promoted(workspace, tmp_path, 0.01, 0.02)
    champion = restored_champion(workspace, REGISTRY)
    client = registry_client(workspace, REGISTRY)
    assert champion.tags["onnx_sha256"] == two
    entries = promotions(workspace)
    assert json.loads(champion.tags[PROMOTION]) == entries[1]
    history = champion_history(client.get_registered_model("pitwise"))
    assert [(e["since"], e["by"], e["reason"]) for e in history] == [
        (entry["at"], "gate", entry["reason"]) for entry in entries
    ]
    run = client.get_run(champion.run_id)
    assert run.data.metrics == {"by_hand.skill_vs_persistence": 0.02}
    loaded = load_registered("pitwise", champion)
    assert (loaded.kind, loaded.features, loaded.window) == ("by_hand", FEATURES, WINDOW)
    windows = np.full((1, WINDOW, len(FEATURES)), 1e6, "float32")
    (log_return,) = loaded.session.run(["log_return"], {"windows": windows})
    assert log_return[0] == pytest.approx(0.02 * np.tanh(1.0))
    assert rollback(workspace, REGISTRY)["before"] == str(champion.version)
    assert promotions(workspace)[2]["onnx_sha256"] == one


def test_a_restored_registry_is_not_restored_again(workspace, tmp_path):
    promoted(workspace, tmp_path, 0.01)
    first = restored_champion(workspace, REGISTRY)
    again = restored_champion(workspace, REGISTRY)
    assert (str(first.version), str(again.version)) == ("1", "1")
    versions = registry_client(workspace, REGISTRY).search_model_versions("name='pitwise'")
    assert len(versions) == 1


def test_the_registrys_own_champion_stays_whatever_the_ledger_says(workspace, tmp_path):
    one, _ = promoted(workspace, tmp_path, 0.01, 0.02)
    restored_champion(workspace, REGISTRY)
    client = registry_client(workspace, REGISTRY)
    client.set_registered_model_alias("pitwise", "champion", "1")
    assert restored_champion(workspace, REGISTRY).tags["onnx_sha256"] == one


def test_without_promotions_nothing_is_made(workspace):
    workspace.root.mkdir()
    assert restored_champion(workspace, REGISTRY) is None
    assert not (workspace.root / "mlruns").exists()


def test_a_champion_whose_file_is_not_here_is_named(workspace, tmp_path):
    (one,) = promoted(workspace, tmp_path, 0.01)
    shutil.rmtree(workspace.root / "data/promoted")
    with pytest.raises(StoreError, match=f"{one[:12]}.*is not in this workspace. `dvc pull` brings it"):
        restored_champion(workspace, REGISTRY)
    fitted = workspace.models / "ann"  # trained again, to the byte
    fitted.mkdir(parents=True)
    shutil.copy(tmp_path / "0.01.onnx", fitted / "model.onnx")
    (fitted / "training.json").write_text(json.dumps(TRAINING))
    assert restored_champion(workspace, REGISTRY).tags["onnx_sha256"] == one


def test_an_older_champion_whose_file_is_gone_is_left_out(workspace, tmp_path):
    one, two = promoted(workspace, tmp_path, 0.01, 0.02)
    shutil.rmtree(workspace.root / f"data/promoted/{one}")
    assert restored_champion(workspace, REGISTRY).tags["onnx_sha256"] == two


def test_a_promotion_by_hand_is_in_the_ledger_too(workspace, tmp_path):
    one, two = promoted(workspace, tmp_path, 0.01, 0.02)
    restored_champion(workspace, REGISTRY)
    promote(workspace, REGISTRY, "1", "the other one drifts")
    last = promotions(workspace)[-1]
    assert (last["by"], last["onnx_sha256"], last["previous"]) == ("promote", one, two)
    assert last["reason"] == "the other one drifts"
    clone = Workspace(tmp_path / "clone")
    shutil.copytree(workspace.root, clone.root, ignore=shutil.ignore_patterns("mlflow.db*", "mlruns"))
    assert restored_champion(clone, REGISTRY).tags["onnx_sha256"] == one
    client = registry_client(clone, REGISTRY)
    assert registered_version(client, "pitwise", "champion").tags["kind"] == "by_hand"


def test_a_restored_version_is_served_by_mlflow(workspace, tmp_path):
    import mlflow
    from fastapi.testclient import TestClient
    from mlflow.pyfunc import scoring_server

    promoted(workspace, tmp_path, 0.01)
    champion = restored_champion(workspace, REGISTRY)
    loaded = mlflow.pyfunc.load_model(f"models:/pitwise/{champion.version}")
    windows = np.full((2, WINDOW, len(FEATURES)), 1e6)
    answer = TestClient(scoring_server.init(loaded)).post(
        "/invocations", json={"inputs": {"windows": windows.tolist()}}
    )
    assert answer.status_code == 200, answer.text
    predictions = answer.json()["predictions"]
    assert predictions["log_return"] == pytest.approx([0.01 * np.tanh(1)] * 2, rel=1e-5)
    assert predictions["p_up"] == pytest.approx([1 / (1 + np.exp(-1))] * 2, rel=1e-5)
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/pitwise/{champion.version}"))
    assert "onnxruntime" in (folder / "requirements.txt").read_text()
    assert (folder / "python_env.yaml").exists()


def test_a_restoring_that_fails_leaves_no_run_behind(workspace, tmp_path, monkeypatch):
    promoted(workspace, tmp_path, 0.01)

    def no_room(*arguments) -> None:
        raise OSError("no room")

    monkeypatch.setattr(restore, "_describe", no_room)
    with pytest.raises(OSError, match="no room"):
        restored_champion(workspace, REGISTRY)
    client = registry_client(workspace, REGISTRY)
    experiment = client.get_experiment_by_name("pitwise").experiment_id
    assert [run.info.status for run in client.search_runs([experiment])] == ["FAILED"]


def test_a_restoring_that_was_killed_is_marked_by_the_next_one(workspace, tmp_path):
    promoted(workspace, tmp_path, 0.01)
    client = open_experiment(workspace, REGISTRY, "pitwise")
    experiment = client.get_experiment_by_name("pitwise").experiment_id
    client.create_run(experiment, tags=begun_in(workspace))
    client.create_run(experiment, tags=begun_in(Workspace(tmp_path / "other")))
    restored_champion(workspace, REGISTRY)
    statuses = sorted(run.info.status for run in client.search_runs([experiment]))
    assert statuses == ["FINISHED", "KILLED", "RUNNING"]
