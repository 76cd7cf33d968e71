"""Health, readiness and metrics."""

import errno
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import datetime

import pytest
from support.fake_service import BAR, FRIDAY, MODEL
from support.problems import problem
from support.workspaces import ENVIRONMENT, ROOT

from pitwise.errors import StoreError
from serving.http.routes import health
from serving.state.market import PartStatus


@pytest.fixture
def not_kept(monkeypatch):
    """What readiness finds is looked for at each request."""
    monkeypatch.setattr(health, "KEPT_SECONDS", 0.0)


pytestmark = pytest.mark.unit


def why(client) -> dict[str, str]:
    """Part to why it is not ready."""
    document = problem(client.get("/readyz"), 503, "not-ready")
    assert client.get("/healthz").json() == {"status": "alive"}
    return {error["field"]: error["detail"] for error in document["errors"]}


def test_a_service_that_does_well_is_ready(client):
    assert client.get("/readyz").json() == {"status": "ready"}


def test_a_full_disk_is_not_ready(client, service, not_kept):
    fault = StoreError("/var/secret/log cannot be written")
    fault.__cause__ = OSError(errno.ENOSPC, "no space", "/var/secret/log")
    service.served.fault = fault
    assert why(client) == {"log": "took no write (No space left on device)"}
    service.served.fault = None
    assert client.get("/readyz").status_code == 200


def test_a_log_that_hangs_is_not_ready(client, service, not_kept, monkeypatch):
    monkeypatch.setattr(health, "LOG_SECONDS", 0.05)
    go_on = threading.Event()
    monkeypatch.setattr(service.served, "writable", go_on.wait)
    try:
        assert "took no write within" in why(client)["log"]
    finally:
        go_on.set()


def test_each_part_that_does_not_do_well_is_named_with_its_reason(client, service, not_kept):
    now = time.time()
    service.states.parts |= {
        "store": PartStatus(False, "has no window of AAPL", 3, now),
        "champion": PartStatus(True, "", 0, now - 60),
    }
    found = why(client)
    assert found.keys() == {"store", "champion"}
    assert found["store"] == "has no window of AAPL"
    assert "was last looked at 60 s ago" in found["champion"]


def test_a_database_of_the_log_that_is_away_is_told_and_keeps_no_answer_back(client, service, not_kept):
    service.states.parts["log_database"] = PartStatus(False, "the database is away", 3, time.time())
    assert client.get("/readyz").json() == {
        "status": "ready",
        "degraded": [{"field": "log_database", "detail": "the database is away"}],
    }
    service.served.fault = StoreError("gone")
    assert why(client) == {"log": "took no write (see our log)"}


def test_a_writer_that_is_away_or_a_market_without_forecasts_is_not_ready(client, service, not_kept):
    service.states.parts = {}
    service.states.state = replace(service.states.state, forecasts={})
    assert why(client).keys() == {"state", "writer"}
    service.states.fault = StoreError("none")
    assert why(client).keys() == {"state"}


def test_readiness_is_found_out_once_a_second_whoever_asks(client, service, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(health.time, "monotonic", lambda: clock[0])
    for _ in range(20):
        assert client.get("/readyz").status_code == 200
    assert service.served.probes == 1
    service.served.fault = StoreError("gone")
    assert client.get("/readyz").status_code == 200
    clock[0] += 1.0
    assert why(client).keys() == {"log"}
    assert service.served.probes == 2


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
    assert sample(client, 'pitwise_champion_info{kind="lstm",model_version="7"}') == 1
    assert sample(client, "pitwise_log_pending_rows") == 3
    assert sample(client, "pitwise_requests_in_flight") == 1  # this one
    assert sample(client, "pitwise_limits_alone") == 0
    age = time.time() - datetime.fromisoformat(FRIDAY).timestamp()
    assert sample(client, "pitwise_feature_age_seconds") == pytest.approx(age, abs=60)
    assert sample(client, "pitwise_log_seconds_count") == 2
    route = 'method="POST",route="/v1/predict",status="200"'
    assert sample(client, f"pitwise_request_seconds_count{{{route}}}") == 2


def test_a_refused_version_is_counted_until_it_is_refused_no_more(client, service):
    assert sample(client, "pitwise_champion_refused") == 1
    service.states.state = replace(service.states.state, model=replace(MODEL, refused={}))
    assert sample(client, "pitwise_champion_refused") == 0


def test_metrics_tell_how_each_part_does(client, service):
    service.states.parts["store"] = PartStatus(False, "is empty", 3, time.time() - 9)
    assert sample(client, 'pitwise_part_ok{part="store"}') == 0
    assert sample(client, 'pitwise_part_ok{part="champion"}') == 1
    assert sample(client, 'pitwise_part_failures_total{part="store"}') == 3
    assert 9 <= sample(client, 'pitwise_part_age_seconds{part="store"}') < 60
    assert sample(client, 'pitwise_part_figure{figure="waiting",part="live_bars"}') == 2


def test_metrics_are_there_without_a_state(client, service):
    service.states.fault = StoreError("none")
    text = client.get("/metrics").text
    assert "pitwise_requests_in_flight" in text
    assert "pitwise_champion_info" not in text


def test_what_clients_make_up_becomes_no_time_series(client):
    for i in range(20):
        client.get(f"/made/up/{i}")
        client.request(f"MADEUP{i}", "/v1/predict")
        client.get(f"/v1/features/S{i}")
    lines = client.get("/metrics").text.splitlines()
    assert len([line for line in lines if line.startswith("pitwise_request_seconds_count")]) == 3


ONE_PROCESS = """
import json, os, sys
from dataclasses import replace
from pathlib import Path
from starlette.testclient import TestClient
from support.fake_service import fake_app, fake_service

pids = Path(sys.argv[1]) / "processes.json"
pids.write_text(json.dumps({"writer": os.getppid(), "reader-0": os.getpid(), "gone": 2**22 + 1}))
with TestClient(fake_app(Path(sys.argv[1]), replace(fake_service(), pids=pids))) as client:
    client.post("/v1/predict", json={"symbols": ["AAPL", "MSFT"]})
    print(client.get("/metrics").text)
"""


def test_processes_count_together(tmp_path):
    counts = tmp_path / "counts"
    counts.mkdir()
    environment = ENVIRONMENT | {
        "PROMETHEUS_MULTIPROC_DIR": str(counts),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    command = [sys.executable, "-c", ONE_PROCESS, str(tmp_path)]
    texts = [
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    ]
    for n, text in enumerate(texts, start=1):
        assert f'pitwise_predictions_total{{model_version="7"}} {2.0 * n}' in text
        assert 'pitwise_champion_info{kind="lstm",model_version="7"} 1.0' in text  # the service's, once
    route = 'pitwise_request_seconds_count{method="POST",route="/v1/predict",status="200"} 3.0'
    assert route in texts[2]
    # What the operating system says of each process, by its name.
    for name in ("reader-0", "writer"):
        assert f'process_resident_memory_bytes{{process="{name}"}}' in texts[2]
        assert f'process_cpu_seconds_total{{process="{name}"}}' in texts[2]
    assert 'process="gone"' not in texts[2]
