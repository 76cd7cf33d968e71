"""The service's metrics, for Prometheus: of all processes together, whichever is asked."""

import json
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
    values,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector

from pitwise.errors import StoreError
from serving.http.service import Service

ACCURACY = "data/monitoring/accuracy.json"
"""In the workspace: what `python -m monitoring.matured` writes, every evening."""
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """What this process counts, and what the market's state says at the moment of the question."""

    service: Service | None = None
    """Described from the moment that the app has built it."""

    def __init__(self) -> None:
        # As it was when the client was imported: the supervisor names a folder to its processes.
        self._together = values.ValueClass is not values.MutexValue
        self._own = CollectorRegistry()
        if not self._together:
            ProcessCollector(registry=self._own)
        self.requests = Histogram(
            "pitwise_request_seconds",
            "Time from a request's head to its answer's end",
            ["route", "method", "status"],
            buckets=SECONDS,
            registry=self._own,
        )
        self.log_seconds = Histogram(
            "pitwise_log_seconds",
            "Time to write an answer down before it is sent",
            buckets=SECONDS,
            registry=self._own,
        )
        self.predictions = Counter(
            "pitwise_predictions", "Forecasts answered", ["model_version"], registry=self._own
        )
        self.problems = Counter(
            "pitwise_problems",
            "Problems answered, those of single symbols too",
            ["type"],
            registry=self._own,
        )
        self.bars = Counter("pitwise_bars", "Live bars", ["outcome"], registry=self._own)
        self.served_age = Gauge(
            "pitwise_served_feature_age_sessions",
            "Age of the oldest features in the last answer",
            multiprocess_mode="livemostrecent",
            registry=self._own,
        )
        self.in_flight = self._sum("pitwise_requests_in_flight", "Requests being answered")
        self.streams = self._sum("pitwise_streams", "Streams of forecasts that are open")
        self.bars_waiting = self._sum(
            "pitwise_bars_waiting", "Posts of bars being read, waiting for others, or being taken"
        )
        self.log_pending = self._sum(
            "pitwise_log_pending_rows", "Rows of the log that the database does not have yet"
        )
        self.limits_alone = self._sum(
            "pitwise_limits_alone", "Processes that count limits without the others"
        )
        # Looking up a child by its labels each time would take a tenth of a small request.
        self._requests: dict[tuple[str, str, int], Histogram] = {}

    def _sum(self, name: str, text: str) -> Gauge:
        """A gauge whose value is the sum over the living processes."""
        return Gauge(name, text, multiprocess_mode="livesum", registry=self._own)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        key = (route, method, status)
        child = self._requests.get(key)
        if child is None:
            child = self._requests[key] = self.requests.labels(*key)
        child.observe(seconds)

    def text(self) -> bytes:
        """In Prometheus's text format. It reads the files of all processes: call it in a thread."""
        registry = CollectorRegistry()
        if self._together:
            MultiProcessCollector(registry)
        else:
            registry.register(self._own)
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterable[Metric]:
        """The market's state and the parts of the service, at the moment of the question."""
        if self.service is None:
            return
        if self._together and self.service.pids:
            yield from _of_processes(self.service.pids)
        if self.service.workspace:
            yield from _of_accuracy(self.service.workspace.root / ACCURACY)
        try:
            yield from self._of_state(self.service)
            yield from self._of_parts(self.service)
        except StoreError:
            return  # readiness says so; what this process counts is there all the same

    def _of_state(self, service: Service) -> Iterable[Metric]:
        state = service.states.current()
        model = state.model
        labels = ["model_version", "kind"]
        info = GaugeMetricFamily("pitwise_champion_info", "The champion", labels=labels)
        info.add_metric([model.version, model.kind], 1)
        yield info
        swaps = "Changes of the champion since the start"
        yield CounterMetricFamily("pitwise_champion_swaps", swaps, model.swaps)
        refused = "Versions that failed their self-check, and stand refused"
        yield GaugeMetricFamily("pitwise_champion_refused", refused, len(model.refused))
        text = "Symbols that have a window and no forecast"
        yield GaugeMetricFamily("pitwise_symbols_without_forecast", text, len(state.faults))
        age = time.time() - datetime.fromisoformat(state.newest_close).timestamp()
        text = "Time since the close of the newest session in the online store"
        yield GaugeMetricFamily("pitwise_feature_age_seconds", text, age)

    def _of_parts(self, service: Service) -> Iterable[Metric]:
        parts = ["part"]
        ok = GaugeMetricFamily(
            "pitwise_part_ok", "Whether a part of the service does well", labels=parts
        )
        failures = CounterMetricFamily(
            "pitwise_part_failures", "Failures of a part since the start of its process", labels=parts
        )
        age = GaugeMetricFamily(
            "pitwise_part_age_seconds", "Time since a part was last looked at", labels=parts
        )
        figures = GaugeMetricFamily(
            "pitwise_part_figure", "What a part counts", labels=["part", "figure"]
        )
        for part, status in service.states.statuses().items():
            ok.add_metric([part], float(status.ok))
            failures.add_metric([part], status.failures)
            age.add_metric([part], max(0.0, time.time() - status.at))
            for name, value in status.figures.items():
                figures.add_metric([part, name], value)
        yield from (ok, failures, age, figures)


def _of_accuracy(path: Path) -> Iterable[Metric]:
    """What the evening found of the champion's forecasts with an outcome; none where it has not run."""
    try:
        found = json.loads(path.read_text())
        matured_at = datetime.fromisoformat(found["matured_at"]).timestamp()
    except (OSError, ValueError, KeyError):
        return
    version = found["model_version"]
    for name, key, text in (
        ("pitwise_rank_ic", "rank_ic", "Mean rank IC of the last sessions with an outcome"),
        ("pitwise_direction_accuracy", "direction_accuracy", "Share of directions called right in them"),
        ("pitwise_accuracy_sessions", "sessions", "Sessions that these figures are of"),
    ):
        if found.get(key) is not None:
            gauge = GaugeMetricFamily(name, text, labels=["model_version"])
            gauge.add_metric([version], found[key])
            yield gauge
    age = max(0.0, time.time() - matured_at)
    yield GaugeMetricFamily("pitwise_accuracy_age_seconds", "Time since their newest outcome", age)


def _of_processes(path: Path) -> Iterable[Metric]:
    """What `ProcessCollector` has, of each process named in a file of ids, by `process`."""
    try:
        pids: dict[str, int] = json.loads(path.read_text())
    except (OSError, ValueError):  # while the service starts or ends
        return
    together: dict[str, Metric] = {}
    for name, pid in pids.items():
        for own in ProcessCollector(pid=str(pid).__str__, registry=None).collect():
            metric = together.setdefault(own.name, Metric(own.name, own.documentation, own.type))
            for sample in own.samples:
                metric.add_sample(sample.name, {"process": name}, sample.value)
    yield from together.values()
