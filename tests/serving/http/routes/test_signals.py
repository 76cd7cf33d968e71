"""What to do with the market's forecasts, by the rules of the stage's last report."""

import math
from dataclasses import asdict, replace

import pytest
from support.fake_service import fake_service
from support.problems import fields, problem
from support.signal_rules import RECORD, RULES, write_rules

from pitwise.decisions.signals import signal
from pitwise.workspace import Workspace

pytestmark = pytest.mark.unit


@pytest.fixture
def service(tmp_path):
    """Ranges are known of all but LAGS; MSFT is to rise by 1%, AAPL to fall by 3%."""
    service = replace(fake_service(), workspace=Workspace(tmp_path))
    state = service.states.state
    known = {"atr_14": 2.0, "volatility_20": 1.0, "volume_sma_20": 1e6}
    features = {
        symbol: one if symbol == "LAGS" else replace(one, values=known)
        for symbol, one in state.features.items()
    }
    service.states.state = replace(state, features=features)
    service.states.change("AAPL", log_return=-0.03, p_up=0.4)
    write_rules(service.workspace)
    return service


def test_signals_are_those_of_the_stage_and_are_logged(client, service):
    answer = client.post("/v1/signals", json={"symbols": ["MSFT", "NONE", "LAGS"]}).json()
    assert answer["model_version"] == "7"
    assert answer["record"] == RECORD
    (error,) = answer["errors"]
    assert (error["symbol"], error["field"]) == ("NONE", "symbols[1]")
    msft, lags = answer["signals"]
    assert (msft["signal"], msft["confidence"]) == ("BUY", pytest.approx(0.501))
    same = signal(
        0.01, 0.501, service.states.state.forecasts["MSFT"].scale, 101, 2.0, 0.01, 1.01e8, None, RULES
    )
    assert {name: msft[name] for name in asdict(same)} == pytest.approx(asdict(same))
    assert (lags["signal"], lags["reason"]) == ("HOLD", "range, volatility or volume is not known")
    assert service.served.symbols == [["MSFT", "LAGS"]]
    assert service.served.recorded[0].route == "/v1/signals"


def test_the_whole_market_has_buy_and_sell_first_and_follows_state_and_rules(client, service):
    def market(top: int = 10) -> list[tuple[str, str]]:
        signals = client.get("/v1/signals", params={"top": top}).json()["signals"]
        return [(one["symbol"], one["signal"]) for one in signals]

    # OLD has no forecast to show. A fall of 3% less its cost is more than a rise of 1%.
    assert market() == [("AAPL", "SELL"), ("MSFT", "BUY"), ("LAGS", "HOLD")]
    assert market(1) == [("AAPL", "SELL")]
    assert service.served.symbols[-1] == ["AAPL"]
    service.states.change("AAPL", suspect="bad_print")
    assert market() == [("MSFT", "BUY"), ("AAPL", "HOLD"), ("LAGS", "HOLD")]
    write_rules(service.workspace, commission_bp=500.0)
    assert market(1) == [("AAPL", "HOLD")]


@pytest.mark.parametrize("changed", [{"kind": "ann"}, {"horizon": 5}])
def test_a_calibration_of_another_model_is_not_used(client, service, changed):
    write_rules(service.workspace, **changed)
    (found,) = client.post("/v1/signals", json={"symbols": ["MSFT"]}).json()["signals"]
    assert (found["signal"], found["confidence"]) == ("HOLD", None)
    assert found["horizon"] == 1


@pytest.mark.parametrize("text", ["{", '{"kind": "lstm", "rules": {"horizon": 1}, "record": null}'])
def test_without_rules_there_are_no_signals(client, service, text):
    path = service.workspace.root / "metrics/signals.json"
    path.write_text(text)
    problem(client.get("/v1/signals"), 503, "unavailable")
    path.unlink()
    refused = problem(client.get("/v1/signals"), 409, "no-signals")
    assert "pitwise signals" in refused["detail"]
    assert service.served.recorded == []


def test_features_of_another_session_tell_no_range(client, service):
    state = service.states.state
    features = state.features | {"MSFT": replace(state.features["MSFT"], as_of="2013-10-31T20:00:00Z")}
    service.states.state = replace(state, features=features)
    (found,) = client.post("/v1/signals", json={"symbols": ["MSFT"]}).json()["signals"]
    assert found["reason"] == "range, volatility or volume is not known"
    assert found["target"] == pytest.approx(101 * math.exp(0.01))


def test_requests_that_are_refused(client):
    problem(client.post("/v1/signals", json={"symbols": ["NONE"]}), 404, "unknown-symbol")
    problem(client.post("/v1/signals", json={"symbols": ["A", "A"]}), 422, "duplicate-symbol")
    assert fields(client.get("/v1/signals", params={"top": 0}).json()) == ["top"]


def test_signals_need_the_scope_of_forecasts(locked):
    from serving.http.auth import add_key

    closed, key, path = locked
    other = add_key(path, "feeder", ["bars"])
    for address in ("/v1/signals", "/v1/risk"):
        refused = closed.post(address, json={}, headers={"X-API-Key": other})
        problem(refused, 403, "wrong-scope")
    problem(closed.get("/v1/signals", headers={"X-API-Key": key}), 409, "no-signals")


def test_a_method_that_is_not_taken_names_those_that_are(client):
    refused = client.delete("/v1/signals")
    problem(refused, 405, "method-not-allowed")
    assert refused.headers["allow"] == "GET, POST"
