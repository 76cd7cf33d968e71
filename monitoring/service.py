"""How the service did: the week's requests in the log, and what a running service counts of itself."""

import math
import urllib.request
from typing import Any

import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families

from monitoring.weeks import Week
from pitwise.errors import StoreError, one_line
from pitwise.registry.prediction_log import REQUESTS

SECONDS = 10
ERRORS_SHARE = 0.01
"""Of the answers that may be errors of the service's own, 500 and above."""
REQUEST = "pitwise_request_seconds"
QUANTILES = {"p50_ms": 0.5, "p99_ms": 0.99}


def of_week(engine: sa.Engine, week: Week) -> dict[str, Any]:
    """The requests for forecasts that were answered in a week, by the clock on the wall.

    Returns:
        requests; p50_ms and p99_ms, nearest-rank quantiles of their latency, None without any.
    """
    received = REQUESTS.c.received_at
    inside = sa.and_(received >= week.begin.to_pydatetime(), received < week.end.to_pydatetime())
    latency = sa.select(REQUESTS.c.latency_ms).where(inside).order_by(REQUESTS.c.latency_ms)
    with engine.connect() as connection:
        n = connection.execute(sa.select(sa.func.count()).where(inside)).scalar_one()
        found = {
            name: connection.execute(latency.offset(max(0, math.ceil(share * n) - 1)).limit(1)).scalar()
            for name, share in QUANTILES.items()
        }
    return {"requests": n, **found}


def since_start(url: str) -> dict[str, Any]:
    """What a running service says at its `/metrics`, of all requests since it started.

    Returns:
        requests; errors, the share of answers of status 500 and above; p50_ms and p99_ms, the upper ends
        of the histogram's bins that the quantiles lie in, None beyond the last or without any.

    Raises:
        StoreError: there is no answer, or not of metrics.
    """
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            text = answer.read().decode()
        return counted(text)
    except (OSError, ValueError) as error:
        raise StoreError(
            f"monitor.metrics_url: the service was not asked ({one_line(error)}). Name the /metrics of "
            "one that runs."
        ) from error


def counted(text: str) -> dict[str, Any]:
    """See `since_start`.

    Args:
        text: in Prometheus's text format.
    """
    bins: dict[float, float] = {}
    failed = 0.0
    for family in text_string_to_metric_families(text):
        if family.name != REQUEST:
            continue
        for sample in family.samples:
            if sample.name.endswith("_bucket"):
                end = float(sample.labels["le"])
                bins[end] = bins.get(end, 0.0) + sample.value
            elif sample.name.endswith("_count") and int(sample.labels["status"]) >= 500:
                failed += sample.value
    n = bins.get(math.inf, 0.0)
    return {
        "requests": int(n),
        "errors": failed / n if n else None,
        **{name: _bin_of(bins, share * n) for name, share in QUANTILES.items()},
    }


def _bin_of(bins: dict[float, float], wanted: float) -> float | None:
    ends = [end for end in sorted(bins) if bins[end] >= wanted]
    return 1000 * ends[0] if ends and wanted and math.isfinite(ends[0]) else None
