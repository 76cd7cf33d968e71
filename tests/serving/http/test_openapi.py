"""The API and its OpenAPI document agree."""

import json
from dataclasses import replace

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from starlette.testclient import TestClient
from support.fake_service import fake_app, fake_service
from support.problems import PROBLEM
from support.signal_rules import write_rules

from pitwise.workspace import Workspace
from serving.http.routes import risk

NO_RISK = {
    "as_of": "2013-11-01",
    "first_session": "2012-11-01",
    "sessions": 250,
    "value": 1.0,
    "holdings": 1,
    "window": 250,
    "beta": 1.0,
    "diversification_ratio": None,
    "var": [],
    "drawdown": {},
    "volatility": {},
    "correlation": {},
    "contributions": [],
    "stress": {},
    "notes": [],
}


async def no_risk(*_, **__) -> bytes:
    return json.dumps(NO_RISK).encode()


@pytest.fixture(scope="module")
def documented(tmp_path_factory):
    """A service with rules of signals, whose workers find no risk in anything."""
    workspace = Workspace(tmp_path_factory.mktemp("schema"))
    write_rules(workspace)
    app = fake_app(workspace.root, replace(fake_service(), workspace=workspace))
    with pytest.MonkeyPatch.context() as patched, TestClient(app):
        patched.setattr(risk.to_process, "run_sync", no_risk)
        yield schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.mark.parametrize(
    "operation",
    [
        "POST /v1/predict",
        "GET /v1/forecasts",
        "GET /v1/forecasts/{symbol}/history",
        "GET /v1/signals",
        "POST /v1/risk",
        "GET /v1/features/{symbol}",
        "POST /v1/bars",
        "DELETE /v1/bars/{symbol}/{date}",
        "GET /v1/model",
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",
    ],
)
def test_the_api_keeps_to_its_openapi_document(documented, operation):
    operations = {found.ok().label: found.ok() for found in documented.get_all_operations()}
    # A stream has no end, and the checks wait for it.
    assert len(operations) - 1 == 13
    modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
    for cases in (operations[operation].as_strategy(generation_mode=mode) for mode in modes):

        @settings(
            max_examples=30, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
        )
        @given(case=cases)
        def check(case):
            case.call_and_validate()

        try:
            check()
        except Unsatisfiable:  # nothing of this operation can be made wrong
            assert operation.startswith("GET")


@pytest.mark.unit
def test_every_error_of_the_document_is_a_problem_with_examples(client):
    document = client.get("/openapi.json").json()
    seen = 0
    for operations in document["paths"].values():
        for operation in operations.values():
            assert operation["summary"]
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert list(response["content"]) == [PROBLEM]
                    assert response["content"][PROBLEM]["examples"]
                    seen += 1
    assert seen > 50
    assert "HTTPValidationError" not in document["components"]["schemas"]


@pytest.mark.unit
def test_the_document_shows_what_needs_a_key(locked):
    closed, key, _ = locked
    document = closed.get("/openapi.json", headers={"X-API-Key": key}).json()
    assert document["security"] == [{"bearer": []}, {"header": []}]
    open_paths = [p for p, o in document["paths"].items() if o.get("get", {}).get("security") == []]
    assert open_paths == ["/healthz", "/readyz"]
