"""Versions listed, the champion moved by hand and back, in a real registry."""

import json

import pytest
from support.models_by_hand import contract, make_champion, onnx_model, register
from support.models_by_hand import registry as client_of

from pitwise.errors import StoreError
from pitwise.registry.champion import CHAMPION_HISTORY, LONGEST_TAG, move_champion
from pitwise.registry.model import RegistryParams
from pitwise.registry.versions import promote, rollback, versions
from pitwise.workspace import Workspace

REGISTRY = RegistryParams(tracking_uri="sqlite:///mlflow.db", model="pitwise")
FIGURES = {"by_hand__direction_accuracy": 0.52, "always_up__direction_accuracy": 0.53, "loss": 1.0}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    """Versions 1 to 3 are sound, 4 carries no contract."""
    workspace = Workspace(tmp_path_factory.mktemp("registry"))
    for scale in (0.01, 0.02, 0.03):
        register(workspace, onnx_model(scale), contract(), **FIGURES)
    register(workspace, onnx_model(), None)
    return workspace


@pytest.fixture
def client(workspace):
    """No champion, and no history of any."""
    client = client_of(workspace)
    client.delete_registered_model_alias("pitwise", "champion")
    client.set_registered_model_tag("pitwise", CHAMPION_HISTORY, "[]")
    return client


def champion(client) -> str:
    return str(client.get_model_version_by_alias("pitwise", "champion").version)


def history(client) -> list[dict]:
    return json.loads(client.get_registered_model("pitwise").tags[CHAMPION_HISTORY])


def test_versions_are_listed_with_figures_notes_and_their_history(client, workspace):
    client.set_model_version_tag("pitwise", "2", "gate", "version 2 (by_hand) refused")
    promote(workspace, REGISTRY, "2", "a try")
    rows = versions(workspace, REGISTRY)
    assert [row["version"] for row in rows] == ["1", "2", "3", "4"]
    two = rows[1]
    assert (two["kind"], two["aliases"]) == ("by_hand", ["champion"])
    assert two["metrics"] == {
        "by_hand": {"direction_accuracy": 0.52},
        "always_up": {"direction_accuracy": 0.53},
    }
    assert two["gate"] == "version 2 (by_hand) refused"
    (term,) = two["terms"]
    assert (term["by"], term["reason"]) == ("promote", "a try")
    assert term["since"].endswith("+00:00")
    assert rows[3]["kind"] is None
    assert [row["terms"] for row in (rows[0], rows[2], rows[3])] == [[], [], []]


def test_promote_moves_the_alias_and_notes_it(client, workspace):
    assert promote(workspace, REGISTRY, "1", "first") == {"version": "1", "before": None}
    assert promote(workspace, REGISTRY, "3", "better") == {"version": "3", "before": "1"}
    assert champion(client) == "3"
    moves = [(entry["version"], entry["by"], entry["reason"]) for entry in history(client)]
    assert moves == [("1", "promote", "first"), ("3", "promote", "better")]


def test_promoting_the_champion_changes_nothing(client, workspace):
    promote(workspace, REGISTRY, "1", "first")
    assert promote(workspace, REGISTRY, "1", "again") == {"version": "1", "before": "1"}
    assert len(history(client)) == 1


@pytest.mark.parametrize(
    ("version", "message"),
    [("9", "no version 9 that can be read"), ("4", "has no kind, features, window")],
)
def test_promote_refuses_what_cannot_be_champion(client, workspace, version, message):
    promote(workspace, REGISTRY, "1", "first")
    with pytest.raises(StoreError, match=message):
        promote(workspace, REGISTRY, version, "")
    assert champion(client) == "1"


def test_rollback_goes_back_step_by_step(client, workspace):
    for version in ("1", "2", "3"):
        promote(workspace, REGISTRY, version, "")
    assert rollback(workspace, REGISTRY) == {"version": "2", "before": "3"}
    assert rollback(workspace, REGISTRY) == {"version": "1", "before": "2"}
    with pytest.raises(StoreError, match="no champion before version 1"):
        rollback(workspace, REGISTRY)
    promote(workspace, REGISTRY, "3", "")
    assert rollback(workspace, REGISTRY)["version"] == "1"
    assert champion(client) == "1"
    assert [entry["by"] for entry in history(client)] == [
        *["promote"] * 3,
        *["rollback"] * 2,
        "promote",
        "rollback",
    ]


def test_a_champion_set_without_a_note_is_found_by_rollback(client, workspace):
    make_champion(workspace, "2")
    promote(workspace, REGISTRY, "3", "")
    assert history(client)[0] == {"version": "2", "since": None, "by": "unknown", "reason": ""}
    make_champion(workspace, "1")
    assert rollback(workspace, REGISTRY) == {"version": "3", "before": "1"}


def test_rollback_without_a_champion_says_so(client, workspace):
    with pytest.raises(StoreError, match="has no champion"):
        rollback(workspace, REGISTRY)


def test_the_history_forgets_its_oldest_rather_than_outgrow_its_tag(client):
    for i in range(30):
        move_champion(client, "pitwise", str(1 + i % 3), "gate", f"{i} " + "x" * 600)
    kept = history(client)
    assert len(json.dumps(kept)) <= LONGEST_TAG
    assert kept[-1]["reason"].startswith("29 ")
    assert len(kept) >= 5


def test_an_unknown_model_and_a_broken_registry_are_named(workspace, tmp_path):
    with pytest.raises(StoreError, match=r"registry.model 'nobody'.*not found"):
        versions(workspace, REGISTRY.model_copy(update={"model": "nobody"}))
    (tmp_path / "mlflow.db").write_bytes(b"x" * 10_000)
    with pytest.raises(StoreError, match=r"registry"):
        versions(Workspace(tmp_path), REGISTRY)
