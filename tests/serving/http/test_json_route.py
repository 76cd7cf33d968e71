"""Bodies are bounded before they are validated; answers that a client has are not sent again."""

import json
import tracemalloc

import pytest
from pydantic import TypeAdapter
from starlette.testclient import TestClient
from support.fake_service import BAR, fake_app
from support.problems import fields, problem

from serving.http import json_route
from serving.http.json_route import batch_of, validated
from serving.http.problems import Problem

pytestmark = pytest.mark.unit
JSON = {"Content-Type": "application/json"}
MANY_SYMBOLS = b'{"symbols": [' + b",".join([b"0"] * 400_000) + b"]}"
MANY_FIELDS = b"{" + b",".join(b'"%06d": 1' % i for i in range(160_000)) + b"}"
WIDE_BARS = b'{"bars": [' + b",".join([MANY_FIELDS[:500_000].rpartition(b",")[0] + b"}"] * 3) + b"]}"


@pytest.fixture
def roomy(tmp_path):
    with TestClient(fake_app(tmp_path, max_body_bytes=2_000_000)) as client:
        client.post("/v1/predict", json={"symbols": ["AAPL"]})  # so that what is built once is there
        yield client


@pytest.fixture
def looked_at(monkeypatch):
    """How many items were handed to validation."""
    seen = []
    check = TypeAdapter.validate_python

    def counting(self, items, **kwargs):
        seen.append(len(items))
        return check(self, items, **kwargs)

    monkeypatch.setattr(TypeAdapter, "validate_python", counting)
    return seen


@pytest.mark.parametrize(
    ("path", "body", "kind", "named"),
    [
        ("/v1/predict", MANY_SYMBOLS, "batch-too-large", ["symbols"]),
        ("/v1/predict", MANY_FIELDS, "invalid-request", None),
        ("/v1/bars", MANY_SYMBOLS.replace(b"symbols", b"bars"), "batch-too-large", ["bars"]),
        ("/v1/bars", MANY_FIELDS, "invalid-request", None),
        ("/v1/bars", WIDE_BARS, "invalid-request", ["bars[0]", "bars[1]", "bars[2]"]),
    ],
    ids=["symbols", "fields", "bars", "fields of bars", "fields of a bar"],
)
def test_a_small_body_of_very_many_things_costs_little(roomy, looked_at, path, body, kind, named):
    assert 500_000 < len(body) <= 2_000_000
    tracemalloc.start()
    try:
        response = roomy.post(path, content=body, headers=JSON)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    document = problem(response, 422, kind)
    assert looked_at == []
    assert named is None or fields(document) == named
    assert len(document["errors"]) <= 100
    assert len(response.content) < 30_000
    assert most < 50_000_000


def test_no_more_is_validated_once_there_are_a_hundred_faults(looked_at):
    with pytest.raises(Problem) as raised:
        validated(["x"] * 100_000, "symbols", TypeAdapter(list[int]))
    assert len(raised.value.errors) == 100
    assert sum(looked_at) == 100


def test_a_fault_is_named_by_its_place_in_the_whole_batch():
    with pytest.raises(Problem) as raised:
        validated([1] * 250 + ["x"] + [1] * 5, "symbols", TypeAdapter(list[int]))
    assert [field for field, _ in raised.value.errors] == ["symbols[250]"]


@pytest.mark.parametrize("document", [None, 3, [], "x", {"symbol": ["A"]}, {"symbols": "A"}])
def test_a_body_without_the_list_is_refused(document):
    with pytest.raises(Problem) as raised:
        batch_of(document, "symbols", 3)
    assert raised.value.kind == "invalid-request"


def test_a_big_body_is_parsed_in_a_thread_and_means_the_same(roomy):
    text = json.dumps({"symbols": ["AAPL"]})
    padded = text[:-1] + " " * json_route.BIG_BYTES + "}"
    answers = [roomy.post("/v1/predict", content=body, headers=JSON).json() for body in (text, padded)]
    assert answers[0] == answers[1]
    broken = roomy.post("/v1/predict", content=padded[:-1], headers=JSON)
    problem(broken, 400, "malformed-json")


def test_a_bar_of_nine_fields_is_refused_by_its_field_and_not_by_their_number(client):
    bars = [BAR | {f"x{i}": 1 for i in range(n)} for n in (1, 20)]
    document = problem(client.post("/v1/bars", json={"bars": bars[:1]}), 422, "invalid-request")
    assert fields(document) == ["bars[0].x0"]
    document = problem(client.post("/v1/bars", json={"bars": bars}), 422, "invalid-request")
    assert fields(document) == ["bars[1]"]


ADDRESSES = [
    "/v1/model",
    "/v1/forecasts?top=2",
    "/v1/forecasts?as_of=2013-11-01",
    "/v1/forecasts/AAPL/history",
    "/v1/features/AAPL",
]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("held", ["{}", "W/{}", '"x", {}', "*"])
def test_what_the_client_has_is_not_sent_again(client, address, held):
    first = client.get(address)
    tag = first.headers["etag"]
    assert tag.startswith('"')
    again = client.get(address, headers={"If-None-Match": held.format(tag)})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == tag
    assert client.get(address, headers={"If-None-Match": '"x"'}).content == first.content


def test_a_change_has_another_tag_and_is_sent(client, service):
    tag = client.get("/v1/forecasts").headers["etag"]
    service.states.change("AAPL", p_up=0.9)
    response = client.get("/v1/forecasts", headers={"If-None-Match": tag})
    assert response.status_code == 200
    assert response.json()["forecasts"][0]["symbol"] == "AAPL"


def test_an_answer_that_the_client_has_is_logged_all_the_same(client, service):
    tag = client.get("/v1/forecasts").headers["etag"]
    client.get("/v1/forecasts", headers={"If-None-Match": tag})
    assert len(service.served.recorded) == 2
