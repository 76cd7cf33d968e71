"""The version that answers."""

import pytest

pytestmark = pytest.mark.unit


def test_the_champion_is_described(client):
    answer = client.get("/v1/model").json()
    assert (answer["version"], answer["kind"], answer["window"]) == ("7", "lstm", 30)
    assert answer["refused"] == {"8": "p_up is not finite"}
    assert answer["since"].startswith("2013-11-01")
    assert answer["metadata"] == {"kind": "lstm", "seed": 7}
