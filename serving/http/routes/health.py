"""`/healthz`, `/readyz` and `/metrics`: for those who watch over the service."""

import time
from logging import getLogger
from typing import Any

import anyio
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from serving.http.json_route import json_response
from serving.http.problems import ANY_KEY, Problem, cause, declared
from serving.http.schemas import Health
from serving.http.service import Service
from serving.http.state import metrics_of, service_of

KEPT_SECONDS = 1.0
"""How long what was found is answered again."""
STATUS_SECONDS = 15.0
"""A part that was looked at longer ago is not known to do well."""
NOT_NEEDED = ("log_database", "registry")
"""While the log's database is away, answers wait in files; while the registry is, the champion stays."""
LOG_SECONDS = 2.0
"""The longest that the log may take for one write."""
logger = getLogger("pitwise.serving")


Failing = list[tuple[str, str]]
"""(part, why) of parts that do not do well."""


class Readiness:
    """What keeps the service from answering, looked for once a second at most."""

    def __init__(self) -> None:
        self._one = anyio.Lock()
        self._thread = CapacityLimiter(1)
        self._found: tuple[Failing, Failing] = ([], [])
        self._until = 0.0

    async def failing(self, service: Service) -> tuple[Failing, Failing]:
        """Parts that answers need, and others."""
        async with self._one:
            if time.monotonic() >= self._until:
                parts = _failing_parts(service)
                needed = [failing for failing in parts if failing[0] not in NOT_NEEDED]
                needed += await self._failing_log(service)
                if needed and needed != self._found[0]:
                    logger.error("not ready: %s", "; ".join(f"{part}: {why}" for part, why in needed))
                self._found = needed, [failing for failing in parts if failing[0] in NOT_NEEDED]
                self._until = time.monotonic() + KEPT_SECONDS
            return self._found

    async def _failing_log(self, service: Service) -> Failing:
        try:
            with anyio.fail_after(LOG_SECONDS):
                await to_thread.run_sync(
                    service.served.writable, limiter=self._thread, abandon_on_cancel=True
                )
        except TimeoutError:
            return [("log", f"took no write within {LOG_SECONDS:.0f} s")]
        except Exception as error:  # whatever it is, it is not ready
            logger.exception("the log took no write")
            return [("log", f"took no write ({cause(error)})")]
        return []


def _failing_parts(service: Service) -> Failing:
    try:
        state, statuses = service.states.current(), service.states.statuses()
    except Exception as error:  # whatever it is, it is not ready
        logger.exception("the market's state cannot be read")
        return [("state", f"cannot be read ({cause(error)})")]
    found = [] if state.forecasts else [("state", "has no forecast of any symbol")]
    if not statuses:
        found.append(("writer", "has said nothing of its parts"))
    for part, status in statuses.items():
        age = time.time() - status.at
        if age > STATUS_SECONDS:
            found.append((part, f"was last looked at {age:.0f} s ago"))
        elif not status.ok:
            found.append((part, status.detail))
    return found


def add_health(app: FastAPI) -> None:
    readiness = Readiness()
    one_at_a_time = CapacityLimiter(1)

    @app.get("/healthz", tags=["health"], response_model=Health, responses=declared("internal-error"))
    async def healthz(request: Request) -> Response:
        """The process is alive."""
        return json_response({"status": "alive"})

    @app.get(
        "/readyz",
        tags=["health"],
        response_model=Health,
        responses=declared("not-ready", "too-many-requests", "internal-error"),
    )
    async def readyz(request: Request) -> Response:
        """The service can answer: the log takes a write, and every part was found well just now."""
        failing, degraded = await readiness.failing(service_of(request))
        if failing:
            raise Problem("not-ready", f"Not ready: {', '.join(part for part, _ in failing)}.", failing)
        document: dict[str, Any] = {"status": "ready"}
        if degraded:
            document["degraded"] = [{"field": part, "detail": why} for part, why in degraded]
        return json_response(document)

    @app.get(
        "/metrics",
        tags=["health"],
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
            **declared(*ANY_KEY),
        },
    )
    async def prometheus(request: Request) -> Response:
        """For Prometheus: of all processes together."""
        text = await to_thread.run_sync(metrics_of(request).text, limiter=one_at_a_time)
        return Response(text, media_type=CONTENT_TYPE_LATEST)
