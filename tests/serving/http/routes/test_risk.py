"""The risk of what is asked, and requests that are refused before a process is started for them."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from support.fake_service import fake_service
from support.problems import fields, problem

from pitwise.decisions.holdings import market
from pitwise.decisions.risk import risk_report
from pitwise.errors import DataError, StoreError
from pitwise.workspace import Workspace, write_parquet
from serving.http.risk_of import risk_of
from serving.http.routes import risk

pytestmark = pytest.mark.unit


@pytest.fixture
def service(tmp_path):
    return replace(fake_service(), workspace=Workspace(tmp_path))


@pytest.fixture
def asked(monkeypatch) -> list[tuple]:
    """What a worker was asked, each of which is answered with its number."""
    questions: list[tuple] = []

    async def run_sync(function, *question, **options):
        questions.append(question)
        if question[1] == {"AAPL": 3.0}:
            raise DataError("weights: the weights sum to 3, and should to 1.")
        if question[1] == {"AAPL": 4.0}:
            raise RuntimeError("secret")
        return json.dumps({"number": len(questions)}).encode()

    monkeypatch.setattr(risk.to_process, "run_sync", run_sync)
    return questions


def test_weights_and_holdings_are_handed_to_a_worker(client, service, asked):
    answer = client.post("/v1/risk", json={"weights": {"AAPL": 0.4, "MSFT": 0.6}, "value": 1000})
    assert answer.json() == {"number": 1}
    client.post("/v1/risk", json={"holdings": {"AAPL": -10}})
    root = str(service.workspace.root)
    assert asked == [
        (root, {"AAPL": 0.4, "MSFT": 0.6}, "weight", 1000.0),
        (root, {"AAPL": -10.0}, "shares", 1.0),
    ]


@pytest.mark.parametrize(
    ("body", "status", "kind", "at"),
    [
        ({}, 422, "invalid-request", ["body"]),
        ([], 422, "invalid-request", ["body"]),
        ({"weights": {"AAPL": 1}, "holdings": {"AAPL": 1}}, 422, "invalid-request", ["body"]),
        ({"weights": {"AAPL": 1}, "more": 1}, 422, "invalid-request", ["more"]),
        ({"weights": {"AAPL": "1"}}, 422, "invalid-request", ["weights.AAPL"]),
        ({"weights": {"AAPL": 1}, "value": 0}, 422, "invalid-request", ["value"]),
        ({"weights": {}}, 422, "empty-batch", ["weights"]),
        ({"holdings": {"AAPL": 1, "NONE": 2}}, 404, "unknown-symbol", ["holdings.NONE"]),
        ({"weights": {str(i): 0.001 for i in range(1001)}}, 422, "batch-too-large", ["weights"]),
        ({"weights": {"AAPL": 3}}, 422, "invalid-request", ["weights"]),
    ],
)
def test_portfolios_that_are_refused(client, asked, body, status, kind, at):
    refused = client.post("/v1/risk", json=body)
    assert fields(problem(refused, status, kind)) == at


def test_what_fails_in_the_worker_is_ours_and_stays_in_our_log(client, asked):
    failed = client.post("/v1/risk", json={"weights": {"AAPL": 4}})
    problem(failed, 503, "unavailable")
    assert "secret" not in failed.text


def test_a_worker_tells_the_report_of_the_clean_bars(tmp_path):
    workspace = Workspace(tmp_path)
    with pytest.raises(StoreError):
        risk_of(str(tmp_path), {"A": 1.0}, "weight", 1.0)
    rng = np.random.default_rng(3)
    days = pd.bdate_range("2016-01-04", periods=300).astype("datetime64[us]")
    closes = 50 * np.exp(np.cumsum(rng.normal(0, 0.01, (300, 2)), axis=0))
    bars = {"symbol": np.repeat(["A", "B"], 300), "date": [*days, *days], "close": closes.T.ravel()}
    write_parquet(pd.DataFrame(bars | {"price_factor": 1.0, "segment": 0}), workspace.clean_bars)
    said = json.loads(risk_of(str(tmp_path), {"A": 10.0, "B": 0.0}, "shares", 1.0))
    assert said["value"] == pytest.approx(10 * closes[-1, 0])
    returns = market(workspace).returns
    assert said == risk_report(returns, pd.Series({"A": 1.0}), said["value"])
    with pytest.raises(DataError, match="'C' not among the 2 symbols"):
        risk_of(str(tmp_path), {"C": 1.0}, "weight", 1.0)
