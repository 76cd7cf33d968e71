"""What the log and the service say of how it did."""

from datetime import timedelta

import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from monitoring.service import counted, of_week, since_start
from monitoring.weeks import Week
from pitwise.errors import StoreError
from pitwise.registry.prediction_log import REQUESTS

WEEK = Week.named("2024-W23")


def test_the_weeks_latency_is_of_its_own_requests():
    engine = sa.create_engine("sqlite://")
    REQUESTS.create(engine)
    row = {
        "caller": "desk",
        "route": "/v1/predict",
        "model_version": "1",
        "state": 1,
        "n": 1,
        "windows": "",
    }
    begin = WEEK.begin.to_pydatetime()
    times = [(begin + timedelta(minutes=at), at + 1.0) for at in range(200)]
    times += [(begin - timedelta(seconds=1), 9e9), (begin + timedelta(days=7), 9e9)]
    rows = [
        row | {"received_at": at, "request_id": str(number), "latency_ms": ms}
        for number, (at, ms) in enumerate(times)
    ]
    with engine.begin() as connection:
        connection.execute(REQUESTS.insert(), rows)
    assert of_week(engine, WEEK) == {"requests": 200, "p50_ms": 100.0, "p99_ms": 198.0}
    assert of_week(engine, WEEK.before(2)) == {"requests": 0, "p50_ms": None, "p99_ms": None}


def test_errors_and_latency_are_read_from_what_prometheus_reads():
    registry = CollectorRegistry()
    seconds = Histogram(
        "pitwise_request_seconds", "", ["status"], buckets=(0.001, 0.01, 0.1), registry=registry
    )
    empty = counted(generate_latest(registry).decode())
    assert empty == {"requests": 0, "errors": None, "p50_ms": None, "p99_ms": None}
    for status, value, times in (("200", 0.005, 97), ("404", 0.0005, 1), ("503", 0.05, 2)):
        for _ in range(times):
            seconds.labels(status).observe(value)
    found = counted(generate_latest(registry).decode())
    assert found == {"requests": 100, "errors": 0.02, "p50_ms": 10.0, "p99_ms": 100.0}


def test_a_service_that_does_not_answer_is_one_clear_message():
    with pytest.raises(StoreError, match=r"monitor\.metrics_url"):
        since_start("http://127.0.0.1:9/metrics")
