"""The rules of `deploy/` are PromQL, and of metrics that the service has."""

from dataclasses import replace
from pathlib import Path

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from support.fake_service import fake_app, fake_service

from monitoring.matured import GAUGES
from pitwise.workspace import Workspace, write_json

RULES = Path(__file__).resolve().parents[3] / "deploy/prometheus-rules.yml"
OF_PROMETHEUS = {"up"}
ACCURACY = {
    "model_version": "7",
    "sessions": 60,
    "matured_at": "2024-06-07T20:00:00+00:00",
    "rank_ic": 0.02,
    "direction_accuracy": 0.51,
}


def named(expression: str) -> set[str]:
    """The metrics that an expression reads; ValueError where it is no PromQL."""
    found: set[str] = set()

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.add(node.name)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


def test_rules_read_metrics_that_are_there(tmp_path):
    write_json(ACCURACY, tmp_path / GAUGES.path)
    service = replace(fake_service(), workspace=Workspace(tmp_path))
    with TestClient(fake_app(tmp_path, service)) as client:
        client.post("/v1/predict", json={"symbols": ["AAPL"]})
        text = client.get("/metrics").text
    there = {s.name for family in text_string_to_metric_families(text) for s in family.samples}
    groups = yaml.safe_load(RULES.read_text())["groups"]
    rules = {rule["alert"]: named(rule["expr"]) for group in groups for rule in group["rules"]}
    assert {alert: names - there - OF_PROMETHEUS for alert, names in rules.items()} == {
        alert: set() for alert in rules
    }
    assert {name for names in rules.values() for name in names} >= {"pitwise_rank_ic", "up"}


def test_what_is_no_promql_is_refused():
    with pytest.raises(ValueError, match="brackets"):
        named("rate(pitwise_request_seconds_bucket[5m)")
