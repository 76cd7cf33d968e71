"""Health, readiness and metrics."""

import numpy as np
import pytest
from support.fake_service import BAR, FRIDAY
from support.problems import fields, problem

pytestmark = pytest.mark.unit


def test_readiness_names_what_is_not_ready_and_health_does_not_care(client, service):
    assert client.get("/readyz").status_code == 200
    service.champion.predictor.fault = OSError("away")
    document = problem(client.get("/readyz"), 503, "not-ready")
    assert fields(document) == ["store"]
    assert client.get("/healthz").json() == {"status": "alive"}


def sample(client, name: str) -> float:
    """Value of a line of /metrics."""
    lines = client.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[-1])


def test_metrics_count_what_was_answered(client):
    client.post("/v1/predict", json={"symbols": ["AAPL", "MSFT", "NOPE"]})
    client.post("/v1/predict", json={"symbols": ["LAGS"]})
    client.post("/v1/bars", json={"bars": [BAR]})
    assert sample(client, 'pitwise_predictions_total{model_version="7"}') == 3
    assert sample(client, 'pitwise_problems_total{type="unknown-symbol"}') == 1
    assert sample(client, 'pitwise_bars_total{outcome="new"}') == 1
    assert sample(client, "pitwise_served_feature_age_sessions") == 5
    assert sample(client, "pitwise_champion_swaps_total") == 2
    assert sample(client, "pitwise_champion_refused") == 1
    assert sample(client, 'pitwise_champion_info{kind="lstm",model_version="7"}') == 1
    assert sample(client, "pitwise_log_pending_rows") == 3
    assert sample(client, "pitwise_requests_in_flight") == 1  # this one
    age = (np.datetime64("now") - FRIDAY) / np.timedelta64(1, "s")
    assert sample(client, "pitwise_feature_age_seconds") == pytest.approx(age, abs=60)
    for step in ("lookup", "model", "log", "total"):
        assert sample(client, f'pitwise_forecast_step_seconds_count{{step="{step}"}}') == 2
    route = 'method="POST",route="/v1/predict",status="200"'
    assert sample(client, f"pitwise_request_seconds_count{{{route}}}") == 2


def test_what_clients_make_up_becomes_no_time_series(client):
    for i in range(20):
        client.get(f"/made/up/{i}")
        client.request(f"MADEUP{i}", "/v1/predict")
        client.get(f"/v1/features/S{i}")
    lines = client.get("/metrics").text.splitlines()
    assert len([line for line in lines if line.startswith("pitwise_request_seconds_count")]) == 3
