"""The service's metrics, for Prometheus."""

from collections.abc import Iterable

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from serving.http.service import Service

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """One registry an app. It describes a service from the moment that the app has built one."""

    service: Service | None = None

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        self.requests = Histogram(
            "pitwise_request_seconds",
            "Time from a request's head to its answer's end",
            ["route", "method", "status"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.steps = Histogram(
            "pitwise_forecast_step_seconds",
            "Time of a forecast's steps: lookup, model, log, total",
            ["step"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "pitwise_requests_in_flight", "Requests being answered", registry=self.registry
        )
        self.predictions = Counter(
            "pitwise_predictions", "Forecasts answered", ["model_version"], registry=self.registry
        )
        self.problems = Counter(
            "pitwise_problems",
            "Problems answered, those of single symbols too",
            ["type"],
            registry=self.registry,
        )
        self.bars = Counter("pitwise_bars", "Live bars", ["outcome"], registry=self.registry)
        self.served_age = Gauge(
            "pitwise_served_feature_age_sessions",
            "Age of the oldest features in the last answer",
            registry=self.registry,
        )

    def step(self, name: str, seconds: float) -> None:
        self.steps.labels(name).observe(seconds)

    def collect(self) -> Iterable[Metric]:
        """The service's state at the moment of the question, so that it cannot be behind."""
        if self.service is None:
            return
        champion, live = self.service.champion, self.service.live
        model = champion.predictor.model
        labels = ["model_version", "kind"]
        info = GaugeMetricFamily("pitwise_champion_info", "The champion", labels=labels)
        info.add_metric([model.version, model.kind], 1)
        yield info
        swaps = "Changes of the champion since the start"
        yield CounterMetricFamily("pitwise_champion_swaps", swaps, champion.swaps)
        refused = "Versions that failed their self-check, and stand refused"
        yield GaugeMetricFamily("pitwise_champion_refused", refused, len(champion.refused))
        pending = "Answered forecasts that the database does not have yet"
        yield GaugeMetricFamily("pitwise_log_pending_rows", pending, self.service.served.pending)
        age = (np.datetime64("now", "us") - live.newest) / np.timedelta64(1, "s")
        text = "Time since the close of the newest session in the online store"
        yield GaugeMetricFamily("pitwise_feature_age_seconds", text, age)
