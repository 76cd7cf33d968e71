"""Versions listed, the champion moved by hand and back, in a real registry."""

import json

import mlflow
import pytest

from feature_repo.errors import StoreError
from feature_repo.model import CHAMPION_HISTORY, LONGEST_TAG, move_champion
from serving import registry
from tests.models_by_hand import contract, onnx_model, register

FIGURES = {"by_hand__direction_accuracy": 0.52, "always_up__direction_accuracy": 0.53, "loss": 1.0}


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """Versions 1 to 3 are sound, 4 carries no contract."""
    folder = tmp_path_factory.mktemp("registry")
    for scale in (0.01, 0.02, 0.03):
        register(folder, onnx_model(scale), contract(), **FIGURES)
    register(folder, onnx_model(), None)
    return f"sqlite:///{folder}/mlflow.db"


@pytest.fixture
def client(uri):
    """Nobody in office, nothing noted."""
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    client.delete_registered_model_alias("pitwise", "champion")
    client.set_registered_model_tag("pitwise", CHAMPION_HISTORY, "[]")
    return client


def champion(client) -> str:
    return str(client.get_model_version_by_alias("pitwise", "champion").version)


def history(client) -> list[dict]:
    return json.loads(client.get_registered_model("pitwise").tags[CHAMPION_HISTORY])


def test_versions_are_listed_with_figures_notes_and_terms(client, uri):
    client.set_model_version_tag("pitwise", "2", "gate", "version 2 (by_hand) refused")
    registry.promote(uri, "pitwise", "2", "a try")
    rows = registry.versions(uri, "pitwise")
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


def test_promote_moves_the_alias_and_notes_it(client, uri):
    assert registry.promote(uri, "pitwise", "1", "first") == {"version": "1", "before": None}
    assert registry.promote(uri, "pitwise", "3", "better") == {"version": "3", "before": "1"}
    assert champion(client) == "3"
    told = [(term["version"], term["by"], term["reason"]) for term in history(client)]
    assert told == [("1", "promote", "first"), ("3", "promote", "better")]


def test_promoting_the_champion_changes_nothing(client, uri):
    registry.promote(uri, "pitwise", "1", "first")
    assert registry.promote(uri, "pitwise", "1", "again") == {"version": "1", "before": "1"}
    assert len(history(client)) == 1


@pytest.mark.parametrize(
    ("version", "told"),
    [("9", "no version 9 that can be read"), ("4", "does not say its kind, features, window")],
)
def test_promote_refuses_what_cannot_be_champion(client, uri, version, told):
    registry.promote(uri, "pitwise", "1", "first")
    with pytest.raises(StoreError, match=told):
        registry.promote(uri, "pitwise", version, "")
    assert champion(client) == "1"


def test_rollback_goes_back_step_by_step(client, uri):
    for version in ("1", "2", "3"):
        registry.promote(uri, "pitwise", version, "")
    assert registry.rollback(uri, "pitwise") == {"version": "2", "before": "3"}
    assert registry.rollback(uri, "pitwise") == {"version": "1", "before": "2"}
    with pytest.raises(StoreError, match="no champion before version 1"):
        registry.rollback(uri, "pitwise")
    registry.promote(uri, "pitwise", "3", "")
    assert registry.rollback(uri, "pitwise")["version"] == "1"
    assert champion(client) == "1"
    assert [term["by"] for term in history(client)] == [
        *["promote"] * 3,
        *["rollback"] * 2,
        "promote",
        "rollback",
    ]


def test_a_champion_set_without_a_note_is_found_by_rollback(client, uri):
    client.set_registered_model_alias("pitwise", "champion", "2")
    registry.promote(uri, "pitwise", "3", "")
    assert history(client)[0] == {"version": "2", "since": None, "by": "unknown", "reason": ""}
    client.set_registered_model_alias("pitwise", "champion", "1")
    assert registry.rollback(uri, "pitwise") == {"version": "3", "before": "1"}


def test_rollback_without_a_champion_says_so(client, uri):
    with pytest.raises(StoreError, match="has no champion"):
        registry.rollback(uri, "pitwise")


def test_the_history_forgets_its_oldest_rather_than_outgrow_its_tag(client):
    for i in range(30):
        move_champion(client, "pitwise", str(1 + i % 3), "gate", f"{i} " + "x" * 600)
    kept = history(client)
    assert len(json.dumps(kept)) <= LONGEST_TAG
    assert kept[-1]["reason"].startswith("29 ")
    assert len(kept) >= 5


def test_an_unknown_model_and_a_broken_registry_are_named(uri, tmp_path):
    with pytest.raises(StoreError, match=r"registry.model 'nobody'.*not found"):
        registry.versions(uri, "nobody")
    (tmp_path / "mlflow.db").write_bytes(b"x" * 10_000)
    with pytest.raises(StoreError, match=r"registry"):
        registry.versions(f"sqlite:///{tmp_path}/mlflow.db", "pitwise")
