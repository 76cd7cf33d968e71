"""Signals and risk as typed values, against the API behind a real server."""

import json
from dataclasses import asdict, fields, replace
from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pytest
from support.fake_service import fake_app, fake_service
from support.signal_rules import write_rules

from pitwise.client import ProblemError, Risk, Signal, SignalsRecord
from pitwise.decisions.risk import risk_report
from pitwise.workspace import Workspace
from serving.http.routes import risk
from serving.http.schemas import RiskAnswer
from serving.http.schemas import Signal as Shown

pytestmark = pytest.mark.component


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


@pytest.fixture
def client(workspace, connected, serving):
    """MSFT is to rise by 1%, and its range is known; a price target's interval is 0.8."""
    service = replace(fake_service(), workspace=workspace)
    state = service.states.state
    values = {"atr_14": 2.0, "volatility_20": 1.0, "volume_sma_20": 1e6}
    known = replace(state.features["MSFT"], values=values)
    service.states.state = replace(state, features=state.features | {"MSFT": known})
    with serving(fake_app(workspace.root, service)) as url:
        yield connected(url)


def test_signals_are_typed_with_their_record(client, workspace):
    write_rules(workspace)
    answer = client.signals(["MSFT", "NONE"])
    (msft,) = answer.signals
    assert (msft.symbol, msft.signal, msft.reason) == ("MSFT", "BUY", "")
    assert (msft.as_of, msft.for_session) == (datetime(2013, 11, 1, 20, tzinfo=UTC), date(2013, 11, 4))
    assert msft.expected_return == pytest.approx(np.expm1(0.01))
    # 0.9 and 0.1 of a logistic distribution with scale 0.02 are 0.02 ln 9 from its middle.
    assert np.log(msft.target_high / msft.target_low) == pytest.approx(2 * 0.02 * np.log(9))
    assert answer.record["BUY"] == SignalsRecord(0, 0, *[None] * 6)
    assert [error.field for error in answer.errors] == ["symbols[1]"]
    assert answer.frame()["stop_loss"].tolist() == [msft.stop_loss]


def test_the_market_s_signals_have_what_to_do_first(client, workspace):
    write_rules(workspace)
    assert [(one.symbol, one.signal) for one in client.signals(top=2).signals] == [
        ("MSFT", "BUY"),
        ("AAPL", "HOLD"),
    ]


def test_signals_before_their_stage_are_a_problem(client):
    with pytest.raises(ProblemError) as raised:
        client.signals()
    assert raised.value.kind == "no-signals"


def test_risk_of_weights_and_of_holdings(client, monkeypatch):
    days = pd.bdate_range("2012-09-03", periods=300)
    returns = pd.DataFrame({"AAPL": np.random.default_rng(3).normal(0, 0.01, 300)}, index=days)
    said = json.loads(json.dumps(risk_report(returns, pd.Series({"AAPL": 1.0}), 1e6)))
    asked = []

    async def told(_, root, *question, **options):
        asked.append(question)
        return json.dumps(said).encode()

    monkeypatch.setattr(risk.to_process, "run_sync", told)
    weights = pd.Series({"AAPL": 0.25, "MSFT": 0.75}, dtype="float32")
    answer = client.risk(weights=weights, value=1e6)
    assert answer.first_session == days[0].date()
    dates = {name: date.fromisoformat(said[name]) for name in ("as_of", "first_session")}
    assert asdict(answer) == said | dates
    assert answer.frame()["var_value"].iloc[0] == said["var"][0]["var_value"]
    client.risk(holdings={"AAPL": 3})
    assert asked == [
        ({"AAPL": 0.25, "MSFT": 0.75}, "weight", 1e6),
        ({"AAPL": 3.0}, "shares", 1.0),
    ]


def test_portfolios_that_have_no_risk_are_problems(client):
    for asked, at in (({}, "body"), ({"weights": {"NONE": 1}}, "weights.NONE")):
        with pytest.raises(ProblemError) as raised:
            client.risk(**asked)
        assert list(raised.value.errors) == [at]


@pytest.mark.parametrize(("ours", "served"), [(Signal, Shown), (Risk, RiskAnswer)])
def test_no_field_of_the_service_is_left_out(ours, served):
    assert [field.name for field in fields(ours)] == list(served.model_fields)
